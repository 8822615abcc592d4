"""Layers of settings: the defaults, ./capivara.yaml, a recipe, `--set` and flags, each over those before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from capivara_cli.errors import BadOption, CapivaraError
from capivara_cli.options import (
    REQUIRED,
    Options,
    Problem,
    below_each_other,
    check,
    fields,
    flags,
    unknown_keys,
)
from capivara_cli.yaml_files import parse_yaml, read_yaml

PROJECT_FILE = "capivara.yaml"
SECTIONS = (
    *("caption", "translate", "score", "train", "merge-lora"),
    *("retrieve-eval", "classify-eval", "import", "export", "demo"),
)
"""Keys of capivara.yaml that hold the options of a verb. Any other key is read as one of `train`."""

SET, FLAGS = "--set", "flags"
"""Sources of what was typed on the command line."""

HINT = "see docs/recipes.md"

O = TypeVar("O", bound=Options)  # noqa: E741


class Layer(NamedTuple):
    """Settings of one source, nested as YAML has them.

    Attributes:
        source: a file's name, SET, or FLAGS. Messages begin with it, unless it is FLAGS: they name the flag.
        values: keys and values.
    """

    source: str
    values: Mapping[str, Any]

    @property
    def typed(self) -> bool:
        """Whether it was typed on the command line. Such layers come last."""
        return self.source in (SET, FLAGS)


def resolve(cls: type[O], typed: Mapping[str, Any], recipe_class: type[Options]) -> O:
    """Make a verb's options from its section in ./capivara.yaml and, over that, the flags that were typed.

    Args:
        typed: field -> value.
        recipe_class: the options that keys at the top of capivara.yaml belong to.

    Raises:
        BadOption: with every flag that does not fit.
        CapivaraError: capivara.yaml is not YAML, or has unknown keys or wrong values.
    """
    project, section = project_layers(cls)
    recipe_values = _renamed(recipe_class, project.values)
    if unknown := [f"{PROJECT_FILE}: {text}" for text in unknown_keys(recipe_class, recipe_values, also=SECTIONS)]:
        raise CapivaraError(below_each_other(unknown), HINT)
    layers = [section, Layer(FLAGS, by_path(cls, typed))]
    if cls.model_unless is not None and not any({**section.values, **typed}.get(name) for name in cls.model_unless):
        model = _mapping(project.values.get("model"), "model")
        shared = {"model": model.get("name"), "pretrained": model.get("pretrained")}
        layers.insert(0, Layer(PROJECT_FILE, {name: value for name, value in shared.items() if value is not None}))
    return combine(cls, layers)


def project_layers(cls: type[Options]) -> tuple[Layer, Layer]:
    """Return the top-level keys of ./capivara.yaml, which belong to `train`, and a verb's section."""
    project = read_settings(Path(PROJECT_FILE)) if Path(PROJECT_FILE).is_file() else {}
    top = {key: value for key, value in project.items() if key not in SECTIONS}
    section = by_path(cls, _mapping(project.get(cls.section), cls.section))
    return Layer(PROJECT_FILE, top), Layer(f"{PROJECT_FILE}, {cls.section}", section)


def _mapping(value: Any, name: str) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise CapivaraError(f"{PROJECT_FILE}: {name} = {value!r}: not keys and values", HINT)
    return value or {}


def by_path(cls: type[Options], values: Mapping[str, Any]) -> dict[str, Any]:
    """Nest values by the paths of their fields: `{"lr": 1e-4}` -> `{"optimizer": {"lr": 1e-4}}`.

    Args:
        values: by the names of flags (`batch-size`, `lr`), or by paths.
    """
    paths = {field.key: path for path, field in flags(cls)}
    nested: dict[str, Any] = {}
    for name, value in values.items():
        key = str(name).replace("-", "_")
        is_section = isinstance(value, Mapping) and key in fields(cls)  # `data: {train: …}`; `--data` is `data.train`
        merge(cls, nested, nest({key if is_section else paths.get(key, key): value}), drop_tag=False)
    return nested


def combine(cls: type[O], layers: Sequence[Layer]) -> O:
    """Put layers over each other, and make options from the result.

    Raises CapivaraError with everything that does not fit, each with its source; BadOption where all of it was typed.
    """
    layers = [layer._replace(values=_renamed(cls, layer.values)) for layer in layers]
    wrong = [(layer, f"{layer.source}: {text}") for layer in layers for text in unknown_keys(cls, layer.values)]
    merged: dict[str, Any] = {}
    typed: dict[str, Any] = {}
    for layer in layers:
        # Merge typed layers first: a typed --pretrained belongs to a typed --model, whichever comes first.
        merge(cls, typed if layer.typed else merged, layer.values, drop_tag=not layer.typed)
    merge(cls, merged, typed)
    values, problems = check(cls, merged)
    wrong = wrong or [_with_source(problem, layers) for problem in problems]
    if wrong:
        error = BadOption if all(layer.typed for layer, _ in wrong) else CapivaraError
        hint = None if all(layer.source == FLAGS for layer, _ in wrong) else HINT
        raise error(below_each_other(text for _, text in wrong), hint)
    return cls(**values)


def _renamed(cls: type[Options], values: Mapping[str, Any]) -> dict[str, Any]:
    return {cls.old_names.get(key, key): value for key, value in values.items()}


def _with_source(problem: Problem, layers: Sequence[Layer]) -> tuple[Layer, str]:
    """Return the layer that set the value, which is the last that has it, and the message."""
    layer = next((layer for layer in reversed(layers) if has(layer.values, problem.path.split("."))), layers[-1])
    if layer.source == FLAGS:
        return layer, str(problem)
    return layer, f"{layer.source}: {problem if problem.value is REQUIRED else problem.as_key()}"


def has(values: Any, path: Sequence[str]) -> bool:
    """Whether nested values have one at this path."""
    for name in path:
        if not isinstance(values, Mapping) or name not in values:
            return False
        values = values[name]
    return True


def read_settings(path: Path) -> dict[str, Any]:
    """Read a YAML file of keys and values. Raises CapivaraError if it is none, with line and column."""
    value = read_yaml(path)
    if not isinstance(value, dict | None):
        raise CapivaraError(f"{path} holds a {type(value).__name__}, not keys and values", HINT)
    return value or {}


def parse_set(text: str) -> dict[str, Any]:
    """`optimizer.lr=1e-5` -> `{"optimizer": {"lr": 1e-5}}`; the value is YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise BadOption(f"--set {text}: not KEY=VALUE", "for example --set optimizer.lr=1e-5")
    shown = text if len(text) < 60 else f"{text[:57]}..."
    try:
        return nest({key.strip(): parse_yaml(value, f"--set {shown}: not a YAML value")})
    except CapivaraError as error:
        raise BadOption(error.message) from error


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
        drop_tag: if the layer names a model, drop `pretrained` of the layers below: it belongs to another model.
    """
    if drop_tag and ("name" in layer or isinstance(layer.get("model"), str)):
        into.pop("pretrained", None)
    for key, value in layer.items():
        section = fields(cls)[key].section if key in fields(cls) else None
        if section is not None and isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(section, into[key], value, drop_tag=drop_tag)
        else:  # a value; also `replay`: naming other languages replaces those of the layer below
            into[key] = dict(value) if isinstance(value, dict) else value
