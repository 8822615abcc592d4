"""Average precision, of all thresholds and of eleven points."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given

from capivara_cli.metrics.classification import (
    average_precision,
    eleven_point_average_precision,
    mean_average_precision,
    mean_eleven_point_average_precision,
    metrics_for,
)
from tests.metrics.small_tables import columns, tables, thorough


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
