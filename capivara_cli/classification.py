"""`classify-eval`: zero-shot classification on any class set, in any language, of one model or against a baseline."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capivara_cli import __version__, accuracy, artifacts, class_sets, console, importers, subjects
from capivara_cli.bootstrap import compare_hits
from capivara_cli.class_sets import METRICS, ClassSet, first_ten
from capivara_cli.clip import Clip
from capivara_cli.embeddings import embed
from capivara_cli.errors import CapivaraError, nearest
from capivara_cli.images import ImageRef
from capivara_cli.importers.rows import Options
from capivara_cli.results import dataset_name, show_rejected, write_results
from capivara_cli.runtime import Runtime
from capivara_cli.subjects import Subject

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

FEW = 100  # classes, below which a part of ImageNet's says little (Babel-ImageNet, Geigle et al. 2023, leaves such out)
GENERIC: dict[str, tuple[str, ...]] = {
    "en": ("a photo of a {c}.",),
    "pt": ("uma foto de {c}.",),
    "hi": ("चित्र: {c}।",),
    "xh": ("umfanekiso: {c}.",),
}
"""Templates for class files that bring none; in any other language the name stands by itself."""
TOP = 5  # predictions of an image that are written


@dataclass(frozen=True)
class Labelled:
    """An image and the classes that it has, as the data call them."""

    id: str
    image: ImageRef
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """One subject in one language.

    Attributes:
        result: what the result file holds: CLIP_benchmark's keys, our metrics and the signature.
        items: the images that were scored.
        scores: (N, C) cosines.
        truth: (N, C) whether an image is of a class.
        labels, names: of the C classes.
    """

    subject: Subject
    lang: str
    result: dict[str, Any]
    items: list[Labelled]
    scores: np.ndarray
    truth: np.ndarray
    labels: list[str]
    names: list[str]


def classify_eval(
    data: Sequence[str],
    lang: Sequence[str],
    *,
    classes: str | None = None,
    templates: str | None = None,
    metric: str = "auto",
    split: str | None = None,
    images: Path | None = None,
    model: str | None = None,
    pretrained: str | None = None,
    adapter: Path | None = None,
    baseline: str | None = None,
    output: Path | None = None,
    predictions: Path | None = None,
    per_class: Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Evaluate, write the files that were asked for, and return the results. Arguments as `capivara classify-eval`.

    Raises CapivaraError for data without labels or readable images, classes without names in a language, a metric that
    the data do not define, or a model or adapter that cannot be loaded.
    """
    if metric not in ("auto", *METRICS):
        raise CapivaraError(
            f"--metric {metric} is not known{nearest(metric, list(METRICS))}", f"auto, {', '.join(METRICS)}"
        )
    if not lang:
        raise CapivaraError("no language: --lang LANG is missing", "--lang en --lang hi")
    found = list(_read(data, Options(images=images, split=split, labels=True)))
    chosen = _class_set(classes, templates, lang, found, data)
    asked = subjects.with_baseline(subjects.pick(model, pretrained, adapter), baseline)
    runtime = Runtime.pick(device, precision, seed)
    outcomes = [
        outcome for subject in asked for outcome in _evaluate(subject, found, chosen, lang, metric, data, runtime)
    ]
    if baseline is not None:
        _add_differences(outcomes, seed)
    results = [outcome.result for outcome in outcomes]
    if runtime.is_main:
        from capivara_cli.classification_table import show

        show(results)
        write_results(results, output)
        if predictions is not None:
            _write_predictions(outcomes, predictions)
        if per_class is not None:
            _write_classes(outcomes, per_class)
    return results


