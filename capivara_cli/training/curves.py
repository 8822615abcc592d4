"""The plot of a training run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from capivara_cli import artifacts


def plot(metrics: list[dict[str, Any]], path: Path) -> None:
    """Write a PNG with the loss and the mean recall of each language over the steps.

    Args:
        metrics: the lines of metrics.jsonl.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    for key in dict.fromkeys(key for line in metrics for key in line):
        points = [(line["step"], line[key]) for line in metrics if key in line]
        steps, values = zip(*points, strict=True)
        if key == "loss":
            left.plot(steps, values, color="#555555")
        elif key.startswith("val/"):
            percent = [100 * value for value in values]
            right.plot(steps, percent, marker=".", label=key.removeprefix("val/"))
    left.set(title="training loss", xlabel="step")
    right.set(title="mean recall on held-out images, %", xlabel="step", ylim=(0, 103))
    if right.lines:
        right.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    with artifacts.writing(path) as temporary:
        figure.savefig(temporary, format="png")
