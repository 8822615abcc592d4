"""Metrics of zero-shot classification, 0 to 1, higher is better.

`scores` is (N, C) real, images x classes: cosine similarities. `truth` is (N, C) bool: the classes of each image. Data
are single-label if each row of `truth` has exactly one class, otherwise multi-label.

Accuracies and per-class recalls treat tied scores as if they were ordered at random: the value is the mean over all
orders, so a classifier that gives every class the same score gets chance accuracy. Scores that differ by at most
`retrieval.TIE` are tied. Average precision and ROC AUC are computed by scikit-learn, for which only equal scores are
tied; `confusions` takes the first of equal scores.

Every function raises ValueError for shapes that do not match and for a metric that is undefined for the data (ROC AUC
of three classes, for example), and CapivaraError for scores that are not finite.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from capivara_cli.errors import CapivaraError
from capivara_cli.metrics.retrieval import TIE, QueryRanks

IMAGES_PER_BLOCK = 256  # with 1,000 classes a block and its masks take a few MB


def accuracy(scores: np.ndarray, truth: np.ndarray, k: int = 1) -> float:
    """Top-k accuracy: the share of images with a true class among the k best scores."""
    return float(hits(scores, truth, k).mean())


def per_class_recall(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(C,) top-1 accuracy on the images of each class, single-label; NaN for a class without images."""
    _check(scores, truth, single_label=True)
    correct = np.bincount(truth.argmax(axis=1), weights=hits(scores, truth, 1), minlength=truth.shape[1])  # (C,)
    images = truth.sum(axis=0)  # (C,)
    return np.divide(correct, images, out=np.full(len(images), np.nan), where=images > 0)


def mean_per_class_recall(scores: np.ndarray, truth: np.ndarray) -> float:
    """Mean recall over the classes that occur, single-label.

    Without ties it equals sklearn's `balanced_accuracy_score`.
    """
    return float(np.nanmean(per_class_recall(scores, truth)))


