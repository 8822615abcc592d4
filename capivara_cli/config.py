"""Layers of settings: the defaults, ./capivara.yaml, a recipe, `--set` and flags, each over those before it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from capivara_cli.errors import CapivaraError, nearest
from capivara_cli.options import REQUIRED, BadOption, Options, Problem, below_each_other, check, fields, unknown_keys

PROJECT_FILE = "capivara.yaml"
SECTIONS = (
    *("caption", "translate", "score", "train", "merge-lora"),
    *("retrieve-eval", "classify-eval", "import", "export", "demo"),
)
"""Keys of capivara.yaml that hold the options of a verb. Any other key but `model` is read as one of `train`."""

HELP = "see docs/recipes.md"

O = TypeVar("O", bound=Options)  # noqa: E741


class Layer(NamedTuple):
    """Settings of one source, nested as YAML has them.

    Attributes:
        source: for messages: a file's name, `--set`, or `flags`.
        values: keys and values.
        typed: whether it was typed on the command line; such layers come last.
    """

    source: str
    values: Mapping[str, Any]
    typed: bool = False


def resolve(cls: type[O], typed: Mapping[str, Any], recipe_keys: Iterable[str]) -> O:
    """Make a verb's options from its section in ./capivara.yaml and, over that, the flags that were typed.

    Args:
        typed: field -> value.
        recipe_keys: what else may be at the top of capivara.yaml: keys that are read as `train`'s.

    Raises:
        BadOption: with every flag that does not fit.
        CapivaraError: capivara.yaml is not YAML, or has unknown keys or wrong values.
    """
    project = read_project()
    known = [*SECTIONS, *recipe_keys]
    unknown = [f"{PROJECT_FILE}: unknown key {key}{nearest(str(key), known)}" for key in project if key not in known]
    if unknown:
        raise CapivaraError(below_each_other(unknown), HELP)
    names = {field.key: name for name, field in fields(cls).items()}
    section = {}
    for key, value in _mapping(project.get(cls.section), cls.section).items():
        name = str(key).replace("-", "_")
        section[names.get(name, name)] = value
    layers = [Layer(f"{PROJECT_FILE}, {cls.section}", section), Layer("flags", nest(typed), typed=True)]
    if cls.model_unless is not None and not any({**section, **typed}.get(name) for name in cls.model_unless):
        layers.insert(0, Layer(PROJECT_FILE, _shared_model(project)))
    return combine(cls, layers)


def _shared_model(project: Mapping[str, Any]) -> dict[str, Any]:
    """Return `model:` of capivara.yaml, which serves every verb, as the fields that name a model."""
    names = {"name": "model", "pretrained": "pretrained"}
    values = _mapping(project.get("model"), "model")
    return {names[key]: value for key, value in values.items() if key in names}


def combine(cls: type[O], layers: Sequence[Layer]) -> O:
    """Put layers over each other, and make options from the result.

    Raises CapivaraError with everything that does not fit, each with its source; BadOption where all of it was typed.
    """
    unknown = [f"{layer.source}: {message}" for layer in layers for message in unknown_keys(cls, layer.values)]
    merged: dict[str, Any] = {}
    typed: dict[str, Any] = {}
    for layer in layers:
        # What was typed belongs together, in whatever order: a tag to the name of the model beside it.
        merge(cls, typed if layer.typed else merged, layer.values, drop_tag=not layer.typed)
    merge(cls, merged, typed)
    values, problems = check(cls, merged)
    if unknown:
        raise CapivaraError(below_each_other(unknown), HELP)
    if problems:
        sources = [_source(problem, layers) for problem in problems]
        error = BadOption if set(sources) == {"flags"} else CapivaraError
        raise error(below_each_other(map(_explained, problems, sources)), None if error is BadOption else HELP)
    return cls(**values)


def _source(problem: Problem, layers: Sequence[Layer]) -> str:
    """Return the source of the last layer that sets the value; the last source of all if it is missing."""
    for layer in reversed(layers):
        values: Any = layer.values
        for name in problem.path.split("."):
            values = values.get(name, REQUIRED) if isinstance(values, Mapping) else REQUIRED
        if values is not REQUIRED:
            return layer.source
    return layers[-1].source


def _explained(problem: Problem, source: str) -> str:
    if source == "flags":
        return str(problem)
    return f"{source}: {problem if problem.value is REQUIRED else problem.as_key()}"


def read_project() -> dict[str, Any]:
    """Return what ./capivara.yaml holds; nothing where there is none."""
    return read_yaml(Path(PROJECT_FILE)) if Path(PROJECT_FILE).is_file() else {}


def _mapping(value: Any, name: str) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise CapivaraError(f"{PROJECT_FILE}: {name} = {value!r}: not keys and values", HELP)
    return value or {}


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file of keys and values. Raises CapivaraError with the place when it is none."""
    import yaml

    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CapivaraError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise CapivaraError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict | None):
        raise CapivaraError(f"{path} holds a {type(value).__name__}, not keys and values", HELP)
    return value or {}


def parse_set(text: str) -> dict[str, Any]:
    """`optimizer.lr=1e-5` -> `{"optimizer": {"lr": 1e-5}}`; the value is YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise BadOption(f"--set {text}: not KEY=VALUE", "for example --set optimizer.lr=1e-5")
    return nest({key.strip(): _scalar(value)})


def _scalar(value: str) -> Any:
    import yaml

    if re.fullmatch(r"[+-]?[\d.]+[eE][+-]?\d+", value.strip()):
        return float(value)  # YAML 1.1 reads 1e-5 as text
    try:
        return yaml.safe_load(value)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: the 45th of a month
        raise BadOption(f"--set: {value} is not a YAML value: {' '.join(str(error).split())}") from error


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """`{"optimizer.lr": 1}` -> `{"optimizer": {"lr": 1}}`."""
    nested: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, last = path.split(".")
        inner = nested
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = value
    return nested


def merge(cls: type[Options], into: dict[str, Any], layer: Mapping[str, Any], *, drop_tag: bool = True) -> None:
    """Put a layer over the keys and values of those below it.

    Args:
        drop_tag: forget the tag of another model's weights where the layer names a model.
    """
    if drop_tag and ("name" in layer or isinstance(layer.get("model"), str)):
        into.pop("pretrained", None)
    for key, value in layer.items():
        section = fields(cls)[key].section if key in fields(cls) else None
        if section is not None and isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(section, into[key], value, drop_tag=drop_tag)
        else:  # a value; also `replay`: naming other languages replaces those of the layer below
            into[key] = dict(value) if isinstance(value, dict) else value
