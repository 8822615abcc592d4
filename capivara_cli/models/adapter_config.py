"""`adapter_config.json`, which describes an adapter as PEFT understands it: read it, and refuse what cannot be."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capivara_cli.errors import CapivaraError
from capivara_cli.models import foreign

if TYPE_CHECKING:
    from torch import Tensor

# PEFT matches names with regular expressions. One that backtracks never ends, so only these parts are allowed: names,
# dots, `.*` at most twice, and a choice of names, as in `text\..*\.(query|value)`.
PATTERN = re.compile(r"\^?(?:\w|-|\\?\.|\.\*|\((?:\w|[|-]|\\?\.)+\))+\$?")
MAX_LENGTH = 10_000  # characters of a pattern, and names in a list


def _is_pattern(value: Any) -> bool:
    return (
        isinstance(value, str)
        and len(value) <= MAX_LENGTH
        and value.count(".*") <= 2
        and PATTERN.fullmatch(value) is not None
    )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _list_of(is_good: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(is_good, value))


def _one_or_more(is_good: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: is_good(value) or (_list_of(is_good)(value) and len(value) <= MAX_LENGTH)


def _by_name(is_good: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(_is_pattern, value)) and all(map(is_good, value.values()))


_SWITCH = (lambda value: isinstance(value, bool), "true or false")
_NAMES = (_one_or_more(_is_pattern), "names, or a pattern as simple as text\\..*\\.(query|value)")

# The keys that are read. All others are ignored: PEFT imports the module that `megatron_core` names, for one.
CHECKS: foreign.Checks = {
    "r": (_is_count, "a rank"),
    "rank_pattern": (_by_name(_is_count), "ranks by name"),
    "lora_alpha": (_is_number, "a number"),
    "alpha_pattern": (_by_name(_is_number), "numbers by name"),
    "target_modules": _NAMES,
    "exclude_modules": _NAMES,
    "modules_to_save": _NAMES,
    "layers_pattern": _NAMES,
    "layers_to_transform": (_one_or_more(_is_count), "numbers of layers"),
    "trainable_token_indices": (
        lambda value: _list_of(_is_count)(value) or _by_name(_list_of(_is_count))(value),
        "numbers of tokens",
    ),
    "bias": (lambda value: value in ("none", "all", "lora_only"), "none, all or lora_only"),
    **dict.fromkeys(("fan_in_fan_out", "use_rslora", "use_dora", "lora_bias"), _SWITCH),
}


def read(folder: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the shape of an adapter, as arguments of `peft.LoraConfig`.

    Args:
        tensors: its weights. No rank may be above theirs: PEFT would make the matrices before it compares them.

    Raises CapivaraError when it is not a LoRA adapter, or has a value that none can have.
    """
    path = folder / "adapter_config.json"
    settings = foreign.read_config(path)
    if settings.get("peft_type") != "LORA":
        raise CapivaraError(f"{folder} is not a LoRA adapter: its peft_type is {settings.get('peft_type')}")
    config = {key: settings[key] for key in CHECKS if settings.get(key) is not None}
    foreign.check_values(config, CHECKS, path)
    largest = max((tensor.shape[0] for name, tensor in tensors.items() if _is_lora_a(name) and tensor.dim()), default=0)
    ranks: Iterable[int] = [config.get("r", 0), *config.get("rank_pattern", {}).values()]
    if max(ranks) > largest:
        raise CapivaraError(f"{path}: r = {max(ranks)}, but its weights have rank {largest}")
    return config


def _is_lora_a(name: str) -> bool:
    return re.search(r"\.lora_(embedding_)?A\b", name) is not None