def average_precision(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(C,) average precision of each class, as sklearn's; NaN for a class without images.

    Equal scores share one threshold, so a constant score gives the prevalence of the class. `TIE` is not used here.
    """
    from sklearn.metrics import average_precision_score

    return _per_class(average_precision_score, scores, truth)


def mean_average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Mean `average_precision` over the classes that occur."""
    return _mean(average_precision(scores, truth))


def eleven_point_average_precision(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(C,) mean over r = 0, 0.1, ..., 1 of the largest precision at recall >= r; NaN for a class without images.

    PASCAL VOC 2007's metric (Everingham et al. 2010, section 4.2, doi 10.1007/s11263-009-0275-4).
    """
    return _per_class(_eleven_points, scores, truth)


def mean_eleven_point_average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Mean `eleven_point_average_precision` over the classes that occur."""
    return _mean(eleven_point_average_precision(scores, truth))


def roc_auc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Area under the ROC curve, for two classes that both occur.

    Class 1 is the positive class. Images are ranked by `scores[:, 1] - scores[:, 0]`.
    """
    from sklearn.metrics import roc_auc_score

    _check(scores, truth, single_label=True)
    if truth.shape[1] != 2 or not truth.any(axis=0).all():
        raise ValueError(f"ROC AUC needs two classes that occur, not {truth.any(axis=0).sum()} of {truth.shape[1]}")
    return float(roc_auc_score(truth[:, 1], np.diff(scores.astype(np.float64), axis=1)[:, 0]))


def confusions(scores: np.ndarray, truth: np.ndarray, top: int = 10) -> list[tuple[int, int, int]]:
    """The most frequent errors, single-label: (true class, predicted class, number of images)."""
    _check(scores, truth, single_label=True)
    # A confusion needs one predicted class, so ties are not averaged here: argmax takes the first.
    true_and_predicted = np.stack([truth.argmax(axis=1), scores.argmax(axis=1)], axis=1)  # (N, 2)
    wrong = true_and_predicted[:, 0] != true_and_predicted[:, 1]  # (N,)
    pairs, counts = np.unique(true_and_predicted[wrong], axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:top]  # `unique` sorts the pairs: equal counts come in class order
    return [(int(pairs[i, 0]), int(pairs[i, 1]), int(counts[i])) for i in order]


# Key in a result file -> metric. The first four keys are CLIP_benchmark's.
METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "acc1": accuracy,
    "acc5": partial(accuracy, k=5),
    "mean_per_class_recall": mean_per_class_recall,
    "mean_average_precision": mean_average_precision,
    "mean_average_precision_11_points": mean_eleven_point_average_precision,
    "roc_auc": roc_auc,
}


def defined_metrics(classes: int, occurring: int, *, single_label: bool) -> list[str]:
    """Keys of the metrics that are defined for the data, in the order of METRICS.

    Args:
        classes: number of classes that can be predicted.
        occurring: number of classes that at least one image has.
        single_label: whether each image has exactly one class.
    """
    if single_label:
        two_classes = classes == occurring == 2
        defined = {"acc1": True, "acc5": classes >= 5, "mean_per_class_recall": True, "roc_auc": two_classes}
    else:
        defined = {"mean_average_precision": occurring > 0, "mean_average_precision_11_points": occurring > 0}
    return [key for key in METRICS if defined.get(key)]


def metrics_for(scores: np.ndarray, truth: np.ndarray, single_label: bool) -> dict[str, float]:
    """All metrics that are defined for the data, by their keys. An undefined metric is left out, never NaN."""
    _check(scores, truth, single_label)
    defined = defined_metrics(truth.shape[1], int(truth.any(axis=0).sum()), single_label=single_label)
    return {key: METRICS[key](scores, truth) for key in defined}


def hits(scores: np.ndarray, truth: np.ndarray, k: int) -> np.ndarray:
    """(N,) probability that a true class is among the k best, when ties are broken at random.

    As in retrieval: an image is a query, the classes are its items, and the true classes its positives.
    """
    _check(scores, truth)
    probabilities = []
    for start in range(0, len(scores), IMAGES_PER_BLOCK):
        rows = slice(start, start + IMAGES_PER_BLOCK)
        block, true = scores[rows], truth[rows]  # (n, C)
        # The best score of a true class, (n, 1). It is -inf if the image has no true class, which counts as a miss.
        best = np.where(true, block, -np.inf).max(axis=1, keepdims=True)
        near = block >= best - TIE  # (n, C), above the best positive or tied with it
        greater = np.count_nonzero(block > best + TIE, axis=1)  # (n,)
        positives = np.count_nonzero(near & true, axis=1)  # (n,)
        tied = np.count_nonzero(near, axis=1) - greater - positives  # (n,)
        probabilities.append(QueryRanks(greater, tied, positives).hits(k))
    return np.concatenate(probabilities)


def _per_class(metric: Callable[..., float], scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    _check(scores, truth)
    return np.array([metric(truth[:, c], scores[:, c]) if truth[:, c].any() else np.nan for c in range(truth.shape[1])])


def _eleven_points(truth: np.ndarray, scores: np.ndarray) -> float:
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(truth, scores)
    positives = truth.sum()
    # sklearn's last point (precision 1 at recall 0) is a convention and not measured: it is left out.
    retrieved = np.rint(recall[:-1] * positives)
    # Compare counts, not recalls: in floating point the recall 3 / 10 is less than the level 3 * 0.1.
    return float(np.mean([precision[:-1][retrieved * 10 >= tenths * positives].max() for tenths in range(11)]))


def _mean(values: np.ndarray) -> float:
    if np.isnan(values).all():
        raise ValueError("no image belongs to any class")  # numpy would only warn and return NaN
    return float(np.nanmean(values))


def _check(scores: np.ndarray, truth: np.ndarray, single_label: bool = False) -> None:
    if scores.ndim != 2 or scores.shape != truth.shape or truth.dtype != bool or not scores.size:
        raise ValueError(f"scores {scores.shape} and truth {truth.shape} {truth.dtype} are not (N, C) and (N, C) bool")
    if single_label and (wrong := int((truth.sum(axis=1) != 1).sum())):
        raise ValueError(f"{wrong:,} of {len(truth):,} images do not have exactly one class")
    # Comparisons with NaN are false: a NaN true class would be a miss, a NaN wrong class would never beat the true one.
    if bad := int((~np.isfinite(scores).all(axis=1)).sum()):
        hint = "the model has diverged, or --precision fp32 is needed"
        raise CapivaraError(f"{bad:,} of {len(scores):,} images have scores that are NaN or infinite", hint)
