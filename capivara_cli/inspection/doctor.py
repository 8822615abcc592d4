"""`doctor`: what this machine has, and which of the defaults fit on it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
from collections.abc import Iterator
from typing import Any, NamedTuple

from capivara_cli import __version__, artifacts, console
from capivara_cli.runtime import Runtime

PACKAGE = "capivara-cli"
SHOWN = ("torch", "torchvision", "open_clip_torch", "transformers", "peft", "accelerate", "safetensors", "numpy")
GIB = 2**30
WIDTH = 1024  # of the defaults' text towers, at least: decides whether a CPU computes in bf16


class Default(NamedTuple):
    """A model that a command uses by default, and what it needs.

    Attributes:
        use: the command.
        model: its name.
        download: GB to download, as the model's page lists its weights.
        parameters: billions.
        working: GiB of memory besides the weights at the smallest batch: activations, and the libraries themselves.
        bits: of a parameter in memory; None if the precision of the machine decides, 16 or 32.
    """

    use: str
    model: str
    download: float
    parameters: float
    working: float
    bits: int | None = None

    def memory(self, precision: str) -> float:
        """Return the GiB that it needs in this precision."""
        bits = self.bits or (32 if precision == "fp32" else 16)
        return self.parameters * 1e9 * bits / 8 / GIB + self.working


# Downloads are those of the models' pages. Parameters are a download of fp32 weights divided by four bytes; those of
# blip2-opt-2.7b were counted on its architecture.
DEFAULTS = (
    Default("caption", "Salesforce/blip2-opt-2.7b-coco", 15.5, 3.74, 1.5),
    Default("caption --quantize 8bit", "Salesforce/blip2-opt-2.7b-coco", 15.5, 3.74, 1.5, bits=8),
    Default("caption --model", "Salesforce/blip-image-captioning-base", 1.0, 0.25, 1.0),
    Default("translate --backend nllb", "facebook/nllb-200-distilled-600M", 2.5, 0.62, 1.0),
    Default("translate --backend madlad", "google/madlad400-3b-mt", 11.8, 2.94, 1.5),
    Default("train, score, evaluate", "xlm-roberta-base-ViT-B-32", 1.5, 0.37, 2.0, bits=32),
)


def doctor(*, as_json: bool = False) -> dict[str, Any]:
    """Print what this machine has and what fits on it, and return it.

    Args:
        as_json: print one JSON object instead of lines.
    """
    runtime = Runtime.start()
    free, _ = runtime.memory()
    found = {
        "capivara": __version__,
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in SHOWN},
        "device": f"{runtime.device} ({runtime.reason})",
        "free memory, GiB": round(free / GIB, 1),
        "cores": os.cpu_count(),
        "cache": _cache(),
        "missing extras": {name: f"pip install '{PACKAGE}[{name}]'" for name in _missing_extras()},
        "hub": _hub(),
        "defaults": [_fit(default, runtime, free) for default in DEFAULTS],
    }
    if as_json:
        console.answer(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        for line in _lines(found):
            console.answer(line)
    return found


def _cache() -> dict[str, Any]:
    """Return the cache folder, what it holds, and what its disk has left."""
    folder = artifacts.cache_folder()
    exists = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    size = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
    return {
        "folder": str(folder),
        "size, GiB": round(size / GIB, 2),
        "free on its disk, GiB": round(shutil.disk_usage(exists).free / GIB, 1),
    }


def _missing_extras() -> Iterator[str]:
    """Yield the extras of this package of which a requirement is not installed."""
    missing = set()
    for requirement in importlib.metadata.requires(PACKAGE) or []:
        extra = re.search(r"""extra == ['"]([^'"]+)""", requirement)
        name = re.match(r"[\w.-]+", requirement)
        if extra and name and not _is_installed(name[0]):
            missing.add(extra[1])
    yield from sorted(missing - {"dev"})


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _hub() -> str:
    """Return whether the hub of models answers, in words."""
    from huggingface_hub import constants

    from capivara_cli.models.hub import why_no_answer

    if constants.HF_HUB_OFFLINE:
        return "not asked: HF_HUB_OFFLINE is set"
    reason = why_no_answer()
    return f"{constants.ENDPOINT} answers" if reason is None else f"{constants.ENDPOINT} does not answer: {reason}"


def _fit(default: Default, runtime: Runtime, free: int) -> dict[str, Any]:
    """Return what a default needs on this machine, and whether that is free now."""
    need = default.memory(runtime.for_width(WIDTH).precision)
    return {
        "use": default.use,
        "model": default.model,
        "download, GB": default.download,
        "memory, GiB": round(need, 1),
        "fits": need * GIB <= free,
    }


def _lines(found: dict[str, Any]) -> Iterator[str]:
    packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    cache = found["cache"]
    yield f"capivara {found['capivara']}, Python {found['python']}"
    yield packages
    yield f"device: {found['device']}, {found['free memory, GiB']} GiB free, {found['cores']} cores"
    yield f"cache:  {cache['folder']}, {cache['size, GiB']} GiB; {cache['free on its disk, GiB']} GiB free on its disk"
    yield f"hub:    {found['hub']}"
    for name, command in found["missing extras"].items():
        yield f"extra:  {name} is not installed: {command}"
    for row in found["defaults"]:
        fits = "fits" if row["fits"] else "does not fit"
        needs = f"{row['download, GB']:5.1f} GB to download, {row['memory, GiB']:4.1f} GiB of memory: {fits}"
        yield f"{row['use']:27} {row['model']:38} {needs}"
