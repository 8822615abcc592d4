"""Which model: its name as open_clip spells it, the tag of its weights, and the adapter on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capivara_cli import artifacts
from capivara_cli.errors import CapivaraError
from capivara_cli.models import foreign

DEFAULT_MODEL = "xlm-roberta-base-ViT-B-32"
DEFAULT_PRETRAINED = "laion5b_s13b_b90k"
MAX_LOGIT_SCALE = 20  # its exponential is the factor: CLIP trains to 4.6, and exp(89) is infinite
NOTES = "capivara.json"  # beside PEFT's files: the base model and its weights, the languages, and the logit scale


def _is_name(value: Any) -> bool:
    return value is None or isinstance(value, str)


NOTES_CHECKS: foreign.Checks = {
    "model": (_is_name, "a name"),
    "pretrained": (_is_name, "a name"),
    "base_weights": (_is_name, "a fingerprint"),  # None in older versions
    "lang": (lambda value: isinstance(value, list) and all(isinstance(code, str) for code in value), "languages"),
    "logit_scale": (
        lambda value: type(value) in (int, float) and abs(value) <= MAX_LOGIT_SCALE,  # nor NaN
        f"a number from {-MAX_LOGIT_SCALE} to {MAX_LOGIT_SCALE}",
    ),
}


@dataclass(frozen=True)
class ModelSpec:
    """The name of a model; `checkpoint.load` loads it.

    Attributes:
        name: an architecture, `hf-hub:ORG/REPO` or `local-dir:FOLDER`.
        pretrained: tag (or file) of an architecture's weights; None for the other two, which have their own.
        adapter: folder of a LoRA adapter to put on the model.
    """

    name: str
    pretrained: str | None = None
    adapter: Path | None = None

    @classmethod
    def parse(cls, name: str | None, pretrained: str | None = None) -> ModelSpec:
        """Parse `ARCHITECTURE`, `ARCHITECTURE:TAG`, `hf-hub:…` or `local-dir:…`; None is the recipe's base model.

        Raises CapivaraError for a tag beside `hf-hub:` or `local-dir:`.
        """
        name = name or DEFAULT_MODEL
        if name.startswith(("hf-hub:", "local-dir:")):
            if pretrained:
                raise CapivaraError(
                    f"--pretrained {pretrained}: {name} has its own weights", "only an architecture takes a tag"
                )
            return cls(name)
        name, _, tag = name.partition(":")
        tag = pretrained or tag
        return cls(name, tag or (DEFAULT_PRETRAINED if name == DEFAULT_MODEL else None))

    @classmethod
    def pick(cls, model: str | None, pretrained: str | None = None, adapter: Path | None = None) -> ModelSpec:
        """Return the model that `--model`, `--pretrained` and `--adapter` name.

        Without `--model` it is the adapter's base model, or the recipe's.

        Raises CapivaraError when the adapter does not exist or does not name its base model, and when a tag is given
        for a model that has its own weights.
        """
        folder = adapter_folder(adapter) if adapter is not None else None
        if model is None and folder is not None:
            spec = adapter_base(folder)
            if spec is None:
                raise CapivaraError(
                    f"{adapter} does not say which model it was trained on", "name it with --model NAME"
                )
            if pretrained is not None:
                raise CapivaraError(
                    f"--pretrained {pretrained}: {adapter} was trained on {spec}", "to use another, give --model too"
                )
        else:
            spec = cls.parse(model, pretrained)
        return cls(spec.name, spec.pretrained, folder)

    @property
    def folder(self) -> Path | None:
        """The folder of a `local-dir:` model."""
        return Path(self.name.removeprefix("local-dir:")) if self.name.startswith("local-dir:") else None

    def __str__(self) -> str:
        text = f"{self.name}:{self.pretrained}" if self.pretrained else self.name
        return f"{text} + {self.adapter}" if self.adapter else text

    def identity(self) -> str | None:
        """Return a hash that changes when the local files change; None if all files come from the hub."""
        return artifacts.files_identity(*self.paths())

    def paths(self) -> list[Path]:
        """Return the local files and folders that the model is read from."""
        weights = Path(self.pretrained) if self.pretrained else None
        if weights is not None and not weights.is_file():
            weights = None  # a tag; a folder of that name in the working folder is something else
        return [path for path in (self.folder, weights, self.adapter) if path is not None]

    def columns(self) -> dict[str, str]:
        """Return CLIP_benchmark's `model` and `pretrained`; the adapter's path follows the tag, after a `+`."""
        tags = [self.pretrained, str(self.adapter or "")]
        return {"model": self.name, "pretrained": "+".join(filter(None, tags))}


def adapter_folder(path: Path) -> Path:
    """Return the adapter's folder: the path itself, or `adapter/` of a run. Raises CapivaraError if neither is one."""
    for folder in (path, path / "adapter"):
        if (folder / "adapter_config.json").is_file():
            return folder
    raise CapivaraError(f"{path}: no adapter in it (no adapter_config.json)", "name a run folder, such as runs/hi-lora")


def adapter_base(path: Path) -> ModelSpec | None:
    """Return the model that an adapter was trained on; None if the adapter does not say."""
    notes = read_notes(path)
    return ModelSpec(notes["model"], notes.get("pretrained")) if notes.get("model") else None


def read_notes(path: Path) -> dict[str, Any]:
    """Return what stands beside an adapter: its base model and logit scale. PEFT alone writes nothing there.

    Raises CapivaraError if a value cannot be right.
    """
    file = adapter_folder(path) / NOTES
    notes = foreign.read_mapping(file) if file.is_file() else {}
    foreign.check_values(notes, NOTES_CHECKS, file)
    return notes


def with_baseline(spec: ModelSpec, baseline: str | None) -> list[tuple[str, ModelSpec]]:
    """Return the roles and their models: the model, then the baseline if there is one."""
    return [("model", spec)] + ([("baseline", ModelSpec.parse(baseline))] if baseline is not None else [])
