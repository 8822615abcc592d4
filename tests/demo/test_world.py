from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from capivara_cli.demo.language import TEMPLATES
from capivara_cli.demo.world import (
    BACKGROUNDS,
    COLOURS,
    GREYS,
    LANGS,
    RGB,
    SHAPES,
    SINGLE,
    SIZES,
    Scene,
    Shape,
    Size,
    Thing,
    all_scenes,
    caption,
    draw,
    held_out_scenes,
    training_scenes,
    write_world,
)

STAR, DROP = Thing("star", "red", "small"), Thing("drop", "blue", "large")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    write_world(folder, train=60, test=41, seed=3, captions=3)
    return folder


def lines(folder: Path, part: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def drawn(count: int, seed: int = 0) -> list[Scene]:
    return list(itertools.islice(training_scenes(random.Random(seed)), count))


def coloured(image: Image.Image, thing: Thing) -> np.ndarray:
    """(64, 64) whether a pixel has the thing's colour."""
    distance = np.abs(np.asarray(image).astype(int) - RGB[thing.colour]).max(axis=2)
    return np.asarray(distance <= 10)


def test_there_are_as_many_meanings_as_the_description_says() -> None:
    scenes = list(all_scenes())
    assert len(scenes) == len(set(scenes)) == 55_008


def test_about_one_meaning_in_eight_is_held_out() -> None:
    share = np.mean([scene.held_out for scene in all_scenes()])
    assert 0.11 < share < 0.14


def test_a_scene_and_its_swapped_one_are_held_out_together() -> None:
    assert all(scene.held_out == scene.swapped().held_out for scene in all_scenes())


def test_the_held_out_meanings_are_always_the_same() -> None:
    """The base model beside the code was trained without them."""
    held_out = [index for index, scene in enumerate(all_scenes()) if scene.held_out]
    assert (len(held_out), held_out[:5], held_out[-1]) == (6_852, [2, 20, 24, 26, 32], 55_003)


def test_a_swapped_scene_has_its_things_in_each_others_place() -> None:
    scene = Scene("white", (STAR, DROP), "left")
    assert scene.swapped() == Scene("white", (DROP, STAR), "left")
    assert scene.swapped().swapped() == scene


def test_no_training_scene_is_held_out() -> None:
    assert not any(scene.held_out for scene in drawn(3000))


def test_training_scenes_of_two_things_come_with_their_swapped_ones() -> None:
    scenes = iter(drawn(2001))
    for scene in scenes:
        if scene.relation is not None:
            assert next(scenes, scene.swapped()) == scene.swapped()


def test_training_scenes_are_of_two_different_things_or_of_one() -> None:
    scenes = drawn(3000)
    assert all(len(set(scene.things)) == (1 if scene.relation is None else 2) for scene in scenes)
    singles = sum(scene.relation is None for scene in scenes)
    pairs = (len(scenes) - singles) / 2
    assert singles / (singles + pairs) == pytest.approx(SINGLE, abs=0.05)


def test_training_scenes_have_all_there_is_to_see() -> None:
    scenes = drawn(2000)
    things = {thing for scene in scenes for thing in scene.things}
    assert {thing.shape for thing in things} == set(SHAPES) == set(get_args(Shape))
    assert {thing.colour for thing in things} == set(COLOURS)
    assert {thing.size for thing in things} == set(SIZES)
    assert {scene.background for scene in scenes} == set(BACKGROUNDS)


@pytest.mark.parametrize("count", [1, 2, 19, 20, 41, 500])
def test_every_test_pair_has_its_swapped_one(count: int) -> None:
    scenes = held_out_scenes(count, random.Random(0))
    assert len(scenes) == len(set(scenes)) == count
    assert all(scene.held_out for scene in scenes)
    assert all(scene.swapped() in scenes for scene in scenes if scene.relation)


def test_one_test_scene_in_twenty_has_one_thing() -> None:
    scenes = held_out_scenes(500, random.Random(0))
    assert sum(scene.relation is None for scene in scenes) in (25, 26)


def test_more_test_scenes_than_there_are_is_an_error() -> None:
    with pytest.raises(ValueError, match="10000 distinct held-out scenes"):
        held_out_scenes(10_000, random.Random(0))


def test_a_picture_is_64_by_64_and_rgb() -> None:
    for scene in drawn(20):
        image = draw(scene, random.Random(0))
        assert (image.size, image.mode) == ((64, 64), "RGB")


@pytest.mark.parametrize("relation", ["left", "above"])
def test_the_first_thing_stands_where_the_relation_says(relation: Any) -> None:
    image = draw(Scene("white", (STAR, DROP), relation), random.Random(0))
    first, second = (np.argwhere(coloured(image, thing)).mean(axis=0) for thing in (STAR, DROP))
    axis = 1 if relation == "left" else 0
    assert first[axis] < 24 < 40 < second[axis]
    assert abs(first[1 - axis] - second[1 - axis]) < 8


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_the_corners_have_the_backgrounds_grey(background: Any) -> None:
    image = np.asarray(draw(Scene(background, (STAR,)), random.Random(0))).astype(int)
    assert np.abs(image[[0, 0, -1, -1], [0, -1, 0, -1]] - GREYS[background]).max() <= 10


@pytest.mark.parametrize("shape", SHAPES)
def test_a_large_thing_is_larger_than_a_small_one(shape: Shape) -> None:
    sizes: tuple[Size, Size] = ("small", "large")
    small, large = (
        coloured(draw(Scene("white", (Thing(shape, "red", size),)), random.Random(0)), STAR).sum() for size in sizes
    )
    assert 0 < 2 * small < large


def test_all_shapes_look_different() -> None:
    pictures = {draw(Scene("white", (Thing(shape, "red", "large"),)), random.Random(0)).tobytes() for shape in SHAPES}
    assert len(pictures) == len(SHAPES)


def test_the_same_seed_writes_the_same_bytes(small: Path, tmp_path: Path) -> None:
    write_world(tmp_path, train=60, test=41, seed=3, captions=3)
    assert files(tmp_path) == files(small)


def test_another_seed_writes_another_world(small: Path, tmp_path: Path) -> None:
    write_world(tmp_path, train=60, test=41, seed=4, captions=3)
    for name in ("train.jsonl", "test.jsonl"):
        assert (tmp_path / name).read_bytes() != (small / name).read_bytes()


def test_a_world_has_as_many_records_as_asked_for_and_a_picture_for_each(small: Path) -> None:
    records = lines(small, "train") + lines(small, "test")
    assert (len(lines(small, "train")), len(lines(small, "test"))) == (60, 41)
    assert sorted(record["image"] for record in records) == sorted(
        path.relative_to(small).as_posix() for path in (small / "images").iterdir()
    )
    for record in records:
        with Image.open(small / record["image"]) as image:
            assert (image.size, image.mode) == ((64, 64), "RGB")


def test_captions_of_other_languages_say_what_their_parent_says(small: Path) -> None:
    said = {
        tuple(caption(scene, lang, template) for lang in LANGS)
        for scene in {*drawn(60, seed=3), *held_out_scenes(41, after_training(3, 60))}
        for template in range(TEMPLATES)
    }
    for record in lines(small, "train") + lines(small, "test"):
        by_lang = {lang: [item for item in record["captions"] if item["lang"] == lang] for lang in LANGS}
        assert all("parent" not in item for item in by_lang["en"])
        for lang in LANGS[1:]:
            assert [item["parent"] for item in by_lang[lang]] == list(range(len(by_lang["en"])))
        for texts in zip(*([item["text"] for item in by_lang[lang]] for lang in LANGS), strict=True):
            assert texts in said


def after_training(seed: int, train: int) -> random.Random:
    """The state in which drawing the training scenes leaves the dice."""
    rng = random.Random(seed)
    list(itertools.islice(training_scenes(rng), train))
    return rng


def test_english_captions_come_first(small: Path) -> None:
    for record in lines(small, "train"):
        assert [item["lang"] for item in record["captions"]] == [lang for lang in LANGS for _ in range(3)]


def test_captions_of_one_record_differ(small: Path) -> None:
    for record in lines(small, "train"):
        assert max(Counter(item["text"] for item in record["captions"]).values()) == 1


def test_a_test_record_has_one_caption_a_language_that_no_other_has(small: Path) -> None:
    texts = [item["text"] for record in lines(small, "test") for item in record["captions"]]
    assert len(texts) == len(set(texts)) == 41 * len(LANGS)


def test_the_label_is_the_shape_that_the_caption_names_first(small: Path) -> None:
    for record in lines(small, "train") + lines(small, "test"):
        words = record["captions"][0]["text"].replace(",", " ").replace(";", " ").split()
        assert next(word for word in words if word in SHAPES) == record["label"]


def test_more_captions_than_templates_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="larger than population"):
        write_world(tmp_path, train=1, test=1, captions=TEMPLATES + 1)
