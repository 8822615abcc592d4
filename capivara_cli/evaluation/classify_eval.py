"""`classify-eval`: zero-shot classification on any class set, in any language, of one model or against a baseline."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capivara_cli import __version__, artifacts, console
from capivara_cli.data import class_sets, labelled
from capivara_cli.data.class_sets import METRICS, ClassSet, first_ten
from capivara_cli.data.labelled import Data
from capivara_cli.data.readers.rows import Options
from capivara_cli.errors import CapivaraError, nearest
from capivara_cli.evaluation.classification_files import Answers, write_classes, write_predictions
from capivara_cli.evaluation.results import check_files, dataset_name, show_rejected, write_results
from capivara_cli.metrics import classification as accuracy
from capivara_cli.metrics.bootstrap import compare_hits
from capivara_cli.models import checkpoint
from capivara_cli.models.clip import Clip
from capivara_cli.models.embedding_cache import embed
from capivara_cli.models.spec import ModelSpec, with_baseline
from capivara_cli.runtime import Runtime

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
LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")  # BCP-47's form
SEVERAL = ("map", "map11")  # metrics of images with several labels
HITS = {"acc1": 1, "acc5": 5, "mean_per_class_recall": 1}  # metrics that are a mean over images: how many answers count


@dataclass(frozen=True)
class Outcome:
    """One model in one language.

    Attributes:
        result: what the result file holds: CLIP_benchmark's keys, our metrics and the signature.
        answers: the best for each image that was scored.
        hits: (N,) whether, or with ties how likely, each was answered rightly by the main metric; None where it is no
            mean of that.
        groups: (N,) class of each image, when classes weigh the same in the main metric.
        labels: of the C classes.
    """

    role: str
    lang: str
    result: dict[str, Any]
    answers: Answers
    hits: np.ndarray | None
    groups: np.ndarray | None
    labels: list[str]


@dataclass(frozen=True)
class _Task:
    """What is asked in one language: nothing of it depends on the model.

    Attributes:
        numbers: of the classes that have a name in it.
        prompts: of each of these.
        several: whether images may have several classes, or none.
    """

    lang: str
    labels: list[str]
    names: list[str]
    numbers: list[int]
    prompts: list[list[str]]
    several: bool
    metric: str
    templates: int | str


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
    langs = list({code.casefold(): code for code in reversed(lang)}.values())[::-1]
    for code in langs:
        if not LANGUAGE.fullmatch(code):
            raise CapivaraError(f"--lang {code}: no language", "BCP-47: hi, pt-BR")
    roles = ["model"] if baseline is None else ["model", "baseline"]
    read = [*data, *(each.partition("#")[0] for each in (classes, templates) if each)]
    check_files(read, langs, roles, output=output, predictions=predictions, per_class=per_class)
    found = labelled.read(data, Options(images=images, split=split, labels=True))
    chosen = _class_set(classes, templates, langs, found, data)
    places = _places(found, chosen)
    tasks = [_task(chosen, code, metric, found, places) for code in langs]
    asked = with_baseline(ModelSpec.pick(model, pretrained, adapter), baseline)
    runtime = Runtime.start(device, precision, seed)
    outcomes = [
        outcome
        for role, spec in asked
        for outcome in _evaluate(role, spec, found, places, chosen, tasks, data, runtime)
    ]
    if baseline is not None:
        _add_differences(outcomes, seed)
    results = [outcome.result for outcome in outcomes]
    if runtime.is_main:
        from capivara_cli.evaluation.classification_table import show

        show(results)
        write_results(results, output)
        if predictions is not None:
            write_predictions(outcomes, predictions)
        if per_class is not None:
            write_classes(outcomes, per_class)
    return results


def _class_set(
    given: str | None, templates: str | None, langs: Sequence[str], found: Data, data: Sequence[str]
) -> ClassSet:
    """The classes that were asked for; without --classes those called as the data, or the labels themselves."""
    chosen = class_sets.load(given, langs, data)
    if chosen is None:
        labels = tuple(sorted({label for item in found.items for label in item.labels} | set(found.folders)))
        if {lang.partition("-")[0].lower() for lang in langs} != {"en"}:
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
    asked_in_some = bool(chosen.templates or chosen.prompts)
    for lang in langs:
        chosen.names_in(lang)
        if not chosen.is_asked(lang):
            generic = GENERIC.get(lang.partition("-")[0].lower(), ("{c}",))
            if asked_in_some:
                console.warn(f"{chosen.name} has no templates in {lang}: {' '.join(generic)} is taken")
            chosen = replace(chosen, templates={**chosen.templates, lang: generic})
        for name, one, other in class_sets.same_names(chosen, lang)[:10]:
            console.warn(f"{one} and {other} have the same name in {lang}: {name}")
    if len(chosen.labels) == 1:
        console.warn(f"{chosen.name} has one class only, {chosen.labels[0]}: every answer is right")
    return chosen


def _places(found: Data, classes: ClassSet) -> list[list[int]]:
    """The numbers of each image's classes. Raises CapivaraError when none of the labels is a class's."""
    known = class_sets.known_labels(classes)
    places = {
        label: class_sets.place_of(label, classes, known)
        for label in dict.fromkeys(label for item in found.items for label in item.labels)
    }
    strange = Counter(label for item in found.items for label in item.labels if places[label] is None)
    if len(strange) == len(places):
        raise CapivaraError(
            f"none of the labels in the data is one of {classes.name}'s: {first_ten(places)}",
            f"its labels: {first_ten(classes.labels)}",
        )
    if strange:
        console.warn(
            f"{strange.total():,} labels are of no class of {classes.name}, their images are left out unless they have"
            f" another: {first_ten(strange)}"
        )
    used = set(places.values())
    bare = [label for number, label in enumerate(classes.labels) if number not in used]
    if bare:
        console.warn(f"{len(bare):,} classes have no image, and stay as wrong answers: {first_ten(bare)}")
    return [[place for label in item.labels if (place := places[label]) is not None] for item in found.items]


def _task(classes: ClassSet, lang: str, metric: str, found: Data, places: Sequence[Sequence[int]]) -> _Task:
    """What is asked in a language.

    Raises CapivaraError when no image is of a class with a name in it, or when the data do not define the metric.
    """
    names = classes.names_in(lang)
    numbers = [number for number, label in enumerate(classes.labels) if label in names]
    labels = [classes.labels[number] for number in numbers]
    here = set(numbers)
    seen = {place for own in places for place in own} & here
    if not seen:
        raise CapivaraError(f"no image is of a class with a name in {lang}", "--classes FILE with more names")
    if nameless := [label for label in classes.labels if label not in names]:
        lost = sum(bool(own) and not here.intersection(own) for own in places)
        console.warn(
            f"{len(nameless):,} of {len(classes.labels):,} classes have no name in {lang}, {lost:,} images are left"
            f" out: {first_ten(nameless)}"
        )
        if len(labels) < FEW:
            console.warn(
                f"{len(labels)} classes are too few to trust: figures in {lang} say little about the whole set"
            )
    asked = classes.metric if metric == "auto" else metric
    several = found.several or asked in SEVERAL
    main = _main_metric(metric, classes, several, len(labels), len(seen))
    by_class = classes.has_prompts(lang)
    return _Task(
        lang,
        labels,
        [names[label][0] for label in labels],
        numbers,
        [classes.ask(lang, label) for label in labels],
        several,
        main,
        "by class" if by_class else len(classes.templates_in(lang)),
    )


def _evaluate(
    role: str,
    spec: ModelSpec,
    found: Data,
    places: Sequence[Sequence[int]],
    classes: ClassSet,
    tasks: Sequence[_Task],
    data: Sequence[str],
    runtime: Runtime,
) -> Iterator[Outcome]:
    import numpy as np

    clip = checkpoint.load(spec, runtime, role=role)
    table, kept, rejected = embed(clip, [item.image for item in found.items])
    if not kept:
        raise CapivaraError(f"no image can be read; the first: {rejected[0].image}: {rejected[0].reason}")
    if role == "model":
        show_rejected([*found.rejected, *rejected])
    for task in tasks:
        column = {number: place for place, number in enumerate(task.numbers)}
        truth = np.zeros((len(kept), len(task.numbers)), bool)
        for row, i in enumerate(kept):
            truth[row, [column[place] for place in places[i] if place in column]] = True
        rows = np.arange(len(kept)) if task.several else np.flatnonzero(truth.any(axis=1))
        if not truth.any():
            raise CapivaraError(f"no image that can be read is of a class with a name in {task.lang}")
        scores = (table.take(rows) @ class_weights(clip, task.prompts).T).numpy()  # (N, C)
        truth = truth[rows]
        result = _result(role, clip, classes, task, data, scores, truth)
        result["n_rejected"] = len(found.items) + len(found.rejected) - len(rows)
        main = result["main_metric"]
        yield Outcome(
            role,
            task.lang,
            result,
            Answers.of([found.items[kept[row]] for row in rows], scores, truth),
            accuracy.hits(scores, truth, HITS[main]) if main in HITS else None,
            truth.argmax(axis=1) if main == "mean_per_class_recall" else None,
            task.labels,
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


def _result(
    role: str,
    clip: Clip,
    classes: ClassSet,
    task: _Task,
    data: Sequence[str],
    scores: np.ndarray,
    truth: np.ndarray,
) -> dict[str, Any]:
    single = not task.several
    metrics = accuracy.metrics_for(scores, truth, single)
    # What is defined for the data need not be for those of its images that can be read.
    main = task.metric if task.metric in metrics else next(iter(metrics))
    signature = {
        "capivara": __version__,
        "task": "classification",
        **clip.signature(),
        "data": "+".join(Path(name).name for name in data),
        "lang": task.lang,
        "classes": f"{classes.name}:{len(task.labels)}",
        "templates": task.templates,
        "prompts": artifacts.fingerprint(task.prompts)[:12],
        "images": len(truth),
        "metric": main,
        "precision": clip.runtime.precision,
        "ties": "expected",
    }
    result = {
        "dataset": dataset_name(data),
        **clip.spec.columns(),
        "role": role,
        "task": "zeroshot_classification",
        "metrics": metrics,
        "language": task.lang,
        "main_metric": main,
        "n": len(truth),
        "n_classes": len(task.labels),
        "n_rejected": 0,
        "signature": "|".join(f"{key}:{value}" for key, value in signature.items()),
    }
    if single:
        recalls = accuracy.per_class_recall(scores, truth)
        wrong = accuracy.confusions(scores, truth)
        result["confusions"] = [
            {"label": task.names[one], "predicted": task.names[other], "images": n} for one, other, n in wrong
        ]
    else:
        recalls = accuracy.average_precision(scores, truth)
    result["per_class"] = [
        {
            "label": label,
            "name": name,
            "images": int(n),
            ("recall" if single else "average_precision"): float(value) if n else None,
        }
        for label, name, n, value in zip(task.labels, task.names, truth.sum(axis=0), recalls, strict=True)
    ]
    return result


def _main_metric(asked: str, classes: ClassSet, several: bool, count: int, seen: int) -> str:
    """The key of the metric that counts. Raises CapivaraError when the data do not define the one asked for.

    Args:
        several: whether images may have several labels.
        count, seen: classes, and those of them that images have.
    """
    wanted = METRICS[asked] if asked != "auto" else METRICS.get(classes.metric or "")
    defined = [METRICS[name] for name in SEVERAL]
    if not several:
        defined = ["acc1", *(["acc5"] if count >= 5 else []), "mean_per_class_recall"]
        defined += ["roc_auc"] if count == seen == 2 else []
    if wanted in defined:
        return str(wanted)
    if asked != "auto":
        reasons = {
            "acc5": "there are fewer than five classes, or images with several labels",
            "roc_auc": "it needs two classes, and images of both",
        }
        raise CapivaraError(
            f"--metric {asked} is not defined here: {reasons.get(METRICS[asked], 'images have several labels')}",
            f"--metric auto; defined are {', '.join(defined)}",
        )
    first = defined[0]
    if wanted is not None:
        console.warn(f"{classes.name}'s metric {classes.metric} is not defined for these data: {first} instead")
    return first


def _add_differences(outcomes: Sequence[Outcome], seed: int) -> None:
    """Give each of the model's results the difference to the baseline's; of an accuracy its interval too."""
    baselines = {outcome.lang: outcome for outcome in outcomes if outcome.role == "baseline"}
    for outcome in outcomes:
        if outcome.role != "model":
            continue
        base = baselines[outcome.lang]
        ours, theirs = outcome.result["metrics"], base.result["metrics"]
        difference: dict[str, Any] = {name: ours[name] - theirs[name] for name in ours if name in theirs}
        same = [item.id for item in outcome.answers.items] == [item.id for item in base.answers.items]
        if outcome.hits is not None and base.hits is not None and same:
            difference |= compare_hits(outcome.hits, base.hits, outcome.groups, seed=seed)
        outcome.result["baseline"] = {
            "model": base.result["model"],
            "pretrained": base.result["pretrained"],
            "metrics": theirs,
            "difference": difference,
        }
