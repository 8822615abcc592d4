"""The recipe: everything that decides a training run, in one checked model.

Layers, the later over the earlier: the built-in recipe of `configs/`, ./capivara.yaml, --recipe, --set, flags.
"""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from capivara_cli.errors import CapivaraError, nearest

PROJECT_FILE = "capivara.yaml"
BUILT_IN = {"lora": "capivara-plus", "full": "capivara"}


class Section(BaseModel):
    """A part of the recipe. A key that is not known is an error: it is probably a typo."""

    model_config = ConfigDict(extra="forbid", validate_default=True)


class Model(Section):
    """The model to start from."""

    name: str = "xlm-roberta-base-ViT-B-32"
    """An open_clip architecture, `hf-hub:org/repo` or `local-dir:path`."""
    pretrained: str | None = None
    """The tag of an architecture's weights."""
    unlock_image: bool = False
    """Train the image tower as well, on pixels."""
    from_scratch: bool = False
    """Start from random weights."""


class Data(Section):
    """What to learn from."""

    train: list[str] = []
    """JSONL files, folders or shards."""
    val: str | None = None
    """Records to validate on; None holds `val_share` of the training images out."""
    val_share: float = Field(0.05, ge=0, lt=1)
    """Share of the images to hold out, at most 1,000 of them. 0 for none."""


class Lora(Section):
    """The adapter, as PEFT understands it."""

    r: int = Field(8, gt=0)
    """Rank."""
    alpha: float = Field(8, gt=0)
    """The update is (alpha / r) B A."""
    target_modules: list[str] = ["query", "value", "q_proj", "v_proj", "q", "v"]
    """Names of layers of the text tower, taken where they are found. The recipe's query and value, as XLM-R and
    BERT, M2M100, and T5 spell them."""
    projection: bool = True
    """Train the text projection whole."""
    tokens: bool = False
    """Train the embedding rows of the tokens that occur in the captions."""


class Optimizer(Section):
    """Adam."""

    name: Literal["adam", "adamw"] = "adamw"
    """`adam` couples the weight decay to the gradient (the paper's), `adamw` does not and spares biases and norms."""
    lr: float = Field(1e-5, gt=0, allow_inf_nan=False)
    """Highest learning rate."""
    min_lr: float = Field(1e-6, ge=0)
    """Where the warm-up starts and the cosine ends."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Decay of the moments."""
    eps: float = Field(1e-6, gt=0)
    """Added to the root of the second moment."""
    weight_decay: float = Field(0.2, ge=0)
    """Weight decay."""
    warmup_steps: int = Field(250, ge=0)
    """Steps from `min_lr` to `lr`."""


class Recipe(Section):
    """A training run."""

    method: Literal["lora", "full"]
    """`lora` trains an adapter, `full` the whole text tower."""
    lang: list[str] = Field(min_length=1)
    """Languages to learn, BCP-47."""
    model: Model = Model()
    data: Data = Data()
    lora: Lora = Lora()
    optimizer: Optimizer = Optimizer()
    keep: dict[str, float] = {}
    """Share of each batch from the captions of a language that must not be lost: `{en: 0.25}`."""
    views: int = Field(1, ge=1, le=100)
    """Views of each image: the plain one, then augmented ones. One is drawn at each step."""
    batch_size: int = Field(1000, ge=2)
    """Images a step: the loss is over all of them."""
    micro_batch: int | Literal["auto"] = "auto"
    """Texts whose activations are in memory at once. It changes the memory and the time, not the result."""
    max_steps: int = Field(1500, gt=0)
    """Optimiser steps."""
    eval_every: int = Field(100, gt=0)
    """Steps between validations."""
    save_seconds: float = Field(30, ge=0)
    """Least seconds between two saves of the state that a killed run goes on from."""
    device: str = "auto"
    precision: str = "auto"
    seed: int = 0

    @field_validator("lang")
    @classmethod
    def _each_once(cls, lang: list[str]) -> list[str]:
        return list(dict.fromkeys(lang))


def resolve(method: str | None, recipe: str | None, sets: list[str], flags: Mapping[str, Any]) -> Recipe:
    """Put the layers together and check them.

    Args:
        method: `lora`, `full`, or None when the recipe says which.
        recipe: name of a built-in recipe, or a YAML file.
        sets: `key.path=value`, the value in YAML.
        flags: `key.path` -> value, for the flags that were given.

    Raises:
        CapivaraError: with every unknown key and every value that does not fit, and where each was given.
    """
    layers: list[tuple[str, dict[str, Any]]] = []
    if Path(PROJECT_FILE).is_file():
        layers.append((PROJECT_FILE, read_yaml(Path(PROJECT_FILE))))
    if recipe is not None:
        layers.append(_named(recipe))
    layers += [("--set", _parse_set(text)) for text in sets]
    layers.append(("flags", _nest(flags)))
    chosen = method or next((layer["method"] for _, layer in reversed(layers) if "method" in layer), None)
    if not isinstance(chosen, str) or chosen not in BUILT_IN:
        raise CapivaraError("neither --lora nor --full", "capivara train --lang hi --lora")
    layers.append(("flags", {"method": chosen}))
    layers.insert(0, _named(BUILT_IN[chosen]))
    problems = [problem for name, layer in layers for problem in _unknown_keys(name, layer, Recipe)]
    files = len(layers) - len(sets) - 2
    merged: dict[str, Any] = {}
    for _, layer in [*layers[:files], ("typed", _typed(layers[files:]))]:
        _merge(merged, layer)
    if problems:
        raise CapivaraError("\n       ".join(problems), "see docs/recipes.md")
    try:
        return Recipe.model_validate(merged)
    except ValidationError as error:
        raise CapivaraError("\n       ".join(_explain(error, layers)), "see docs/recipes.md") from error


