"""Metrics of zero-shot classification, 0 to 1, higher is better, with ties that do not flatter.

`scores` are (N, C) real, images by classes: cosine similarities, of which two within `recall.TIE` tie. `truth` is
(N, C) bool: the classes of each image, single-label if exactly one a row. Every function raises ValueError for shapes
that do not fit and for a metric that the data do not define, and CapivaraError for scores that are not numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from capivara_cli.errors import CapivaraError
from capivara_cli.metrics.retrieval import TIE, Direction

BLOCK = 256  # images at once: with 1,000 classes a block and its masks are a few MB


def accuracy(scores: np.ndarray, truth: np.ndarray, k: int = 1) -> float:
    """Share of images with a true class among the k best. Ties count as the mean of all their orders."""
    return float(hits(scores, truth, k).mean())


def per_class_recall(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(C,) top-1 accuracy of each class's images, single-label; NaN for a class that has none."""
    _check(scores, truth, single_label=True)
    found = np.bincount(truth.argmax(axis=1), weights=hits(scores, truth, 1), minlength=truth.shape[1])
    images = truth.sum(axis=0)
    return np.divide(found, images, out=np.full(len(images), np.nan), where=images > 0)


def mean_per_class_recall(scores: np.ndarray, truth: np.ndarray) -> float:
    """Mean over the classes that occur, single-label: sklearn's `balanced_accuracy_score`, where nothing ties."""
    return float(np.nanmean(per_class_recall(scores, truth)))


def average_precision(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(C,) area under each class's precision-recall steps, as sklearn's; NaN for a class that no image has.

    Equal scores enter at one threshold: a constant gives the class's share of the images. There is no tolerance.
    """
    from sklearn.metrics import average_precision_score

    return _each_class(average_precision_score, scores, truth)


def mean_average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Mean `average_precision` over the classes that occur."""
    return _mean(average_precision(scores, truth))


def eleven_point_average_precision(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(C,) mean over r = 0, 0.1, ..., 1 of the largest precision at recall >= r; NaN for a class that no image has.

    PASCAL VOC 2007's metric (Everingham et al. 2010, section 4.2, doi 10.1007/s11263-009-0275-4).
    """
    return _each_class(_eleven_points, scores, truth)


def mean_eleven_point_average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Mean `eleven_point_average_precision` over the classes that occur."""
    return _mean(eleven_point_average_precision(scores, truth))


def roc_auc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Area under the ROC curve of score 1 - score 0, single-label; column 1 is positive, and both classes occur."""
    from sklearn.metrics import roc_auc_score

    _check(scores, truth, single_label=True)
    if truth.shape[1] != 2 or not truth.any(axis=0).all():
        raise ValueError(f"ROC AUC needs two classes that occur, not {truth.any(axis=0).sum()} of {truth.shape[1]}")
    return float(roc_auc_score(truth[:, 1], np.diff(scores.astype(np.float64), axis=1)[:, 0]))


def confusions(scores: np.ndarray, truth: np.ndarray, top: int = 10) -> list[tuple[int, int, int]]:
    """Most frequent single-label errors, (true class, predicted class, images): of equal scores, the first predicts."""
    _check(scores, truth, single_label=True)
    answers = np.stack([truth.argmax(axis=1), scores.argmax(axis=1)], axis=1)  # (N, 2)
    pairs, counts = np.unique(answers[answers[:, 0] != answers[:, 1]], axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:top]  # equal counts by class: `unique` has sorted the pairs
    return [(int(pairs[i, 0]), int(pairs[i, 1]), int(counts[i])) for i in order]


# Key in a result file -> metric; the first four keys are CLIP_benchmark's.
METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "acc1": accuracy,
    "acc5": partial(accuracy, k=5),
    "mean_per_class_recall": mean_per_class_recall,
    "mean_average_precision": mean_average_precision,
    "mean_average_precision_11_points": mean_eleven_point_average_precision,
    "roc_auc": roc_auc,
}


def metrics_for(scores: np.ndarray, truth: np.ndarray, single_label: bool) -> dict[str, float]:
    """The metrics that the data define, by their keys in METRICS: an undefined one is left out, never NaN."""
    _check(scores, truth, single_label)
    classes, seen = truth.shape[1], int(truth.any(axis=0).sum())
    if single_label:
        known = {"acc1": True, "acc5": classes >= 5, "mean_per_class_recall": True, "roc_auc": classes == seen == 2}
    else:
        known = dict.fromkeys(("mean_average_precision", "mean_average_precision_11_points"), seen > 0)
    return {name: metric(scores, truth) for name, metric in METRICS.items() if known.get(name)}


def hits(scores: np.ndarray, truth: np.ndarray, k: int) -> np.ndarray:
    """(N,) probability that a true class is among the k best: an image is a query, its classes the positives."""
    _check(scores, truth)
    shares = []
    for i in range(0, len(scores), BLOCK):
        block, true = scores[i : i + BLOCK], truth[i : i + BLOCK]
        best = np.where(true, block, -np.inf).max(axis=1, keepdims=True)  # (n, 1), -inf if none is true: a miss
        near = block >= best - TIE
        above, positives = np.count_nonzero(block > best + TIE, axis=1), np.count_nonzero(near & true, axis=1)
        shares.append(Direction(above, np.count_nonzero(near, axis=1) - above - positives, positives).hits(k))
    return np.concatenate(shares)


def _each_class(metric: Callable[..., float], scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    _check(scores, truth)
    return np.array([metric(truth[:, c], scores[:, c]) if truth[:, c].any() else np.nan for c in range(truth.shape[1])])


def _eleven_points(truth: np.ndarray, scores: np.ndarray) -> float:
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(truth, scores)
    # Counts and not recalls are compared: 3 of 10 is 0.3, and less than the 0.30000000000000004 of 3 * 0.1.
    positives = truth.sum()
    found = np.rint(recall[:-1] * positives)  # without sklearn's last point, precision 1 at recall 0, which is no data
    return float(np.mean([precision[:-1][found * 10 >= tenths * positives].max() for tenths in range(11)]))


def _mean(values: np.ndarray) -> float:
    if np.isnan(values).all():
        raise ValueError("no image belongs to any class")  # where numpy warns, and returns NaN
    return float(np.nanmean(values))


def _check(scores: np.ndarray, truth: np.ndarray, single_label: bool = False) -> None:
    if scores.ndim != 2 or scores.shape != truth.shape or truth.dtype != bool or not scores.size:
        raise ValueError(f"scores {scores.shape} and truth {truth.shape} {truth.dtype} are not (N, C) and (N, C) bool")
    if single_label and (wrong := int((truth.sum(axis=1) != 1).sum())):
        raise ValueError(f"{wrong:,} of {len(truth):,} images have not exactly one class")
    if bad := int((~np.isfinite(scores).all(axis=1)).sum()):  # comparing with a NaN is false: it would be the best
        hint = "the model has diverged, or --precision fp32 is needed"
        raise CapivaraError(f"the scores of {bad:,} of {len(scores):,} images are not numbers", hint)
