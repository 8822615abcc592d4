"""What a zero-shot classification compares: classes, prompts and main metric per language, the same for every model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from capivara_cli import console
from capivara_cli.data import class_forms
from capivara_cli.data.class_sets import METRIC_KEYS, ClassSet, Names, class_indices, first_ten, shared_names
from capivara_cli.data.labelled import LabelledData
from capivara_cli.errors import CapivaraError
from capivara_cli.metrics.classification import defined_metrics

FEW_CLASSES = 100  # Babel-ImageNet (Geigle et al. 2023) leaves out languages with fewer: their figures say little
DEFAULT_TEMPLATES: dict[str, tuple[str, ...]] = {
    "en": ("a photo of a {c}.",),
    "pt": ("uma foto de {c}.",),
    "hi": ("चित्र: {c}।",),
    "xh": ("umfanekiso: {c}.",),
}
"""Templates for class sets without any. In other languages the prompt is the bare name."""
MULTILABEL_METRICS = ("map", "map11")


@dataclass(frozen=True)
class ClassTask:
    """The classification in one language.

    Attributes:
        class_set: name of the class set.
        class_ids: indices in the class set of the C classes that have a name in the language.
        labels: labels of these classes.
        names: the first name of each class.
        prompts: all prompts of each class.
        multilabel: whether images may have several classes, or none.
        metric: key of the main metric.
        templates: number of templates, or "by class" for prompts by class; for the signature.
    """

    class_set: str
    lang: str
    class_ids: list[int]
    labels: list[str]
    names: list[str]
    prompts: list[list[str]]
    multilabel: bool
    metric: str
    templates: int | str


def choose_classes(
    source: str | None, templates: str | None, langs: Sequence[str], data: LabelledData, name: str
) -> ClassSet:
    """Return the class set with names and templates in all languages.

    Args:
        source: value of `--classes`; None uses the labels of the data as names, in English.
        templates: file that replaces the set's templates.
        name: name of the class set if it is made from the labels.
    """
    classes = class_forms.load(source) if source is not None else _labels_as_names(langs, data, name)
    if "" in classes.names and len(langs) > 1:
        raise CapivaraError(
            f"{source} does not say the language of its names", "one --lang at a time, or a file with names by language"
        )
    if templates is not None:
        classes = class_forms.with_templates(classes, templates, langs)
    expected = bool(classes.templates or classes.prompts)
    for lang in langs:
        for class_name, label, other in shared_names(classes, lang)[:10]:
            console.warn(f"{label} and {other} have the same name in {lang}: {class_name}")
        if not classes.has_templates(lang):
            default = DEFAULT_TEMPLATES.get(lang.partition("-")[0].lower(), ("{c}",))
            if expected:
                console.warn(f"{classes.name} has no templates in {lang}: using {' '.join(default)}")
            classes = replace(classes, templates={**classes.templates, lang: default})
    if len(classes.labels) == 1:
        console.warn(f"{classes.name} has only one class, {classes.labels[0]}: every prediction is correct")
    return classes


def _labels_as_names(langs: Sequence[str], data: LabelledData, name: str) -> ClassSet:
    labels = tuple(sorted({*data.labels, *data.empty_folders}))
    if others := [lang for lang in langs if lang.partition("-")[0].lower() != "en"]:
        raise CapivaraError(
            f"no names of the classes {first_ten(labels)} in {', '.join(others)}",
            "--classes FILE with the names, or --classes NAME: capivara classify-eval --list shows the sets",
        )
    console.say("using the labels as the names of the classes; --classes NAME|FILE takes better ones")
    names: Names = {label: (label.replace("_", " "),) for label in labels}
    return ClassSet(name, labels, {"en": names}, source="labels")


def match_labels(data: LabelledData, classes: ClassSet) -> list[list[int]]:
    """Return the class indices of each image. Raises CapivaraError when no label belongs to a class."""
    indices = class_indices(classes, dict.fromkeys(data.labels))
    unknown = Counter(label for label in data.labels if indices[label] is None)
    if len(unknown) == len(indices):
        raise CapivaraError(
            f"none of the labels in the data is one of {classes.name}'s: {first_ten(indices)}",
            f"its labels: {first_ten(classes.labels)}",
        )
    if unknown:
        console.warn(
            f"{console.counted(unknown.total(), 'label')} not of {classes.name}; an image without another label is left"
            f" out: {first_ten(unknown)}"
        )
    used = set(indices.values())
    empty = [label for index, label in enumerate(classes.labels) if index not in used]
    if empty:
        console.warn(
            f"{len(empty):,} of {len(classes.labels):,} classes have no image and can only be wrong predictions:"
            f" {first_ten(empty)}"
        )
    return [_without_none(indices[label] for label in image.labels) for image in data.images]


def _without_none(values: Iterable[int | None]) -> list[int]:
    return [value for value in values if value is not None]


def make_task(
    classes: ClassSet, lang: str, metric: str, image_classes: Sequence[Sequence[int]], *, multilabel: bool
) -> ClassTask:
    """Return the task in a language.

    Args:
        metric: `auto` or a key of METRIC_KEYS.
        image_classes: class indices of each image.
        multilabel: whether images have several classes, or none.

    Raises:
        CapivaraError: no image is of a class with a name in the language, or the data do not define the metric.
    """
    names = classes.names_in(lang)
    class_ids = [index for index, label in enumerate(classes.labels) if label in names]
    labels = [classes.labels[index] for index in class_ids]
    named = set(class_ids)
    seen = {index for indices in image_classes for index in indices} & named
    if not seen:
        raise CapivaraError(f"no image is of a class with a name in {lang}", "--classes FILE with more names")
    multilabel = multilabel or (classes.metric if metric == "auto" else metric) in MULTILABEL_METRICS
    if nameless := [label for label in classes.labels if label not in names]:
        lost = 0 if multilabel else sum(bool(indices) and named.isdisjoint(indices) for indices in image_classes)
        left_out = f"; {lost:,} images are left out" if lost else ""
        missing = f"{len(nameless):,} of {len(classes.labels):,} classes have no name in {lang} ({first_ten(nameless)})"
        console.warn(missing + left_out)
        if len(labels) < FEW_CLASSES:
            console.warn(
                f"{len(labels)} classes are too few to trust: figures in {lang} say little about the whole set"
            )
    defined = defined_metrics(len(labels), len(seen), single_label=not multilabel)
    return ClassTask(
        classes.name,
        lang,
        class_ids,
        labels,
        [names[label][0] for label in labels],
        [classes.prompts_of(label, lang) for label in labels],
        multilabel,
        _main_metric(metric, classes, defined),
        "by class" if classes.has_prompts(lang) else len(classes.templates_in(lang)),
    )


def _main_metric(metric: str, classes: ClassSet, defined: Sequence[str]) -> str:
    """Return the key of `--metric`, of the class set's metric, or of the first that is defined."""
    key = METRIC_KEYS.get(metric if metric != "auto" else classes.metric or "")
    if key is not None and key in defined:
        return key
    if metric != "auto":
        reasons = {
            "acc5": "there are fewer than five classes, or images with several labels",
            "roc_auc": "it needs two classes, and images of both",
        }
        raise CapivaraError(
            f"--metric {metric} is not defined here: {reasons.get(metric, 'images have several labels')}",
            f"--metric auto; defined are {', '.join(defined)}",
        )
    if key is not None:
        console.warn(f"{classes.name}'s metric {classes.metric} is not defined for these data: using {defined[0]}")
    return defined[0]