def _read(data: Sequence[str], options: Options) -> Iterator[Labelled]:
    """Images with labels, of any source that `import` reads. Raises CapivaraError when there is none."""
    any_image = labelled = False
    for source in data:
        form = importers.choose([source], None, options) if source != "-" else "jsonl"
        for row in importers.rows(source, form, options):
            any_image = True
            given = row.extra.get("label", row.extra.get("labels"))
            labels = given if isinstance(given, list) else [given]
            own = tuple(
                str(label).strip() for label in labels if label not in (None, "") and not isinstance(label, bool)
            )
            if own and row.problem is None and row.image is not None:
                labelled = True
                yield Labelled(row.id or row.key, ImageRef.parse(row.image, Path.cwd()), own)
    if not labelled:
        what = "no image has a `label`" if any_image else "no images in it"
        raise CapivaraError(f"{' '.join(data)}: {what}", "folders of classes, or label in JSONL, .cls, a column")


def _class_set(
    given: str | None, templates: str | None, langs: Sequence[str], found: Sequence[Labelled], data: Sequence[str]
) -> ClassSet:
    """The classes that were asked for; without --classes those called as the data, or the labels themselves."""
    chosen = class_sets.load(given, langs, dataset_name(data))
    if chosen is None:
        labels = tuple(sorted({label for item in found for label in item.labels}))
        if {lang.partition("-")[0] for lang in langs} != {"en"}:
            raise CapivaraError(
                f"no names of the classes {first_ten(labels)} in {', '.join(langs)}",
                "--classes FILE with them; --list shows the sets that come along",
            )
        console.say("the labels themselves are the names: --classes FILE has better ones")
        names: class_sets.Names = {label: (label.replace("_", " "),) for label in labels}
        chosen = ClassSet(dataset_name(data), labels, {"en": names}, source="labels")
    elif given is None:
        console.say(f"class set {chosen.name}, as the data is called; --classes takes another")
    if templates is not None:
        chosen = class_sets.with_templates(chosen, templates, langs)
    if not chosen.templates and not chosen.prompts:
        alone: tuple[str, ...] = ("{c}",)
        generic = {lang: GENERIC.get(lang.partition("-")[0], alone) for lang in langs}
        chosen = replace(chosen, templates=generic)
    for lang in langs:
        for name, one, other in class_sets.same_names(chosen, lang)[:10]:
            console.warn(f"{one} and {other} have the same name in {lang}: {name}")
    return chosen


def _evaluate(
    subject: Subject,
    found: Sequence[Labelled],
    classes: ClassSet,
    langs: Sequence[str],
    metric: str,
    data: Sequence[str],
    runtime: Runtime,
) -> Iterator[Outcome]:
    import numpy as np

    speaks = subject.role == "model"
    known = class_sets.known_labels(classes)
    places = [[class_sets.place_of(label, classes, known) for label in item.labels] for item in found]
    if speaks:
        _name_what_is_odd(found, places, classes)
    if not any(place is not None for own in places for place in own):
        there = first_ten(dict.fromkeys(label for item in found for label in item.labels))
        raise CapivaraError(
            f"none of the labels in the data is one of {classes.name}'s: {there}",
            f"its labels: {first_ten(classes.labels)}",
        )
    for lang in langs:
        classes.names_in(lang)  # before a model is loaded
    clip = subject.load(runtime)
    table, kept, rejected = embed(clip, [item.image for item in found])
    if not kept:
        raise CapivaraError(f"no image can be read; the first: {rejected[0].image}: {rejected[0].reason}")
    if speaks:
        show_rejected(rejected)
    for lang in langs:
        names = classes.names_in(lang)
        numbers = [number for number, label in enumerate(classes.labels) if label in names]
        column = {number: place for place, number in enumerate(numbers)}
        truth = np.zeros((len(kept), len(numbers)), bool)
        for row, i in enumerate(kept):
            for place in places[i]:
                if place in column:
                    truth[row, column[place]] = True
        rows = np.flatnonzero(truth.any(axis=1))
        labels = [classes.labels[number] for number in numbers]
        if speaks:
            _name_what_is_missing(classes, lang, labels, len(kept) - len(rows))
        if not len(rows):
            raise CapivaraError(f"no image is of a class with a name in {lang}", "--classes FILE with more names")
        weights = class_weights(clip, [classes.ask(lang, label) for label in labels])
        scores = (table.take(rows) @ weights.T).numpy()  # (N, C)
        items, truth = [found[kept[row]] for row in rows], truth[rows]
        shown = [names[label][0] for label in labels]
        yield Outcome(
            subject,
            lang,
            _result(subject, clip, classes, lang, metric, data, scores, truth, labels, shown, len(rejected)),
            items,
            scores,
            truth,
            labels,
            shown,
        )


