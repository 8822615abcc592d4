"""The table of `retrieve-eval` and `classify-eval`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from capivara_cli import console

if TYPE_CHECKING:
    from rich.table import Table

# Metric -> header of its column. The directions of retrieval stand above their three recalls, a word above each.
TITLES = {
    "image_retrieval_recall@1": "text\nR@1",
    "image_retrieval_recall@5": "to\nR@5",
    "image_retrieval_recall@10": "image\nR@10",
    "text_retrieval_recall@1": "image\nR@1",
    "text_retrieval_recall@5": "to\nR@5",
    "text_retrieval_recall@10": "text\nR@10",
    "mean_recall": "\nmean",
    "acc1": "acc@1",
    "acc5": "acc@5",
    "mean_per_class_recall": "per class",
    "mean_average_precision": "mAP",
    "mean_average_precision_11_points": "mAP 11",
    "roc_auc": "ROC AUC",
}
# The same for the lines of a narrow table.
LONG_TITLES = {
    **{f"image_retrieval_recall@{k}": f"text to image, R@{k}" for k in (1, 5, 10)},
    **{f"text_retrieval_recall@{k}": f"image to text, R@{k}" for k in (1, 5, 10)},
    "mean_recall": "mean recall",
}
COUNTS = {"n_texts": "text", "n_images": "image", "n": "image", "n_classes": "class"}
FEW = 10  # images; one more or less that is right changes an accuracy by ten points
CONFUSIONS = 3  # that are shown; the result file has ten


def show(contents: Sequence[dict[str, Any]]) -> None:
    """Show the metrics in percent; with a baseline, also its row and the gain. Then the most frequent confusions.

    In a terminal that is too narrow for a column per metric, each language gets a table with a line per metric.

    Args:
        contents: contents of result files of one task.
    """
    models = [content for content in contents if content["role"] == "model"]
    wide = _wide_table(contents, models)
    if console.fits(wide):
        console.show(wide)
    else:
        for content in models:
            console.show(_narrow_table(content))
    for content in models:
        if confusions := content.get("confusions"):
            pairs = (f"{c['label']} as {c['predicted']} ({c['images']:,})" for c in confusions[:CONFUSIONS])
            console.say(f"{content['language']}: most often confused: {', '.join(pairs)}")
    images = min(content.get("n_images", content.get("n", FEW)) for content in models)
    if images < FEW:
        console.warn(f"{console.counted(images, 'image')}: too few to mean anything")


def _wide_table(contents: Sequence[dict[str, Any]], models: Sequence[dict[str, Any]]) -> Table:
    first = contents[0]
    keys = [key for key in TITLES if any(key in content["metrics"] for content in contents)]
    counts = {key: title for key, title in COUNTS.items() if key in first}
    # A count that differs between the languages gets a column of its own.
    common = [key for key in counts if len({content[key] for content in contents}) == 1]
    columns = [key for key in counts if key not in common]
    table = console.table(
        *("lang", ""),
        *(console.plural(counts[key]) for key in columns),
        *(tuple(f"{TITLES[key]}{' *' if key == _main_metric(first) else ''}".split("\n")) for key in keys),
        text_columns=2,
        title=_title(first, common),
        caption=_note(contents),
    )
    for content in models:
        roles = _rows(content, keys)
        for number, (role, values) in enumerate(roles):
            lang = console.clean(content["language"]) if number == 0 else ""
            shown = [f"{content[key]:,}" if role == "model" else "" for key in columns]
            end = len(roles) > 1 and role == roles[-1][0]
            table.add_row(lang, role, *shown, *values, style="bold" if role == "gain" else None, end_section=end)
    return table


def _narrow_table(content: dict[str, Any]) -> Table:
    keys = [key for key in TITLES if key in content["metrics"]]
    roles = _rows(content, keys)
    title = f"{content['language']}, {_title(content, [key for key in COUNTS if key in content])}"
    table = console.table("", *(role for role, _ in roles), title=title, caption=_note([content]))
    for number, key in enumerate(keys):
        star = " *" if key == _main_metric(content) else ""
        table.add_row(LONG_TITLES.get(key, TITLES[key]) + star, *(values[number] for _, values in roles))
    return table


def _title(content: dict[str, Any], counts: Sequence[str]) -> str:
    """Return what was measured: `test: 500 texts, 500 images; in %, chance 0.2`."""
    numbers = ", ".join(console.counted(content[key], COUNTS[key]) for key in counts)
    # Of R@1 or acc@1. Each text has one image among all of them; each image one class.
    among = "n_images" if content["task"] == "zeroshot_retrieval" else "n_classes"
    chance = f", chance {100 / content[among]:.1f}" if among in counts else ""
    return f"{content['dataset']}: {numbers}{'; ' if numbers else ''}in %{chance}"


def _note(contents: Sequence[dict[str, Any]]) -> str:
    intervals = any("low" in content.get("baseline", {}).get("difference", {}) for content in contents)
    return "* main metric, ± half its 95 % interval" if intervals else "* main metric"


def _main_metric(content: dict[str, Any]) -> str:
    return str(content.get("main_metric", "mean_recall"))


def _rows(content: dict[str, Any], keys: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return the rows of a result, (role, values): the model, or the baseline, the model and the gain."""
    metrics, baseline = content["metrics"], content.get("baseline")
    if not baseline:
        return [("model", _percent(metrics, keys))]
    gains = []
    for key in keys:
        shared = key in metrics and key in baseline["metrics"]
        gain = f"{100 * (metrics[key] - baseline['metrics'][key]):+z.1f}" if shared else ""
        difference = baseline["difference"]
        if key == _main_metric(content) and "low" in difference:
            gain += f" ±{50 * (difference['high'] - difference['low']):.1f}"
        gains.append(gain)
    return [("baseline", _percent(baseline["metrics"], keys)), ("model", _percent(metrics, keys)), ("gain", gains)]


def _percent(metrics: dict[str, float], keys: Sequence[str]) -> list[str]:
    return [f"{100 * metrics[key]:.1f}" if key in metrics else "" for key in keys]
