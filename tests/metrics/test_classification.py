"""Accuracy, recall of classes, ROC AUC and confusions: of one label per image."""

from __future__ import annotations

import itertools
import math
import warnings
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from capivara_cli.metrics import classification as module
from capivara_cli.metrics.classification import (
    accuracy,
    confusions,
    mean_per_class_recall,
    per_class_recall,
    roc_auc,
)
from tests.metrics.small_tables import one_hot, tables, thorough, untied


def chance(scores: list[float], true: list[bool], k: int) -> Fraction:
    """Share of the orders of one image's classes, best first, with a true class among the first k: all are tried."""
    orders = [
        order
        for order in itertools.permutations(range(len(scores)))
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
    ]
    return Fraction(sum(any(true[item] for item in order[:k]) for order in orders), len(orders))


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
