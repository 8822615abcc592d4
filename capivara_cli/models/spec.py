"""Which model: its name as open_clip spells it, the tag of its weights, and the adapter on it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from capivara_cli import artifacts
from capivara_cli.errors import CapivaraError
from capivara_cli.models import foreign
from capivara_cli.models.model_config import CONFIG

DEFAULT_MODEL = "xlm-roberta-base-ViT-B-32"
DEFAULT_PRETRAINED = "laion5b_s13b_b90k"
MAX_LOGIT_SCALE = 20  # its exponential is the factor: CLIP trains to 4.6, and exp(89) is infinite
NOTES = "capivara.json"  # beside PEFT's files: the base model and its weights, the languages, and the logit scale


def _is_name(value: Any) -> bool:
    return value is None or isinstance(value, str)


NOTES_CHECKS: foreign.Checks = {
    "model": (_is_name, "a name"),
    "pretrained": (_is_name, "a name"),
    "model_from_run": (_is_name, "a name"),
    "pretrained_from_run": (_is_name, "a name"),
    "base_weights": (_is_name, "a fingerprint"),  # None in older versions
    "lang": (lambda value: isinstance(value, list) and all(isinstance(code, str) for code in value), "languages"),
    "logit_scale": (
        lambda value: type(value) in (int, float) and abs(value) <= MAX_LOGIT_SCALE,  # nor NaN
        f"a number from {-MAX_LOGIT_SCALE} to {MAX_LOGIT_SCALE}",
    ),
}


@dataclass(frozen=True)
class NotedBase:
    """The base model as a run or an adapter has noted it.

    Attributes:
        specs: where it may be: as it was typed, and as seen from the run. At least one.
        weights: fingerprint of its weights, which decides between them; None, of older versions: the first is taken.
        trained: the run or the adapter.
    """

    specs: tuple[ModelSpec, ...]
    weights: str | None
    trained: Path

    @property
    def existing(self) -> list[ModelSpec]:
        """The places where a model is. A name of open_clip or of the hub is always one."""
        return [spec for spec in self.specs if spec.folder is None or (spec.folder / CONFIG).is_file()]

    def error(self) -> CapivaraError:
        """Return the error that the base model is at none of the places."""
        problems = [f"{spec} {'has other weights' if spec in self.existing else 'is no model'}" for spec in self.specs]
        return CapivaraError(
            f"{self.trained}: the model that it was trained on is missing: {', '.join(problems)}",
            "name it with --model NAME",
        )


@dataclass(frozen=True)
class ModelSpec:
    """The name of a model; `checkpoint.load` loads it.

    Attributes:
        name: an architecture, `hf-hub:ORG/REPO` or `local-dir:FOLDER`.
        pretrained: tag (or file) of an architecture's weights; None for the other two, which have their own.
        adapter: folder of a LoRA adapter to put on the model.
        noted: where the name comes from, if a run or an adapter has noted it; None if the user named the model.
    """

    name: str
    pretrained: str | None = None
    adapter: Path | None = None
    noted: NotedBase | None = field(default=None, compare=False)

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
            spec = noted_base(read_notes(folder), folder.resolve().parent, folder)  # an adapter lies in its run
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
        return cls(spec.name, spec.pretrained, folder, spec.noted)

    @property
    def folder(self) -> Path | None:
        """The folder of a `local-dir:` model."""
        return Path(self.name.removeprefix("local-dir:")) if self.name.startswith("local-dir:") else None

    @property
    def repo(self) -> str | None:
        """The hub's repository of the weights, `org/name`; None for weights from anywhere else."""
        if self.name.startswith("hf-hub:"):
            return self.name.removeprefix("hf-hub:").partition("@")[0]
        if self.folder is not None or self.pretrained is None:
            return None
        import open_clip

        path = (open_clip.get_pretrained_cfg(self.name, self.pretrained) or {}).get("hf_hub", "")
        return "/".join(path.split("/")[:2]) or None  # `org/name/`, or `org/name/file`

    @property
    def public_name(self) -> str:
        """A name for other machines: the repository, or the name that was typed without a path of this machine."""
        if self.folder is not None:
            is_inside = not self.folder.is_absolute() and ".." not in self.folder.parts
            return self.name if is_inside else f"local-dir:{self.folder.resolve().name}"
        weights = Path(self.pretrained).name if self.pretrained else ""
        return self.repo or ":".join(filter(None, (self.name, weights)))

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


def base_notes(spec: ModelSpec, run: Path) -> dict[str, str | None]:
    """Return what a run notes of its base model: its name as it was typed and, of a path, also as seen from the run."""
    notes = {"model": spec.name, "pretrained": spec.pretrained}
    with suppress(ValueError):  # Windows has no relative path from one drive to another
        if spec.folder is not None:
            notes["model_from_run"] = f"local-dir:{_path_from(run, spec.folder)}"
        elif spec.paths():  # a file of weights
            notes["pretrained_from_run"] = _path_from(run, spec.paths()[0])
    return notes


def _path_from(run: Path, path: Path) -> str:
    return Path(os.path.relpath(path.resolve(), run.resolve())).as_posix()


def noted_base(notes: Mapping[str, Any], run: Path, trained: Path) -> ModelSpec | None:
    """Return the base model that `base_notes` has noted; None if nothing is noted.

    Args:
        run: the run folder, where it is now.
        trained: the run or the adapter, for messages.

    Raises CapivaraError when the base model is neither where it was typed nor where it was seen from the run.
    """
    if not notes.get("model"):
        return None
    typed = ModelSpec.parse(notes["model"], notes.get("pretrained"))
    specs = [typed]
    if notes.get("model_from_run"):
        specs.append(ModelSpec(f"local-dir:{_seen_from(run, notes['model_from_run'].removeprefix('local-dir:'))}"))
    elif notes.get("pretrained_from_run"):
        specs = [ModelSpec(typed.name, _seen_from(run, notes["pretrained_from_run"])), typed]
        specs = [spec for spec in specs if spec.paths()] or [typed]  # without its file, it would be taken for a tag
    # A dictionary, so that a place that both name is tried once, under the name that was typed.
    distinct = {tuple(path.resolve() for path in spec.paths()): spec for spec in reversed(specs)}
    noted = NotedBase(tuple(distinct.values()), notes.get("base_weights"), trained)
    if not noted.existing:
        raise noted.error()
    return replace(noted.existing[0], noted=noted)


def _seen_from(run: Path, path: str) -> str:
    target, here = (run.resolve() / path).resolve(), Path.cwd()
    return str(target.relative_to(here) if target.is_relative_to(here) else target)


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
