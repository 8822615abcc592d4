from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from capivara_cli.metrics.bootstrap import RESAMPLES, compare_hits, compare_ranks
from capivara_cli.metrics.retrieval import QueryRanks, Ranks, rank_queries, summarise


def ranks(noise: float, *, images: int = 120, captions: int = 1, seed: int = 0) -> Ranks:
    """Of texts that are their images and noise."""
    generator = torch.Generator().manual_seed(seed)
    features = normalize(torch.randn(images, 16, generator=generator), dim=1)
    rows = torch.arange(images).repeat_interleave(captions)
    texts = features[rows] + noise * torch.randn(len(rows), 16, generator=generator)
    return rank_queries(normalize(texts, dim=1), features, rows)


def known(hits: list[bool], captions: int = 1) -> Ranks:
    """Image i and all its captions are found at once, or never."""

    def direction(queries: np.ndarray) -> QueryRanks:
        return QueryRanks(np.where(queries, 0, 1000), np.zeros(len(queries), int), np.ones(len(queries), int))

    rows = np.repeat(np.arange(len(hits)), captions)
    return Ranks(direction(np.array(hits)[rows]), direction(np.array(hits)), rows, np.arange(len(hits)))


def test_the_difference_is_that_of_the_mean_recalls() -> None:
    model, baseline = ranks(0.3, captions=3), ranks(0.6, captions=3)
    expected = summarise(model)["mean_recall"] - summarise(baseline)["mean_recall"]
    assert compare_ranks(model, baseline)["mean_recall"] == pytest.approx(expected)


def test_a_clear_gain_is_significant() -> None:
    result = compare_ranks(ranks(0.1), ranks(2.0))
    assert 0 < result["low"] < result["mean_recall"] < result["high"]
    assert result["p_value"] == 1 / RESAMPLES


def test_a_clear_loss_is_as_significant_with_the_sign_turned() -> None:
    gain, loss = compare_ranks(ranks(0.1), ranks(2.0)), compare_ranks(ranks(2.0), ranks(0.1))
    assert loss["mean_recall"] == pytest.approx(-gain["mean_recall"])
    assert (loss["low"], loss["high"]) == pytest.approx((-gain["high"], -gain["low"]))
    assert loss["p_value"] == gain["p_value"]


def test_a_model_does_not_differ_from_itself() -> None:
    same = ranks(0.5)
    assert compare_ranks(same, same) == {"mean_recall": 0.0, "low": 0.0, "high": 0.0, "p_value": 1.0}


def test_two_models_of_one_quality_do_not_differ_significantly() -> None:
    result = compare_ranks(known([True, False] * 30), known([False, True] * 30))
    assert result["mean_recall"] == 0
    assert result["low"] < 0 < result["high"]
    assert result["p_value"] > 0.5


def test_the_interval_is_that_of_the_theory() -> None:
    """The gain is 0 or 1 for each image: its mean has a standard error of sqrt(p (1 - p) / n)."""
    result = compare_ranks(known([True] * 80 + [False] * 320), known([False] * 400))
    error = (0.2 * 0.8 / 400) ** 0.5
    assert result["mean_recall"] == pytest.approx(0.2)
    assert (result["low"] + result["high"]) / 2 == pytest.approx(0.2, abs=0.2 * error)
    assert result["high"] - result["low"] == pytest.approx(2 * 1.96 * error, abs=0.3 * error)


def test_more_captions_of_the_same_images_do_not_make_it_surer() -> None:
    hits = [True] * 30 + [False] * 70
    one, many = (compare_ranks(known(hits, captions), known([False] * 100, captions)) for captions in (1, 20))
    assert many == pytest.approx(one)


def test_the_p_value_is_twice_the_smaller_tail() -> None:
    """One image of ten gains: it is missing from (1 - 1/10)^10 = 35 % of the resamples."""
    result = compare_ranks(known([True] + [False] * 9), known([False] * 10))
    assert result["p_value"] == pytest.approx(2 * 0.9**10, abs=0.1)


def test_the_same_seed_gives_the_same_interval_and_another_one_another() -> None:
    model, baseline = ranks(0.4), ranks(0.5)
    assert compare_ranks(model, baseline, seed=3) == compare_ranks(model, baseline, seed=3)
    assert compare_ranks(model, baseline, seed=3)["low"] != compare_ranks(model, baseline, seed=4)["low"]


def test_images_without_captions_are_never_drawn() -> None:
    model, baseline = known([True] * 5 + [False] * 5), known([False] * 10)
    distractors = np.arange(10) + 990  # the described images come after 990 that nobody describes
    moved = [Ranks(r.text_to_image, r.image_to_text, distractors, distractors) for r in (model, baseline)]
    assert compare_ranks(*moved) == pytest.approx(compare_ranks(model, baseline))


def test_other_ks_are_compared_where_they_are_asked_for() -> None:
    fourth = QueryRanks(np.array([3]), np.array([0]), np.array([1]))
    model = Ranks(fourth, fourth, np.array([0]), np.array([0]))
    baseline = known([False])
    assert [compare_ranks(model, baseline, ks=ks)["mean_recall"] for ks in ((1,), (5,), (1, 5))] == [0, 1, 0.5]


def test_the_interval_of_an_accuracy_is_that_of_its_standard_error() -> None:
    rng = np.random.default_rng(0)
    model, baseline = (rng.random(5000) < share for share in (0.7, 0.6))
    interval = compare_hits(model.astype(float), baseline.astype(float))
    gain = model.astype(float) - baseline
    half = 1.96 * gain.std() / len(gain) ** 0.5
    assert interval["low"] == pytest.approx(gain.mean() - half, abs=0.1 * half)
    assert interval["high"] == pytest.approx(gain.mean() + half, abs=0.1 * half)
    assert interval["p_value"] == 0.001
    assert compare_hits(model.astype(float), baseline.astype(float)) == interval


def test_a_class_of_few_images_makes_the_mean_of_classes_unsure() -> None:
    """A class of ten images weighs as one of thousands."""
    rng = np.random.default_rng(1)
    groups = np.repeat([0, 1], [5000, 10])
    model = np.concatenate([np.ones(5000), rng.random(10) < 0.5]).astype(float)
    interval = compare_hits(model, np.zeros(5010), groups)
    mean = (1 + model[5000:].mean()) / 2
    half = 1.96 * model[5000:].std() / 10**0.5 / 2
    assert interval["low"] == pytest.approx(mean - half, abs=0.03)
    assert interval["high"] == pytest.approx(mean + half, abs=0.03)


def test_one_image_a_class_is_no_certainty() -> None:
    interval = compare_hits(np.array([1.0, 1, 1, 0, 0, 0]), np.zeros(6), np.arange(6))
    assert interval["low"] < 0.3
    assert interval["high"] > 0.7


def test_no_difference_has_no_interval() -> None:
    hits = np.array([0.0, 1, 0.5])
    assert compare_hits(hits, hits) == {"low": 0.0, "high": 0.0, "p_value": 1.0}
