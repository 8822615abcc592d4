"""Runs of a few steps in the small world."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from safetensors.torch import load_file

from capivara_cli.training.options import train_options
from capivara_cli.training.train import train

if TYPE_CHECKING:
    from torch import Tensor

TrainSmall = Callable[..., Path]

FEW_STEPS = ["batch_size=32", "max_steps=2", "optimizer.warmup_steps=0", "optimizer.lr=1e-3"]


@pytest.fixture
def train_small(world: Path, base: Path, tmp_path: Path) -> TrainSmall:
    """Train two steps of 32 images in Hindi by LoRA, unless the flags say otherwise."""

    def call(
        method: str = "lora",
        output: Path | str = "run",
        *,
        set: Sequence[str] = (),
        **flags: Any,
    ) -> Path:
        flags = {"lang": ["hi"], "data": [str(world / "train.jsonl")], "model": f"local-dir:{base}"} | flags
        options = train_options(method, set=[*FEW_STEPS, *set], **flags)
        return train(options, tmp_path / output)

    return call


def read_metrics(run: Path, key: str) -> list[Any]:
    """Return a key's values from metrics.jsonl."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [line[key] for line in map(json.loads, lines) if key in line]


def read_weights(run: Path) -> dict[str, Tensor]:
    """Return the weights of a run's adapter or model."""
    return load_file(next(run.glob("*/*model.safetensors")))