def class_weights(clip: Clip, prompts: Sequence[Sequence[str]]) -> Tensor:
    """(C, D) float32: of each class the mean of its prompts' normalised embeddings, normalised.

    As open_clip's `build_zero_shot_classifier`; but distinct prompts are encoded once, and with others of their length.
    """
    import torch

    distinct = list(dict.fromkeys(prompt for own in prompts for prompt in own))
    row = {prompt: i for i, prompt in enumerate(distinct)}
    features = clip.encode_texts(distinct)  # (P, D)
    means = torch.stack([features[[row[prompt] for prompt in own]].mean(dim=0) for own in prompts])
    return torch.nn.functional.normalize(means, dim=-1)


def _name_what_is_odd(found: Sequence[Labelled], places: Sequence[Sequence[int | None]], classes: ClassSet) -> None:
    """Labels without a class, and classes without an image."""
    strange = Counter(
        label
        for item, own in zip(found, places, strict=True)
        for label, place in zip(item.labels, own, strict=True)
        if place is None
    )
    if strange:
        console.warn(
            f"{strange.total():,} labels are of no class of {classes.name}, their images are left out unless they have"
            f" another: {first_ten(strange)}"
        )
    used = {place for own in places for place in own}
    bare = [label for number, label in enumerate(classes.labels) if number not in used]
    if bare and any(place is not None for place in used):
        console.warn(f"{len(bare):,} classes have no image, and stay as wrong answers: {first_ten(bare)}")


def _name_what_is_missing(classes: ClassSet, lang: str, labels: Sequence[str], left_out: int) -> None:
    """Classes without a name in the language, as in Babel-ImageNet."""
    nameless = [label for label in classes.labels if label not in classes.names_in(lang)]
    if nameless:
        console.warn(
            f"{len(nameless):,} of {len(classes.labels):,} classes have no name in {lang}, {left_out:,} images are left"
            f" out: {first_ten(nameless)}"
        )
        if len(labels) < FEW:
            console.warn(
                f"{len(labels)} classes are too few to trust: figures in {lang} say little about the whole set"
            )


def _result(
    subject: Subject,
    clip: Clip,
    classes: ClassSet,
    lang: str,
    metric: str,
    data: Sequence[str],
    scores: np.ndarray,
    truth: np.ndarray,
    labels: Sequence[str],
    names: Sequence[str],
    rejected: int,
) -> dict[str, Any]:
    single = bool((truth.sum(axis=1) == 1).all())
    metrics = accuracy.metrics_for(scores, truth, single)
    main = _main_metric(metric, classes, metrics)
    prompts = artifacts.fingerprint([classes.ask(lang, label) for label in labels])[:12]
    signature = {
        "capivara": __version__,
        "task": "classification",
        **subject.signature(clip),
        "data": "+".join(Path(name).name for name in data),
        "lang": lang,
        "classes": f"{classes.name}:{len(labels)}",
        "templates": "by class" if classes.prompts else len(classes.templates_in(lang)),
        "prompts": prompts,
        "images": len(truth),
        "metric": main,
        "precision": clip.runtime.precision,
        "ties": "expected",
    }
    result = {
        "dataset": dataset_name(data),
        **subject.columns(),
        "task": "zeroshot_classification",
        "metrics": metrics,
        "language": lang,
        "main_metric": main,
        "n": len(truth),
        "n_classes": len(labels),
        "n_rejected": rejected,
        "signature": "|".join(f"{key}:{value}" for key, value in signature.items()),
    }
    if single:
        recalls = accuracy.per_class_recall(scores, truth)
        wrong = accuracy.confusions(scores, truth)
        result["confusions"] = [
            {"label": names[one], "predicted": names[other], "images": n} for one, other, n in wrong
        ]
    else:
        recalls = accuracy.average_precision(scores, truth)
    counts = truth.sum(axis=0)
    result["per_class"] = [
        {
            "label": label,
            "name": name,
            "images": int(n),
            ("recall" if single else "average_precision"): float(value) if n else None,
        }
        for label, name, n, value in zip(labels, names, counts, recalls, strict=True)
    ]
    return result


