"""`classify-eval`: zero-shot classification on any class set, in any language, of one model or against a baseline."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capivara_cli import artifacts, files, interrupts
from capivara_cli.data import labelled
from capivara_cli.data.labelled import LabelledData
from capivara_cli.data.readers.options import ReaderOptions
from capivara_cli.errors import CapivaraError
from capivara_cli.evaluation import tables
from capivara_cli.evaluation.class_task import ClassTask, choose_classes, make_task, match_labels
from capivara_cli.evaluation.images import embed_images
from capivara_cli.evaluation.options import ClassifyOptions
from capivara_cli.evaluation.results import (
    ClassificationResult,
    check_outputs,
    compare_with_baseline,
    dataset_name,
    make_content,
    write_lines,
    write_per_class,
    write_results,
)
from capivara_cli.metrics import classification as metrics
from capivara_cli.models import checkpoint
from capivara_cli.models.clip import Clip
from capivara_cli.models.cut_texts import CutTexts
from capivara_cli.models.spec import ModelSpec, with_baseline
from capivara_cli.runtime import Runtime

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")  # the form of a BCP-47 code


def classify_eval(
    data: Sequence[str | Path], options: ClassifyOptions, output: str | Path | None = None
) -> list[dict[str, Any]]:
    """Measure classification, show the table, and return the results: those of the model, then those of the baseline.

    Args:
        data: images with labels: class folders, JSONL files, shards with `.cls`, tables, or `-`.
        options: see `ClassifyOptions`.
        output: result file. Several languages and the baseline get files of their own; `-` is standard output.

    Returns:
        What the result files hold.

    Raises:
        CapivaraError: data without labels or readable images, classes without names in a language, a metric that the
            data do not define, a model or an adapter that cannot be loaded, or a file that cannot be written.
    """
    sources = list(map(str, data))
    options = options.replace(lang=_langs(options.lang))
    path = Path(output) if output is not None else None
    models = with_baseline(ModelSpec.pick(options.model, options.pretrained, options.adapter), options.baseline)
    class_files = [name.partition("#")[0] for name in (options.classes, options.templates) if name]
    others = {
        "--predictions": (options.predictions, files.QUERIES),
        "--per-class": (options.per_class, files.PER_CLASS),
    }
    check_outputs([*sources, *class_files], options, [role for role, _ in models], path, others)
    images = labelled.read(sources, ReaderOptions(images=options.images, split=options.split, labels=True))
    classes = choose_classes(options.classes, options.templates, options.lang, images, dataset_name(sources))
    image_classes = match_labels(images, classes)
    tasks = [
        make_task(classes, lang, options.metric, image_classes, multilabel=images.multilabel) for lang in options.lang
    ]
    interrupts.note("no result was written; embeddings of images are kept: run the same command again")
    runtime = Runtime.start(options.device, options.precision, options.seed)
    results: list[ClassificationResult] = []
    for role, spec in models:
        clip = checkpoint.load(spec, runtime, role=role, verify_cache=options.verify_cache)
        results += _evaluate(clip, role, images, image_classes, tasks, sources)
    compare_with_baseline(results, options.seed)
    contents = [result.content for result in results]
    if runtime.is_main:
        tables.show(contents)
        write_results(contents, path)
        write_lines(results, options.predictions)
        write_per_class(results, options.per_class)
    return contents


def _langs(codes: Sequence[str]) -> list[str]:
    if not codes:
        raise CapivaraError("--lang LANG is missing", "--lang en --lang hi")
    for code in codes:
        if not LANGUAGE.fullmatch(code):
            raise CapivaraError(f"--lang {code}: not a language code", "BCP-47: hi, pt-BR")
    # `hi` and `HI` are one language, and on some systems their result files would be one file.
    return list({code.casefold(): code for code in codes}.values())


def _evaluate(
    clip: Clip,
    role: str,
    data: LabelledData,
    image_classes: Sequence[Sequence[int]],
    tasks: Sequence[ClassTask],
    sources: Sequence[str],
) -> Iterator[ClassificationResult]:
    """Yield the model's result in each language; the images are encoded once."""
    import numpy as np

    table, readable, _ = embed_images(clip, role, [image.image for image in data.images], data.rejected)
    for task in tasks:
        columns = {class_id: i for i, class_id in enumerate(task.class_ids)}
        truth = np.zeros((len(readable), len(columns)), bool)
        for row, index in enumerate(readable):
            truth[row, [columns[class_id] for class_id in image_classes[index] if class_id in columns]] = True
        if not truth.any():
            raise CapivaraError(f"none of the readable images belongs to a class with a name in {task.lang}")
        # Multi-label: an image of no class is a negative of every class. Single-label: it cannot be scored.
        rows = np.arange(len(readable)) if task.multilabel else np.flatnonzero(truth.any(axis=1))
        truth = truth[rows]  # (N, C)
        scores = (table.take(rows) @ class_weights(clip, task.prompts).T).numpy()  # (N, C)
        rejected = len(data.images) + len(data.rejected) - len(rows)
        content = _content(clip, role, task, sources, scores, truth, rejected)
        cut = CutTexts.of(clip, itertools.chain.from_iterable(task.prompts))
        content["cut_texts"] = cut.content()
        if role == "model":
            cut.warn(f"prompts in {task.lang}")
        images = [data.images[readable[row]] for row in rows]
        yield ClassificationResult.from_scores(content, images, task.labels, scores, truth)


