"""What `classify-eval` shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from capivara_cli import console

TITLES = {
    "acc1": "acc@1",
    "acc5": "acc@5",
    "mean_per_class_recall": "per class",
    "mean_average_precision": "mAP",
    "mean_average_precision_11_points": "mAP 11",
    "roc_auc": "ROC AUC",
}
CONFUSIONS = 3  # that are shown; the result file has ten


def show(results: Sequence[dict[str, Any]]) -> None:
    """A table of metrics in percent; with a baseline, a row for it and one for the gain; and what is confused most."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    first = results[0]
    keys = [key for key in TITLES if any(key in result["metrics"] for result in results)]
    compared = any("baseline" in result for result in results)
    table = Table(
        title=f"{first['dataset']}: {first['n']:,} images, {first['n_classes']:,} classes; in %",
        caption="± half the 95 % interval of the main metric, *" if compared else "* the main metric",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("lang")
    table.add_column("")
    for key in keys:
        table.add_column(TITLES[key] + (" *" if key == first["main_metric"] else ""), justify="right", no_wrap=True)
    for result in results:
        if result["role"] == "model":
            _rows(table, result, keys)
    console.show(table)
    for result in results:
        if result["role"] == "model" and result.get("confusions"):
            worst = ", ".join(
                f"{c['label']} as {c['predicted']} ({c['images']:,})" for c in result["confusions"][:CONFUSIONS]
            )
            console.console().print(
                Text(console.clean(f"{result['language']}: most often confused: {worst}")), soft_wrap=True
            )


def _rows(table: Any, result: dict[str, Any], keys: Sequence[str]) -> None:
    baseline = result.get("baseline")
    if baseline:
        table.add_row(result["language"], "baseline", *_percent(baseline["metrics"], keys))
    table.add_row("" if baseline else result["language"], "model", *_percent(result["metrics"], keys))
    if baseline:
        difference = baseline["difference"]
        gains = []
        for key in keys:
            gain = f"{100 * difference[key]:+.1f}" if key in difference else ""
            if key == result["main_metric"] and key in ("acc1", "mean_per_class_recall") and "low" in difference:
                gain += f" ±{50 * (difference['high'] - difference['low']):.1f}"
            gains.append(gain)
        table.add_row("", "gain", *gains, style="bold", end_section=True)


def _percent(metrics: dict[str, float], keys: Sequence[str]) -> list[str]:
    return [f"{100 * metrics[key]:.1f}" if key in metrics else "" for key in keys]
