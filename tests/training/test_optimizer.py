from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import pytest
import torch

from capivara_cli.training.optimizer import learning_rate, make_optimizer
from capivara_cli.training.options import OptimizerSection


def rate(step: int, max_steps: int = 110, warmup_steps: int = 10) -> float:
    return learning_rate(step, max_steps, OptimizerSection(lr=1e-3, min_lr=1e-5, warmup_steps=warmup_steps))


def test_the_warm_up_is_a_line_from_the_lowest_to_the_highest_rate() -> None:
    assert rate(0) == 1e-5
    steps = [rate(step + 1) - rate(step) for step in range(10)]
    assert steps == pytest.approx([(1e-3 - 1e-5) / 10] * 10)
    assert rate(10) == pytest.approx(1e-3)


def test_the_cosine_falls_from_the_highest_to_the_lowest_rate() -> None:
    assert rate(35) == pytest.approx(1e-5 + (1e-3 - 1e-5) * (1 + math.cos(math.pi / 4)) / 2)
    assert rate(60) == pytest.approx((1e-3 + 1e-5) / 2)
    assert rate(110) == pytest.approx(1e-5)
    assert all(later < earlier for earlier, later in pairwise(rate(step) for step in range(10, 111)))


def test_without_a_warm_up_the_highest_rate_comes_first() -> None:
    assert rate(0, warmup_steps=0) == pytest.approx(1e-3)
    assert rate(110, warmup_steps=0) == pytest.approx(1e-5)


def test_a_warm_up_of_all_steps_only_rises() -> None:
    assert rate(7, max_steps=7, warmup_steps=7) == pytest.approx(1e-3)


@pytest.mark.parametrize(("name", "decayed"), [("adam", {"weight", "bias", "scale"}), ("adamw", {"weight"})])
def test_adamw_decays_no_biases_and_no_scale(name: Literal["adam", "adamw"], decayed: set[str]) -> None:
    shapes = {"weight": (2, 3), "bias": (3,), "scale": ()}
    parameters = {key: torch.nn.Parameter(torch.zeros(shape)) for key, shape in shapes.items()}
    optimizer = make_optimizer(list(parameters.values()), OptimizerSection(name=name))
    groups = [group["params"] for group in optimizer.param_groups if group["weight_decay"] > 0]
    assert {key for key in parameters for group in groups if any(p is parameters[key] for p in group)} == decayed
