"""What is measured, or measures: a model, maybe with an adapter on it, and the baseline that it is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from capivara_cli import artifacts, console
from capivara_cli.errors import CapivaraError
from capivara_cli.models import clip as clips
from capivara_cli.models import lora as adapters
from capivara_cli.models.clip import Clip, ModelName
from capivara_cli.options import project_model
from capivara_cli.runtime import Runtime


@dataclass(frozen=True)
class Subject:
    """A model, maybe with an adapter on it.

    Attributes:
        role: model or baseline.
    """

    role: str
    name: ModelName
    adapter: Path | None = None

    def __str__(self) -> str:
        return f"{self.name} + {self.adapter}" if self.adapter else str(self.name)

    def identity(self) -> str | None:
        """What changes when its files do; None when they are the hub's."""
        given = [self.name.folder, Path(self.name.pretrained or ""), self.adapter]
        return artifacts.files_identity(*(path for path in given if path is not None and path != Path()))

    def load(self, runtime: Runtime) -> Clip:
        """Load it, and say what it runs on."""
        clip = clips.load(self.name, runtime)
        if self.adapter is not None:
            adapters.load(clip, self.adapter)
        console.say(f"{self.role}: {self} on {clip.runtime.describe()}")
        return clip

    def columns(self) -> dict[str, str]:
        """CLIP_benchmark's `model` and `pretrained`; the adapter stands where the weights' tag does."""
        tags = [self.name.pretrained, str(self.adapter or "")]
        return {"model": self.name.name, "pretrained": "+".join(filter(None, tags)), "role": self.role}

    def signature(self, clip: Clip) -> dict[str, object]:
        """What stands for the model in a result's signature."""
        return {
            "model": str(self.name),
            "adapter": str(self.adapter or "none"),
            "weights": artifacts.fingerprint_tensors(clip.model.state_dict())[:12],
        }


def pick(model: str | None, pretrained: str | None = None, adapter: Path | None = None) -> Subject:
    """The model that was asked for. Without --model: the adapter's own base, or ./capivara.yaml's, or the recipe's.

    Raises CapivaraError when there is no such adapter, when it does not say what it was trained on, or when a tag is
    given for weights that are named already.
    """
    if model is None and adapter is not None:
        found = adapters.base_model(adapter)
        if found is None:
            raise CapivaraError(f"{adapter} does not say which model it was trained on", "--model NAME says it")
        if pretrained is not None:
            raise CapivaraError(
                f"--pretrained {pretrained}: {adapter} was trained on {found}", "--model says another, with its tag"
            )
        name = found
    elif model is None and (named := project_model()) is not None:
        name = ModelName.parse(named.name, pretrained or named.pretrained)
    else:
        name = ModelName.parse(model, pretrained)
    return Subject("model", name, adapters.find(adapter) if adapter else None)


def with_baseline(subject: Subject, baseline: str | None) -> list[Subject]:
    """The model, and after it the baseline if there is one."""
    return [subject] if baseline is None else [subject, Subject("baseline", ModelName.parse(baseline))]
