from __future__ import annotations

import itertools
import math
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from capivara_cli.errors import CapivaraError
from capivara_cli.metrics import classification as module
from capivara_cli.metrics.classification import (
    METRICS,
    accuracy,
    average_precision,
    confusions,
    eleven_point_average_precision,
    mean_average_precision,
    mean_eleven_point_average_precision,
    mean_per_class_recall,
    metrics_for,
    per_class_recall,
    roc_auc,
)

SEVERAL = ["mean_average_precision", "mean_average_precision_11_points"]

thorough = settings(deadline=None, max_examples=60, database=None)


def one_hot(labels: list[int], classes: int) -> np.ndarray:
    return np.array(labels)[:, None] == np.arange(classes)


def columns(*classes: list[float]) -> np.ndarray:
    return np.array(classes, dtype=np.float64).T


def chance(scores: list[float], true: list[bool], k: int) -> Fraction:
    """Share of the orders of one image's classes, best first, with a true class among the first k: all are tried."""
    orders = [
        order
        for order in itertools.permutations(range(len(scores)))
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
    ]
    return Fraction(sum(any(true[item] for item in order[:k]) for order in orders), len(orders))


def naive_points(scores: list[float], true: list[bool]) -> list[tuple[Fraction, Fraction]]:
    """(recall, precision) when everything from a threshold up is retrieved, highest threshold first."""
    points = []
    for threshold in sorted(set(scores), reverse=True):
        retrieved = [relevant for score, relevant in zip(scores, true, strict=True) if score >= threshold]
        points.append((Fraction(sum(retrieved), sum(true)), Fraction(sum(retrieved), len(retrieved))))
    return points


def naive_average_precision(scores: list[float], true: list[bool]) -> float:
    """Precision at the threshold of each positive, averaged over the positives."""
    points = naive_points(scores, true)
    thresholds = sorted(set(scores), reverse=True)
    at = [points[thresholds.index(score)][1] for score, relevant in zip(scores, true, strict=True) if relevant]
    return float(sum(at) / len(at))


def naive_eleven_points(scores: list[float], true: list[bool]) -> float:
    """Equations 1 and 2 of Everingham et al. 2010, in exact fractions."""
    points = naive_points(scores, true)
    levels = [Fraction(tenths, 10) for tenths in range(11)]
    return float(sum(max(p for recall, p in points if recall >= level) for level in levels) / 11)


