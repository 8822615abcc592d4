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
    """A table of recalls in percent; with a baseline, a row for it and one for the gain."""
    from rich import box
    from rich.table import Table

    first = results[0]
    compared = any("baseline" in result for result in results)
    table = Table(
        title=f"{first['dataset']}: {first['n_texts']:,} texts, {first['n_images']:,} images; recall in %",
        caption="R@k: text to image, image to text. mean: of all six"
        + (", ± half its 95 % interval." if compared else "."),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,  # narrow enough for 80 columns
    )
    table.add_column("lang")
    table.add_column("")
    for name in COLUMNS.values():
        table.add_column(name, justify="right", no_wrap=True)
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
        gains = [f"{100 * (result['metrics'][key] - baseline['metrics'][key]):+.1f}" for key in COLUMNS]
        sure = baseline["difference"]
        gains[-1] += f" ±{50 * (sure['high'] - sure['low']):.1f}"
        table.add_row("", "gain", *gains, style="bold", end_section=True)


def _percent(metrics: dict[str, float]) -> list[str]:
    return [f"{100 * metrics[key]:.1f}" for key in COLUMNS]
