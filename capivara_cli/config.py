"""Layers of settings: the defaults, ./capivara.yaml, a recipe, `--set` and flags, each over those before it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from capivara_cli.errors import CapivaraError
from capivara_cli.options import BadOption, Options, Problem, build, hints

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
    values: dict[str, Any]
    typed: bool = False


def resolve(cls: type[O], typed: Mapping[str, Any]) -> O:
    """Make a verb's options from its section in ./capivara.yaml and, over that, the flags that were typed.

    Args:
        typed: field -> value.

    Raises:
        BadOption: with every value that does not fit.
        CapivaraError: capivara.yaml is not YAML, or has unknown keys or wrong values.
    """
    project = read_project()
    section = _section(project, cls.section)
    if "model" in hints(cls) and "pretrained" in hints(cls) and not typed.get("adapter"):
        # `model:` serves every verb; an adapter that is typed names its own base model.
        shared = {"name": "model", "pretrained": "pretrained"}
        values = _mapping(project.get("model"), "model")
        section = {shared[name]: value for name, value in values.items() if name in shared} | section
    return combine(cls, [Layer(f"{PROJECT_FILE}, {cls.section}", section), Layer("flags", nest(typed), typed=True)])


def combine(cls: type[O], layers: Sequence[Layer]) -> O:
    """Put layers over each other, and make options from the result.

    Raises CapivaraError with everything that does not fit, each with its source; BadOption where all of it was typed.
    """
    unknown = [
        f"{layer.source}: {problem}"
        for layer in layers
        for problem in build(cls, layer.values)[1]
        if problem.flag is None
    ]
    merged: dict[str, Any] = {}
    typed: dict[str, Any] = {}
    for layer in layers:
        # What was typed belongs together, in whatever order: a tag to the name of the model beside it.
        merge(typed if layer.typed else merged, layer.values, drop_tag=not layer.typed)
    merge(merged, typed)
    result, problems = build(cls, merged)
    lines = unknown or [_explained(problem, layers) for problem in problems if problem.flag is not None]
    if result is not None and not unknown:
        return result
    sources = {_source(problem, layers) for problem in problems}
    error = BadOption if sources == {"flags"} and not unknown else CapivaraError
    raise error("\n       ".join(lines), None if error is BadOption else HELP)


def _explained(problem: Problem, layers: Sequence[Layer]) -> str:
    source = _source(problem, layers)
    if source == "flags" or problem.value is None:
        return str(problem)
    return f"{source}: {problem._replace(flag=None)}"


def _source(problem: Problem, layers: Sequence[Layer]) -> str:
    """Return the last layer that has the key."""
    path = problem.path.split(".")
    return next((layer.source for layer in reversed(layers) if _has(layer.values, path)), "flags")


def _has(values: Any, path: Sequence[str]) -> bool:
    for name in path:
        if not isinstance(values, Mapping) or name not in values:
            return False
        values = values[name]
    return True


def read_project() -> dict[str, Any]:
    """Return what ./capivara.yaml holds; nothing where there is none."""
    return read_yaml(Path(PROJECT_FILE)) if Path(PROJECT_FILE).is_file() else {}


def _section(project: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a verb's section, its keys as fields are called: `batch-size` is `batch_size`."""
    return {str(key).replace("-", "_"): value for key, value in _mapping(project.get(name), name).items()}


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


def merge(into: dict[str, Any], layer: Mapping[str, Any], *, drop_tag: bool = True) -> None:
    """Put a layer over the keys and values of those below it.

    Args:
        drop_tag: forget the tag of another model's weights where the layer names a model.
    """
    if drop_tag and ("name" in layer or isinstance(layer.get("model"), str)):
        into.pop("pretrained", None)
    for key, value in layer.items():
        # `replay` is a value: naming other languages replaces those of the layer below.
        if key != "replay" and isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value, drop_tag=drop_tag)
        else:
            into[key] = dict(value) if isinstance(value, dict) else value