def class_weights(clip: Clip, prompts: Sequence[Sequence[str]]) -> Tensor:
    """Return the (C, D) float32 weights: per class the mean of its prompts' normalised embeddings, normalised again.

    The same weights as those of open_clip's `build_zero_shot_classifier`, but each distinct prompt is encoded once, in
    a batch of prompts of its length.
    """
    import torch

    distinct = list(dict.fromkeys(prompt for class_prompts in prompts for prompt in class_prompts))
    row = {prompt: i for i, prompt in enumerate(distinct)}
    features = clip.encode_texts(distinct)  # (P, D)
    means = [features[[row[prompt] for prompt in class_prompts]].mean(dim=0) for class_prompts in prompts]  # C x (D,)
    return torch.nn.functional.normalize(torch.stack(means), dim=-1)


def _content(
    clip: Clip,
    role: str,
    task: ClassTask,
    sources: Sequence[str],
    scores: np.ndarray,
    truth: np.ndarray,
    rejected: int,
) -> dict[str, Any]:
    """Return the content of the result file for (N, C) scores, (N, C) bool truth and a number of images left out."""
    single_label = not task.multilabel
    values = metrics.metrics_for(scores, truth, single_label)
    # A metric that is defined for all images may be undefined for the readable ones.
    main = task.metric if task.metric in values else next(iter(values))
    settings = {
        "classes": f"{task.class_set}:{len(task.labels)}",
        "templates": task.templates,
        "prompts": artifacts.fingerprint(task.prompts)[:12],
        "images": len(truth),
        "metric": main,
    }
    counts = {"main_metric": main, "n": len(truth), "n_classes": len(task.labels), "n_rejected": rejected}
    result = make_content(clip, role, sources, task.lang, "classification", values, counts, settings)
    if single_label:
        result["confusions"] = [
            {"label": task.names[true], "predicted": task.names[predicted], "images": images}
            for true, predicted, images in metrics.confusions(scores, truth)
        ]
    per_class = metrics.per_class_recall(scores, truth) if single_label else metrics.average_precision(scores, truth)
    result["per_class"] = [
        {
            "label": label,
            "name": name,
            "images": int(images),
            ("recall" if single_label else "average_precision"): float(value) if images else None,
        }
        for label, name, images, value in zip(task.labels, task.names, truth.sum(axis=0), per_class, strict=True)
    ]
    return result
