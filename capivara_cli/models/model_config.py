"""`open_clip_config.json`, which describes a model in a folder or a repository: read it, and refuse what cannot be."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from capivara_cli.errors import CapivaraError
from capivara_cli.models import foreign

CONFIG = "open_clip_config.json"
MAX_CONTEXT = 4096  # tokens; texts are padded to it
MAX_IMAGE = 2048  # pixels of a side; images are scaled to it


def _is_whole(value: Any, largest: int) -> bool:
    return type(value) is int and 1 <= value <= largest


def _is_size(value: Any) -> bool:
    sides = value if isinstance(value, list) and value else [value]
    return all(_is_whole(side, MAX_IMAGE) for side in sides)


def _is_colour(value: Any) -> bool:
    numbers = isinstance(value, list) and len(value) == 3 and all(type(item) in (int, float) for item in value)
    return numbers and all(map(math.isfinite, value))


def _or_null(is_good: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or is_good(value)  # open_clip takes its default for null


_MAPPING = (lambda value: isinstance(value, dict), "keys and values")

# Path of a value -> whether it can be so, and what is expected. A value that is missing has a default.
CHECKS: foreign.Checks = {
    "model_cfg": _MAPPING,
    "model_cfg.embed_dim": (lambda value: _is_whole(value, 1 << 16), "a number from 1 to 65,536"),
    "model_cfg.vision_cfg": _MAPPING,
    "model_cfg.vision_cfg.image_size": (_is_size, f"1 to {MAX_IMAGE:,} pixels"),
    "model_cfg.vision_cfg.timm_model_name": (
        _or_null(lambda value: isinstance(value, str) and ":" not in value),
        "a name that timm knows",
    ),
    "model_cfg.text_cfg": _MAPPING,
    "model_cfg.text_cfg.context_length": (
        lambda value: _is_whole(value, MAX_CONTEXT),
        f"a number of tokens from 1 to {MAX_CONTEXT:,}",
    ),
    "model_cfg.text_cfg.tokenizer_kwargs": _MAPPING,
    "preprocess_cfg": (_or_null(_MAPPING[0]), "keys and values"),
    "preprocess_cfg.mean": (_or_null(_is_colour), "three numbers"),
    "preprocess_cfg.std": (_or_null(lambda value: _is_colour(value) and min(value) > 0), "three numbers above 0"),
    "preprocess_cfg.interpolation": (
        lambda value: value in (None, "bicubic", "bilinear", "random"),
        "bicubic or bilinear",
    ),
    "preprocess_cfg.resize_mode": (
        lambda value: value in (None, "shortest", "longest", "squash"),
        "shortest, longest or squash",
    ),
}


def read(path: Path) -> dict[str, Any]:
    """Return a model's configuration. Raises CapivaraError with the value that no model can have."""
    config = foreign.read_config(path)
    foreign.check_values(config, CHECKS, path)
    if "model_cfg" not in config:
        raise CapivaraError(f"{path}: model_cfg is missing")
    for name in ("embed_dim", "vision_cfg", "text_cfg"):
        if name not in config["model_cfg"]:
            raise CapivaraError(f"{path}: model_cfg.{name} is missing")
    return config
