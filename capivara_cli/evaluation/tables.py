"""The table of `retrieve-eval` and `classify-eval`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from capivara_cli import console

if TYPE_CHECKING:
    from rich.table import Table

TITLES = {
    "image_retrieval_recall@1": "R@1",
    "image_retrieval_recall@5": "R@5",
    "image_retrieval_recall@10": "R@10",
    "text_retrieval_recall@1": "R@1",
    "text_retrieval_recall@5": "R@5",
    "text_retrieval_recall@10": "R@10",
    "mean_recall": "mean",
    "acc1": "acc@1",
    "acc5": "acc@5",
    "mean_per_class_recall": "per class",
    "mean_average_precision": "mAP",
    "mean_average_precision_11_points": "mAP 11",
    "roc_auc": "ROC AUC",
}
COUNTS = {"n_texts": "texts", "n_images": "images", "n": "images", "n_classes": "classes"}
NOTES = {
    "zeroshot_retrieval": "R@k: text to image, then image to text; mean: of all six. ",
    "zeroshot_classification": "",
}
CONFUSIONS = 3  # that are shown; the result file has ten


def show(contents: Sequence[dict[str, Any]]) -> None:
    """Show the metrics in percent; with a baseline, also its row and the gain. Then the most frequent confusions.

    Args:
        contents: contents of result files of one task.
    """
    first = contents[0]
    keys = [key for key in TITLES if any(key in content["metrics"] for content in contents)]
    counts = {key: title for key, title in COUNTS.items() if key in first}
    # A count that differs between the languages gets a column of its own.
    common = [key for key in counts if len({content[key] for content in contents}) == 1]
    columns = [key for key in counts if key not in common]
    intervals = any("low" in content.get("baseline", {}).get("difference", {}) for content in contents)
    title = ", ".join(f"{first[key]:,} {counts[key]}" for key in common)
    table = console.table(
        *("lang", ""),
        *(counts[key] for key in columns),
        *(TITLES[key] + (" *" if key == _main_metric(first) else "") for key in keys),
        text_columns=2,
        title=f"{first['dataset']}: {title}{'; ' if title else ''}in %",
        caption=NOTES[first["task"]] + ("* main metric, ± half its 95 % interval" if intervals else "* main metric"),
    )
    models = [content for content in contents if content["role"] == "model"]
    for content in models:
        _add_rows(table, content, keys, [f"{content[key]:,}" for key in columns])
    console.show(table)
    for content in models:
        if confusions := content.get("confusions"):
            pairs = (f"{c['label']} as {c['predicted']} ({c['images']:,})" for c in confusions[:CONFUSIONS])
            console.say(f"{content['language']}: most often confused: {', '.join(pairs)}")


def _main_metric(content: dict[str, Any]) -> str:
    return str(content.get("main_metric", "mean_recall"))


def _add_rows(table: Table, content: dict[str, Any], keys: Sequence[str], counts: Sequence[str]) -> None:
    metrics, baseline = content["metrics"], content.get("baseline")
    lang = console.clean(content["language"])
    if not baseline:
        table.add_row(lang, "model", *counts, *_percent(metrics, keys))
        return
    table.add_row(lang, "baseline", *[""] * len(counts), *_percent(baseline["metrics"], keys))
    table.add_row("", "model", *counts, *_percent(metrics, keys))
    gains = []
    for key in keys:
        shared = key in metrics and key in baseline["metrics"]
        gain = f"{100 * (metrics[key] - baseline['metrics'][key]):+.1f}" if shared else ""
        difference = baseline["difference"]
        if key == _main_metric(content) and "low" in difference:
            gain += f" ±{50 * (difference['high'] - difference['low']):.1f}"
        gains.append(gain)
    table.add_row("", "gain", *[""] * len(counts), *gains, style="bold", end_section=True)


def _percent(metrics: dict[str, float], keys: Sequence[str]) -> list[str]:
    return [f"{100 * metrics[key]:.1f}" if key in metrics else "" for key in keys]
