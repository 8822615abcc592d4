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
    sizes = {(result["n"], result["n_classes"]) for result in results}
    counts = f"{first['n']:,} images, {first['n_classes']:,} classes; " if len(sizes) == 1 else ""
    sure = any("low" in result.get("baseline", {}).get("difference", {}) for result in results)
    table = Table(
        title=Text(console.clean(f"{first['dataset']}: {counts}in %")),
        caption="± half the 95 % interval of the main metric, *" if sure else "* the main metric",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("lang")
    table.add_column("")
    if len(sizes) > 1:
        table.add_column("images", justify="right")
        table.add_column("classes", justify="right")
    for key in keys:
        table.add_column(TITLES[key] + (" *" if key == first["main_metric"] else ""), justify="right", no_wrap=True)
    for result in results:
        if result["role"] == "model":
            _rows(table, result, keys, apart=len(sizes) > 1)
    console.show(table)
    for result in results:
        if result["role"] == "model" and result.get("confusions"):
            worst = ", ".join(
                f"{c['label']} as {c['predicted']} ({c['images']:,})" for c in result["confusions"][:CONFUSIONS]
            )
            console.console().print(
                Text(console.clean(f"{result['language']}: most often confused: {worst}")), soft_wrap=True
            )


def _rows(table: Any, result: dict[str, Any], keys: Sequence[str], *, apart: bool) -> None:
    from rich.text import Text

    baseline = result.get("baseline")
    lang = Text(console.clean(result["language"]))
    counts = [f"{result['n']:,}", f"{result['n_classes']:,}"] if apart else []
    blank = [""] * len(counts)
    if baseline:
        table.add_row(lang, "baseline", *blank, *_percent(baseline["metrics"], keys))
    table.add_row("" if baseline else lang, "model", *counts, *_percent(result["metrics"], keys))
    if baseline:
        difference = baseline["difference"]
        gains = []
        for key in keys:
            gain = f"{100 * difference[key]:+.1f}" if key in difference else ""
            if key == result["main_metric"] and "low" in difference:
                gain += f" ±{50 * (difference['high'] - difference['low']):.1f}"
            gains.append(gain)
        table.add_row("", "gain", *blank, *gains, style="bold", end_section=True)


def _percent(metrics: dict[str, float], keys: Sequence[str]) -> list[str]:
    return [f"{100 * metrics[key]:.1f}" if key in metrics else "" for key in keys]