@st.composite
def tables(draw: st.DrawFn, single_label: bool, classes: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Scores that are small integers and often tie, and the truth."""
    images, classes = draw(st.integers(1, 12)), classes or draw(st.integers(1, 5))
    scores = draw(arrays(np.int64, (images, classes), elements=st.integers(-3, 3))).astype(np.float32) / 8
    if single_label:
        labels = draw(st.lists(st.integers(0, classes - 1), min_size=images, max_size=images))
        return scores, one_hot(labels, classes)
    return scores, draw(arrays(np.bool_, (images, classes)))


def untied(images: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = rng.permuted(np.linspace(-1, 1, images * classes)).reshape(images, classes)
    return scores, one_hot(rng.integers(0, classes, images).tolist(), classes)


# Accuracy


@pytest.mark.parametrize(("k", "share"), [(1, 1 / 4), (2, 1 / 2), (3, 1), (9, 1)])
def test_accuracy_of_a_known_table(k: int, share: float) -> None:
    scores = np.array([[0.9, 0.1, 0.2], [0.3, 0.2, 0.1], [0.3, 0.2, 0.1], [0.5, 0.6, 0.7]])
    assert accuracy(scores, one_hot([0, 2, 1, 0], 3), k) == pytest.approx(share)  # true classes are at 1, 3, 2, 3


@thorough
@given(tables(single_label=False), st.integers(1, 6))
def test_accuracy_is_the_mean_over_all_orders_of_tied_classes(case: tuple[np.ndarray, np.ndarray], k: int) -> None:
    scores, truth = case
    expected = [chance(row, true, k) for row, true in zip(scores.tolist(), truth.tolist(), strict=True)]
    assert accuracy(scores, truth, k) == pytest.approx(float(sum(expected) / len(expected)), abs=1e-12)


@pytest.mark.parametrize("k", [1, 2, 3, 6])
def test_accuracy_without_ties_is_that_of_sklearn(k: int) -> None:
    scores, truth = untied(300, 7, seed=k)
    expected = sklearn.metrics.top_k_accuracy_score(truth.argmax(axis=1), scores, k=k, labels=np.arange(7))
    assert accuracy(scores, truth, k) == pytest.approx(expected)


@pytest.mark.parametrize("classes", [5, 10, 1000])
def test_constant_scores_are_as_accurate_as_chance(classes: int) -> None:
    truth = one_hot([0, 0, classes - 1, 3], classes)
    for k in (1, 5):
        assert accuracy(np.full(truth.shape, 0.3), truth, k) == pytest.approx(k / classes)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rounding_is_a_tie_and_a_real_difference_is_none(dtype: type[np.floating]) -> None:
    noise = np.array([[0.25, 0.25 * (1 + 4 * np.finfo(np.float32).eps)]]).astype(dtype)
    assert accuracy(noise, one_hot([0], 2)) == accuracy(noise, one_hot([1], 2)) == 0.5
    assert accuracy(np.array([[0.25, 0.2505]]).astype(dtype), one_hot([0], 2)) == 0


@pytest.mark.parametrize("block", [1, 7, 100, 1000])
def test_the_result_does_not_depend_on_the_block(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scores, truth = untied(100, 5, seed=0)
    expected = accuracy(scores, truth, 2), mean_per_class_recall(scores, truth)
    monkeypatch.setattr(module, "IMAGES_PER_BLOCK", block)
    assert (accuracy(scores, truth, 2), mean_per_class_recall(scores, truth)) == expected


# Recall of classes


def test_recall_of_each_class_of_a_known_table() -> None:
    scores = np.array([[0.9, 0.1, 0.0], [0.1, 0.9, 0.0], [0.5, 0.5, 0.0], [0.2, 0.7, 0.1]])
    truth = one_hot([0, 0, 0, 1], 3)
    np.testing.assert_allclose(per_class_recall(scores, truth), [(1 + 0 + 1 / 2) / 3, 1, np.nan])
    assert mean_per_class_recall(scores, truth) == pytest.approx(3 / 4)


@thorough
@given(tables(single_label=True))
def test_recall_of_each_class_is_that_of_counting_one_by_one(case: tuple[np.ndarray, np.ndarray]) -> None:
    scores, truth = case
    by_class: dict[int, list[Fraction]] = {}
    for row, true in zip(scores.tolist(), truth.tolist(), strict=True):
        by_class.setdefault(true.index(True), []).append(chance(row, true, 1))
    means = {label: float(sum(shares) / len(shares)) for label, shares in by_class.items()}
    recalls = per_class_recall(scores, truth)
    np.testing.assert_allclose(recalls, [means.get(label, math.nan) for label in range(truth.shape[1])], atol=1e-12)
    assert mean_per_class_recall(scores, truth) == pytest.approx(sum(means.values()) / len(means))


@pytest.mark.parametrize("seed", range(5))
def test_mean_recall_without_ties_is_the_balanced_accuracy_of_sklearn(seed: int) -> None:
    scores, truth = untied(60, 8, seed)
    truth[:, [0, 1]] = np.stack([truth[:, 0] | truth[:, 1], np.zeros(60, dtype=bool)], axis=1)  # class 1 is nobody's
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "y_pred contains classes not in y_true")
        expected = sklearn.metrics.balanced_accuracy_score(truth.argmax(axis=1), scores.argmax(axis=1))
    assert mean_per_class_recall(scores, truth) == pytest.approx(expected)


# Average precision


def test_average_precision_of_a_known_table() -> None:
    # The positives of class 0 come first and third; class 1 ties all three images; nothing belongs to class 2.
    scores = columns([0.9, 0.8, 0.7], [0.5, 0.5, 0.5], [0.1, 0.2, 0.3])
    truth = columns([1, 0, 1], [0, 1, 0], [0, 0, 0]).astype(bool)
    np.testing.assert_allclose(average_precision(scores, truth), [(1 + 2 / 3) / 2, 1 / 3, np.nan])
    assert mean_average_precision(scores, truth) == pytest.approx((5 / 6 + 1 / 3) / 2)
    # Recall 1/2 at precision 1 for r = 0 to 0.5, then recall 1 at precision 2/3 for the other five.
    np.testing.assert_allclose(eleven_point_average_precision(scores, truth), [(6 + 5 * 2 / 3) / 11, 1 / 3, np.nan])
    assert mean_eleven_point_average_precision(scores, truth) == pytest.approx(((6 + 10 / 3) / 11 + 1 / 3) / 2)


@thorough
@given(tables(single_label=False))
def test_average_precisions_are_those_of_their_definitions(case: tuple[np.ndarray, np.ndarray]) -> None:
    scores, truth = case
    pairs = list(zip(scores.T.tolist(), truth.T.tolist(), strict=True))
    for metric, naive in (
        (average_precision, naive_average_precision),
        (eleven_point_average_precision, naive_eleven_points),
    ):
        np.testing.assert_allclose(
            metric(scores, truth), [naive(*pair) if any(pair[1]) else math.nan for pair in pairs], atol=1e-12
        )


@pytest.mark.parametrize("seed", range(3))
def test_mean_average_precision_is_that_of_sklearn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, truth = rng.standard_normal((80, 6)).round(1), rng.random((80, 6)) < 0.3
    assert mean_average_precision(scores, truth) == pytest.approx(
        sklearn.metrics.average_precision_score(truth, scores, average="macro")
    )


@pytest.mark.parametrize("positives", [3, 7, 10, 30, 49, 90, 170])
def test_a_recall_that_is_a_tenth_counts_for_that_tenth(positives: int) -> None:
    """One negative after every positive: each level's precision is at the first positive that reaches it."""
    true = [True, False] * positives
    scores = list(np.linspace(1, 0, len(true)))
    (value,) = eleven_point_average_precision(columns(scores), columns([float(x) for x in true]).astype(bool))
    assert value == pytest.approx(naive_eleven_points(scores, true), abs=1e-12)


def test_precision_at_recall_zero_is_measured_and_not_assumed_to_be_one() -> None:
    scores, truth = columns([0.9, 0.8, 0.7, 0.6]), columns([0, 0, 0, 1]).astype(bool)
    assert eleven_point_average_precision(scores, truth).tolist() == pytest.approx([1 / 4])


# ROC AUC


def test_roc_auc_of_a_known_table() -> None:
    # Differences 0.75, 0.25, 0.25, -0.5: the positive loses against the first, ties, and wins.
    scores = np.array([[0.125, 0.875], [0.25, 0.5], [0.25, 0.5], [1.0, 0.5]])
    assert roc_auc(scores, one_hot([0, 1, 0, 0], 2)) == pytest.approx((0 + 0.5 + 1) / 3)


@thorough
@given(tables(single_label=True, classes=2))
def test_roc_auc_is_the_share_of_pairs_in_the_right_order(case: tuple[np.ndarray, np.ndarray]) -> None:
    scores, truth = case
    sides: tuple[list[float], list[float]] = ([], [])
    for (first, second), (_, positive) in zip(scores.tolist(), truth.tolist(), strict=True):
        sides[positive].append(second - first)
    pairs = list(itertools.product(*sides))
    if not pairs:
        with pytest.raises(ValueError, match="two classes that occur, not 1 of 2"):
            roc_auc(scores, truth)
        return
    won = sum(1.0 if positive > negative else 0.5 if positive == negative else 0.0 for negative, positive in pairs)
    assert roc_auc(scores, truth) == pytest.approx(won / len(pairs), abs=1e-12)


@pytest.mark.parametrize("classes", [1, 3])
def test_roc_auc_is_that_of_two_classes(classes: int) -> None:
    with pytest.raises(ValueError, match=f"not {classes} of {classes}"):
        roc_auc(np.zeros((3, classes)), one_hot([number % classes for number in range(3)], classes))


# All metrics


@pytest.mark.parametrize(("classes", "names"), [(2, {"roc_auc"}), (3, set()), (4, set()), (5, {"acc5"})])
def test_a_perfect_classifier_has_every_metric_at_one(classes: int, names: set[str]) -> None:
    truth = one_hot([*range(classes), 0], classes)
    scores = truth.astype(np.float32)
    assert metrics_for(scores, truth, True) == dict.fromkeys({"acc1", "mean_per_class_recall"} | names, 1.0)
    assert metrics_for(scores, truth, False) == dict.fromkeys(SEVERAL, 1.0)
    assert per_class_recall(scores, truth).tolist() == [1.0] * classes
    assert confusions(scores, truth) == []


def test_a_constant_classifier_has_every_metric_at_chance() -> None:
    truth = one_hot([0, 0, 0, 1, 2, 3, 4, 5, 6, 7], 10)  # two classes do not occur
    single = metrics_for(np.zeros(truth.shape), truth, True)
    assert single == pytest.approx({"acc1": 0.1, "acc5": 0.5, "mean_per_class_recall": 0.1})
    prevalence = (0.3 + 7 * 0.1) / 8
    assert metrics_for(np.zeros(truth.shape), truth, False) == pytest.approx(dict.fromkeys(SEVERAL, prevalence))
    two = metrics_for(np.zeros((3, 2)), one_hot([0, 0, 1], 2), True)
    assert two == {"acc1": 0.5, "mean_per_class_recall": 0.5, "roc_auc": 0.5}


@thorough
@given(st.booleans().flatmap(lambda single: st.tuples(tables(single_label=single), st.just(single))))
def test_metrics_are_complete_in_order_and_numbers(case: tuple[tuple[np.ndarray, np.ndarray], bool]) -> None:
    (scores, truth), single = case
    metrics = metrics_for(scores, truth, single)
    assert list(metrics) == [name for name in METRICS if name in metrics]
    assert all(type(value) is float and 0 <= value <= 1 for value in metrics.values())
    if single:
        expected = {"acc1", "mean_per_class_recall"}
        expected |= {"acc5"} if truth.shape[1] == 5 else set()
        expected |= {"roc_auc"} if truth.shape[1] == 2 and truth.any(axis=0).all() else set()
    else:
        expected = set(SEVERAL) if truth.any() else set()
    assert set(metrics) == expected
    assert metrics == {name: METRICS[name](scores, truth) for name in metrics}


def test_the_keys_name_their_metrics() -> None:
    scores, truth = untied(40, 6, seed=1)
    assert {name: METRICS[name](scores, truth) for name in METRICS if name != "roc_auc"} == {
        "acc1": accuracy(scores, truth, 1),
        "acc5": accuracy(scores, truth, 5),
        "mean_per_class_recall": mean_per_class_recall(scores, truth),
        "mean_average_precision": mean_average_precision(scores, truth),
        "mean_average_precision_11_points": mean_eleven_point_average_precision(scores, truth),
    }
    assert METRICS["roc_auc"](scores[:, :2], one_hot([0, 1] * 20, 2)) == roc_auc(scores[:, :2], one_hot([0, 1] * 20, 2))


# Confusions


def test_confusions_of_a_known_table() -> None:
    predicted = [1, 1, 0, 2, 2, 0, 2]
    truth = one_hot([0, 0, 1, 1, 1, 2, 2], 3)
    scores = one_hot(predicted, 3).astype(float)
    assert confusions(scores, truth) == [(0, 1, 2), (1, 2, 2), (1, 0, 1), (2, 0, 1)]
    assert confusions(scores, truth, top=1) == [(0, 1, 2)]


def test_confusions_of_equal_count_are_in_the_order_of_their_classes() -> None:
    pairs = [(true, wrong) for true, wrong in itertools.product(range(30), repeat=2) if true != wrong]
    shuffled = np.random.default_rng(0).permutation([*pairs, *pairs[500:]])  # the later pairs twice
    scores, truth = (one_hot(shuffled[:, side].tolist(), 30) for side in (1, 0))
    expected = [(*pair, 2) for pair in pairs[500:]] + [(*pair, 1) for pair in pairs[:500]]
    assert confusions(scores.astype(float), truth, top=1000) == expected


@thorough
@given(tables(single_label=True), st.integers(0, 5))
def test_confusions_are_those_of_counting_one_by_one(case: tuple[np.ndarray, np.ndarray], top: int) -> None:
    scores, truth = case
    counts: Counter[tuple[int, int]] = Counter()
    for row, true in zip(scores.tolist(), truth.tolist(), strict=True):
        if row.index(max(row)) != true.index(True):
            counts[true.index(True), row.index(max(row))] += 1
    expected = sorted((-count, *pair) for pair, count in counts.items())[:top]
    assert confusions(scores, truth, top) == [(true, wrong, -negative) for negative, true, wrong in expected]


# What does not fit


@pytest.mark.parametrize("metric", [*METRICS.values(), confusions, per_class_recall])
@pytest.mark.parametrize(
    ("scores", "truth"),
    [
        (np.zeros((2, 2)), np.eye(3, dtype=bool)),
        (np.zeros(2), np.ones(2, dtype=bool)),
        (np.zeros((2, 2)), np.eye(2, dtype=int)),
        (np.zeros((0, 2)), np.zeros((0, 2), dtype=bool)),
        (np.zeros((2, 0)), np.zeros((2, 0), dtype=bool)),
    ],
)
def test_shapes_and_types_that_do_not_fit_are_refused(
    metric: Callable[[np.ndarray, np.ndarray], object], scores: np.ndarray, truth: np.ndarray
) -> None:
    with pytest.raises(ValueError, match=r"are not \(N, C\)"):
        metric(scores, truth)


@pytest.mark.parametrize("metric", [per_class_recall, mean_per_class_recall, confusions, roc_auc])
@pytest.mark.parametrize("row", [[True, True], [False, False]])
def test_several_labels_or_none_are_refused_where_there_has_to_be_one(
    metric: Callable[[np.ndarray, np.ndarray], object], row: list[bool]
) -> None:
    truth = np.array([row, [True, False], [False, True]])
    with pytest.raises(ValueError, match="1 of 3 images do not have exactly one class"):
        metric(np.zeros((3, 2)), truth)
    with pytest.raises(ValueError, match="exactly one"):
        metrics_for(np.zeros((3, 2)), truth, True)


@pytest.mark.parametrize("metric", [mean_average_precision, mean_eleven_point_average_precision])
def test_a_mean_over_no_class_is_refused_and_left_out(
    metric: Callable[[np.ndarray, np.ndarray], float],
) -> None:
    nothing = np.zeros((2, 3), dtype=bool)
    assert np.isnan(average_precision(np.zeros((2, 3)), nothing)).all()
    assert np.isnan(eleven_point_average_precision(np.zeros((2, 3)), nothing)).all()
    with pytest.raises(ValueError, match="no image belongs to any class"):
        metric(np.zeros((2, 3)), nothing)
    assert metrics_for(np.zeros((2, 3)), nothing, False) == {}


@pytest.mark.parametrize("metric", [*METRICS.values(), confusions])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_that_are_no_numbers_are_refused_and_not_ranked_first(
    metric: Callable[[np.ndarray, np.ndarray], object], value: float
) -> None:
    scores = np.zeros((4, 2), dtype=np.float32)
    scores[2, 1] = value
    with pytest.raises(CapivaraError, match="1 of 4 images have scores that are NaN or infinite"):
        metric(scores, one_hot([0, 1, 0, 1], 2))


def test_a_large_table_is_scored_in_blocks_with_little_memory() -> None:
    scores = np.random.default_rng(0).standard_normal((20_000, 200), dtype=np.float32)
    truth = one_hot((np.arange(20_000) % 200).tolist(), 200)
    tracemalloc.start()
    try:
        metrics_for(scores, truth, True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < scores.nbytes / 2
