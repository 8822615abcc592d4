from __future__ import annotations

import math
from itertools import pairwise

import pytest

from capivara_cli.training.schedule import learning_rate


def rate(step: int, max_steps: int = 110, warmup_steps: int = 10) -> float:
    return learning_rate(step, max_steps=max_steps, warmup_steps=warmup_steps, lr=1e-3, min_lr=1e-5)


def test_the_warm_up_starts_at_the_lowest_rate() -> None:
    assert rate(0) == 1e-5


def test_the_warm_up_is_a_line() -> None:
    steps = [rate(step + 1) - rate(step) for step in range(10)]
    assert steps == pytest.approx([(1e-3 - 1e-5) / 10] * 10)


def test_the_warm_up_ends_at_the_highest_rate() -> None:
    assert rate(10) == pytest.approx(1e-3)
    assert rate(10) == max(rate(step) for step in range(111))


def test_the_cosine_is_half_way_down_in_its_middle() -> None:
    assert rate(60) == pytest.approx((1e-3 + 1e-5) / 2)


def test_the_cosine_falls_as_a_cosine_does() -> None:
    assert rate(35) == pytest.approx(1e-5 + (1e-3 - 1e-5) * (1 + math.cos(math.pi / 4)) / 2)
    assert all(later < earlier for earlier, later in pairwise(rate(step) for step in range(10, 111)))


def test_the_cosine_ends_at_the_lowest_rate() -> None:
    assert rate(110) == pytest.approx(1e-5)


def test_without_a_warm_up_the_highest_rate_comes_first() -> None:
    assert rate(0, warmup_steps=0) == pytest.approx(1e-3)
    assert rate(110, warmup_steps=0) == pytest.approx(1e-5)


def test_a_warm_up_of_all_steps_only_rises() -> None:
    assert rate(7, max_steps=7, warmup_steps=7) == pytest.approx(1e-3)