def _main_metric(asked: str, classes: ClassSet, metrics: dict[str, float]) -> str:
    """The key of the metric that counts. Raises CapivaraError when the data do not define the one asked for."""
    wanted = METRICS[asked] if asked != "auto" else METRICS.get(classes.metric or "")
    if wanted in metrics:
        return str(wanted)
    if asked != "auto":
        reasons = {
            "acc5": "there are fewer than five classes, or images with several labels",
            "roc_auc": "it needs two classes, and images of both",
            "mean_average_precision": "each image has one label",
            "mean_average_precision_11_points": "each image has one label",
        }
        raise CapivaraError(
            f"--metric {asked} is not defined here: {reasons.get(METRICS[asked], 'images have several labels')}",
            f"--metric auto; defined are {', '.join(metrics)}",
        )
    first = next(iter(metrics))
    if wanted is not None:
        console.warn(f"{classes.name}'s metric {classes.metric} is not defined for these data: {first} instead")
    return first


def _add_differences(outcomes: Sequence[Outcome], seed: int) -> None:
    """Give each of the model's results the difference to the baseline's; of accuracies with interval and p-value."""
    baselines = {outcome.lang: outcome for outcome in outcomes if outcome.subject.role == "baseline"}
    for outcome in outcomes:
        if outcome.subject.role != "model":
            continue
        base = baselines[outcome.lang]
        ours, theirs = outcome.result["metrics"], base.result["metrics"]
        difference: dict[str, Any] = {name: ours[name] - theirs[name] for name in ours if name in theirs}
        single = "acc1" in ours and [item.id for item in outcome.items] == [item.id for item in base.items]
        if single:
            weigh = outcome.result["main_metric"] == "mean_per_class_recall"
            groups = outcome.truth.argmax(axis=1) if weigh else None
            hits = [accuracy.hits(each.scores, each.truth, 1) for each in (outcome, base)]
            difference |= compare_hits(hits[0], hits[1], groups, seed=seed)
        outcome.result["baseline"] = {
            "model": base.result["model"],
            "pretrained": base.result["pretrained"],
            "metrics": theirs,
            "difference": difference,
        }


def _write_predictions(outcomes: Sequence[Outcome], path: Path) -> None:
    """A line for each image: what it is, and the best answers with their scores."""
    import numpy as np

    with artifacts.writing(path) as temporary, temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for outcome in outcomes:
            best = np.argsort(-outcome.scores, axis=1, kind="stable")[:, :TOP]
            for item, own, scores, truth in zip(outcome.items, best, outcome.scores, outcome.truth, strict=True):
                line = {
                    "role": outcome.subject.role,
                    "lang": outcome.lang,
                    "id": item.id,
                    "image": str(item.image),
                    "labels": [outcome.labels[i] for i in np.flatnonzero(truth)],
                    "predicted": outcome.labels[own[0]],
                    "correct": bool(truth[own[0]]),
                    "score": round(float(scores[own[0]]), 6),
                    "label_score": round(float(scores[truth].max()), 6),
                    "top": [{"label": outcome.labels[i], "score": round(float(scores[i]), 6)} for i in own],
                }
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    console.say(f"wrote {path}")


def _write_classes(outcomes: Sequence[Outcome], path: Path) -> None:
    """A row for each class, language and model."""
    with artifacts.writing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["role", "lang", "label", "name", "images", "metric", "value"])
        for outcome in outcomes:
            for row in outcome.result["per_class"]:
                measure = "recall" if "recall" in row else "average_precision"
                value = "" if row[measure] is None else f"{row[measure]:.6f}"
                writer.writerow(
                    [outcome.subject.role, outcome.lang, row["label"], row["name"], row["images"], measure, value]
                )
    console.say(f"wrote {path}")
