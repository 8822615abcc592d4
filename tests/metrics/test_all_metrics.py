"""What holds for all metrics of classification: their names, their bounds, and what they refuse."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capivara_cli.errors import CapivaraError
from capivara_cli.metrics.classification import (
    METRICS,
    accuracy,
    confusions,
    mean_average_precision,
    mean_eleven_point_average_precision,
    mean_per_class_recall,
    metrics_for,
    per_class_recall,
    roc_auc,
)
from tests.metrics.small_tables import one_hot, tables, thorough, untied

SEVERAL = ["mean_average_precision", "mean_average_precision_11_points"]


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