def project_model() -> Model | None:
    """The model that ./capivara.yaml names, if it does. Raises CapivaraError for what is no model."""
    layer = read_yaml(Path(PROJECT_FILE)) if Path(PROJECT_FILE).is_file() else {}
    if "model" not in layer:
        return None
    given = {"model": layer["model"]}
    problems = list(_unknown_keys(PROJECT_FILE, given, Recipe))
    if not problems:
        try:
            return _Project.model_validate(given).model
        except ValidationError as error:
            problems = list(_explain(error, [(PROJECT_FILE, given)]))
    raise CapivaraError("\n       ".join(problems), "see docs/recipes.md")


class _Project(Section):
    model: Model


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping. Raises CapivaraError with the place when it does not."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CapivaraError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise CapivaraError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict | None):
        raise CapivaraError(f"{path} holds a {type(value).__name__}, not keys and values", "see docs/recipes.md")
    return value or {}


def to_yaml(recipe: Recipe) -> str:
    """The resolved recipe, which `--recipe` reads again."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _named(recipe: str) -> tuple[str, dict[str, Any]]:
    if Path(recipe).is_file():
        return recipe, read_yaml(Path(recipe))
    folder = importlib.resources.files("capivara_cli.configs")
    names = sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    if recipe not in names:
        raise CapivaraError(
            f"--recipe {recipe}: no such file, and no built-in recipe{nearest(recipe, names)}",
            f"built-in: {', '.join(names)}",
        )
    return f"{recipe}.yaml", yaml.safe_load(folder.joinpath(f"{recipe}.yaml").read_text(encoding="utf-8"))


def _parse_set(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise CapivaraError(f"--set {text}: not KEY=VALUE", "for example --set optimizer.lr=1e-5")
    return _nest({key.strip(): _scalar(value)})


def _scalar(value: str) -> Any:
    if re.fullmatch(r"[+-]?[\d.]+[eE][+-]?\d+", value.strip()):
        return float(value)  # YAML 1.1 reads 1e-5 as text
    try:
        return yaml.safe_load(value)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: the 45th of a month
        raise CapivaraError(f"--set: {value} is not a YAML value: {' '.join(str(error).split())}") from error


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """`{"optimizer.lr": 1}` -> `{"optimizer": {"lr": 1}}`."""
    nested: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, last = path.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return nested


def _typed(layers: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """What was typed, in whatever order: a tag then belongs to the name beside it."""
    together: dict[str, Any] = {}
    for _, layer in layers:
        _merge(together, layer, drop_tag=False)
    return together


def _merge(into: dict[str, Any], layer: Mapping[str, Any], *, drop_tag: bool = True) -> None:
    if drop_tag and "name" in layer:
        into.pop("pretrained", None)  # the tag of another model's weights
    for key, value in layer.items():
        if key != "keep" and isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value, drop_tag=drop_tag)
        else:  # `keep` is a value: naming other languages replaces those of the layer below
            into[key] = dict(value) if isinstance(value, dict) else value


def _unknown_keys(source: str, layer: Mapping[str, Any], section: type[BaseModel], path: str = "") -> Iterator[str]:
    for key, value in layer.items():
        field = section.model_fields.get(str(key))
        if field is None:
            hint = nearest(str(key), list(section.model_fields), prefix=path)
            yield f"{source}: unknown key {path}{key}{hint}"
        elif isinstance(field.annotation, type) and issubclass(field.annotation, Section) and isinstance(value, dict):
            yield from _unknown_keys(source, value, field.annotation, f"{path}{key}.")


def _explain(error: ValidationError, layers: list[tuple[str, dict[str, Any]]]) -> Iterator[str]:
    seen = set()
    for problem in error.errors():
        location = [str(part) for part in problem["loc"]]
        key = ".".join(part for part in location if part not in ("int", "literal['auto']"))
        if key in seen:
            continue
        seen.add(key)
        if problem["type"] == "missing" and key == "lang":
            yield "no language: --lang LANG is missing"
            continue
        where = next((name for name, layer in reversed(layers) if _has(layer, location)), "recipe")
        yield f"{where}: {key} = {problem['input']!r}: {problem['msg'].lower()}"


def _has(layer: Any, location: list[str]) -> bool:
    head, *rest = location
    return (
        isinstance(layer, dict)
        and head in layer
        and (not isinstance(layer[head], dict) or not rest or _has(layer[head], rest))
    )
