from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from capivara_cli.demo.scenes import (
    BACKGROUNDS,
    COLOURS,
    SHAPES,
    SINGLE,
    SIZES,
    Scene,
    Thing,
    all_scenes,
    held_out_scenes,
    training_scenes,
)

STAR, DROP = Thing("star", "red", "small"), Thing("drop", "blue", "large")


@pytest.fixture(scope="module")
def drawn() -> list[Scene]:
    """3,000 training scenes."""
    return list(itertools.islice(training_scenes(random.Random(0)), 3000))


def test_there_are_as_many_scenes_as_the_description_says() -> None:
    scenes = list(all_scenes())
    assert len(scenes) == len(set(scenes)) == 55_008


def test_about_one_scene_in_eight_is_held_out() -> None:
    assert 0.11 < np.mean([scene.held_out for scene in all_scenes()]) < 0.14


def test_a_scene_and_its_swapped_one_are_held_out_together() -> None:
    assert all(scene.held_out == scene.swapped().held_out for scene in all_scenes())


def test_the_held_out_scenes_are_always_the_same() -> None:
    """The shipped base model was trained without them."""
    held_out = [index for index, scene in enumerate(all_scenes()) if scene.held_out]
    assert (len(held_out), held_out[:5], held_out[-1]) == (6_852, [2, 20, 24, 26, 32], 55_003)


def test_a_swapped_scene_has_its_things_exchanged() -> None:
    scene = Scene("white", (STAR, DROP), "left")
    assert scene.swapped() == Scene("white", (DROP, STAR), "left")
    assert scene.swapped().swapped() == scene


def test_no_training_scene_is_held_out(drawn: list[Scene]) -> None:
    assert not any(scene.held_out for scene in drawn)


def test_training_scenes_of_two_things_come_with_their_swapped_ones(drawn: list[Scene]) -> None:
    scenes = iter(drawn)
    for scene in scenes:
        if scene.relation is not None:
            assert next(scenes, scene.swapped()) == scene.swapped()


def test_training_scenes_are_of_two_different_things_or_of_one(drawn: list[Scene]) -> None:
    assert all(len(set(scene.things)) == (1 if scene.relation is None else 2) for scene in drawn)
    singles = sum(scene.relation is None for scene in drawn)
    pairs = (len(drawn) - singles) / 2
    assert singles / (singles + pairs) == pytest.approx(SINGLE, abs=0.05)


def test_training_scenes_show_every_shape_colour_size_and_background(drawn: list[Scene]) -> None:
    things = {thing for scene in drawn for thing in scene.things}
    assert {thing.shape for thing in things} == set(SHAPES)
    assert {thing.colour for thing in things} == set(COLOURS)
    assert {thing.size for thing in things} == set(SIZES)
    assert {scene.background for scene in drawn} == set(BACKGROUNDS)


@pytest.mark.parametrize("count", [1, 2, 19, 20, 41, 500])
def test_every_test_pair_has_its_swapped_one(count: int) -> None:
    scenes = held_out_scenes(count, random.Random(0))
    assert len(scenes) == len(set(scenes)) == count
    assert all(scene.held_out for scene in scenes)
    assert all(scene.swapped() in scenes for scene in scenes if scene.relation)


def test_one_test_scene_in_twenty_has_one_thing() -> None:
    scenes = held_out_scenes(500, random.Random(0))
    assert sum(scene.relation is None for scene in scenes) in (25, 26)


def test_more_test_scenes_than_exist_is_an_error() -> None:
    with pytest.raises(ValueError, match="10000 distinct held-out scenes"):
        held_out_scenes(10_000, random.Random(0))
