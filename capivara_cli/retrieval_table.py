"""What `retrieve-eval` shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from capivara_cli import console

COLUMNS = {
    "image_retrieval_recall@1": "R@1",
    "image_retrieval_recall@5": "R@5",
    "image_retrieval_recall@10": "R@10",
    "text_retrieval_recall@1": "R@1",
    "text_retrieval_recall@5": "R@5",
    "text_retrieval_recall@10": "R@10",
    "mean_recall": "mean",
}


def show(results: Sequence[dict[str, Any]]) -> None:
    """A table of recalls in percent; with a baseline, a row for it and one for the difference."""
    from rich.table import Table

    first = results[0]
    table = Table(
        title=f"{first['dataset']}: {first['n_texts']:,} texts, {first['n_images']:,} images; recall in %",
        caption="R@k: text to image, then image to text. mean: of all six.",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("lang")
    table.add_column("")
    for name in COLUMNS.values():
        table.add_column(name, justify="right")
    for result in results:
        if result["role"] == "model":
            _rows(table, result)
    console.show(table)


def _rows(table: Any, result: dict[str, Any]) -> None:
    baseline = result.get("baseline")
    if baseline:
        table.add_row(result["language"], "baseline", *_percent(baseline["metrics"]))
    table.add_row("" if baseline else result["language"], "model", *_percent(result["metrics"]))
    if baseline:
        gains = [result["metrics"][key] - baseline["metrics"][key] for key in COLUMNS]
        table.add_row("", "difference", *(f"{100 * gain:+.1f}" for gain in gains), end_section=True)


def _percent(metrics: dict[str, float]) -> list[str]:
    return [f"{100 * metrics[key]:.1f}" for key in COLUMNS]
