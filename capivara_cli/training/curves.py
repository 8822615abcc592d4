"""The plot of a training run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from capivara_cli import artifacts


def plot(metrics: list[dict[str, Any]], path: Path) -> None:
    """Loss, and mean recall by language, over the steps, as a PNG.

    Args:
        metrics: lines of metrics.jsonl.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    losses = [(line["step"], line["loss"]) for line in metrics if "loss" in line]
    left.plot(*zip(*losses, strict=True), color="#555555") if losses else None
    left.set(title="training loss", xlabel="step")
    langs = dict.fromkeys(key for line in metrics for key in line if key.startswith("val/"))
    for key in langs:
        points = [(line["step"], 100 * line[key]) for line in metrics if key in line]
        right.plot(*zip(*points, strict=True), marker=".", label=key.removeprefix("val/"))
    right.set(title="mean recall on held-out images, %", xlabel="step", ylim=(0, 103))
    if langs:
        right.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    with artifacts.writing(path) as temporary:
        figure.savefig(temporary, format="png")
