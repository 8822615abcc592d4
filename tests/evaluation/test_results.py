"""What a result says about the difference to a baseline."""

from __future__ import annotations

import numpy as np
import pytest

from capivara_cli.data.images import ImageRef
from capivara_cli.data.labelled import LabelledImage
from capivara_cli.evaluation.results import ClassificationResult
from capivara_cli.metrics.classification import METRICS


def result(main: str, right: list[int]) -> ClassificationResult:
    """Of 40 images of class 0 and 4 of class 1, of which a model gets so many right."""
    labels = np.repeat([0, 1], [40, 4])
    predicted = 1 - labels
    predicted[: right[0]], predicted[40 : 40 + right[1]] = 0, 1
    images = [LabelledImage(str(number), ImageRef(f"{number}.png"), ()) for number in range(44)]
    scores, truth = np.eye(2)[predicted], np.eye(2, dtype=bool)[labels]
    metrics = {name: METRICS[name](scores, truth) for name in ("acc1", "mean_per_class_recall")}
    return ClassificationResult.from_scores(
        {"main_metric": main, "metrics": metrics}, images, ["a", "b"], scores, truth
    )


def test_each_class_counts_alike_in_the_interval_of_a_mean_over_classes() -> None:
    recall, accuracy = (
        result(main, [20, 3]).difference(result(main, [30, 1]), seed=0) for main in ("mean_per_class_recall", "acc1")
    )
    assert recall["mean_per_class_recall"] == pytest.approx((20 / 40 - 30 / 40 + 3 / 4 - 1 / 4) / 2)
    assert recall["low"] < recall["mean_per_class_recall"] < recall["high"]
    assert accuracy["acc1"] == pytest.approx((23 - 31) / 44)
    assert accuracy["low"] < accuracy["acc1"] < accuracy["high"] < recall["mean_per_class_recall"]
