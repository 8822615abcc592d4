from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from capivara_cli.demo.language import LANGUAGES, TEMPLATES, caption
from capivara_cli.demo.scenes import (
    BACKGROUNDS,
    SHAPES,
    Scene,
    Shape,
    Size,
    Thing,
    held_out_scenes,
    training_scenes,
)
from capivara_cli.demo.world import GREYS, RGB, draw, write_world

STAR, DROP = Thing("star", "red", "small"), Thing("drop", "blue", "large")
TRAIN, TEST, SEED = 60, 41, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("world")
    write_world(path, train=TRAIN, test=TEST, seed=SEED, captions=3)
    return path


@pytest.fixture(scope="module")
def training(folder: Path) -> list[dict[str, Any]]:
    return records(folder / "train.jsonl")


@pytest.fixture(scope="module")
def testing(folder: Path) -> list[dict[str, Any]]:
    return records(folder / "test.jsonl")


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def picture(*things: Thing, background: Any = "white", relation: Any = None) -> Image.Image:
    return draw(Scene(background, things, relation), random.Random(0))


def coloured(image: Image.Image, thing: Thing) -> np.ndarray:
    """(64, 64) whether a pixel has the thing's colour."""
    distance = np.abs(np.asarray(image).astype(int) - RGB[thing.colour]).max(axis=2)
    return np.asarray(distance <= 10)


@pytest.mark.parametrize("relation", ["left", "above"])
def test_the_first_thing_is_where_the_relation_says(relation: Any) -> None:
    image = picture(STAR, DROP, relation=relation)
    first, second = (np.argwhere(coloured(image, thing)).mean(axis=0) for thing in (STAR, DROP))
    axis = 1 if relation == "left" else 0
    assert first[axis] < 24 < 40 < second[axis]
    assert abs(first[1 - axis] - second[1 - axis]) < 8


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_the_corners_have_the_backgrounds_grey(background: Any) -> None:
    image = np.asarray(picture(STAR, background=background)).astype(int)
    assert np.abs(image[[0, 0, -1, -1], [0, -1, 0, -1]] - GREYS[background]).max() <= 10


@pytest.mark.parametrize("shape", SHAPES)
def test_a_large_thing_is_larger_than_a_small_one(shape: Shape) -> None:
    sizes: tuple[Size, Size] = ("small", "large")
    small, large = (coloured(picture(Thing(shape, "red", size)), STAR).sum() for size in sizes)
    assert 0 < 2 * small < large


def test_all_shapes_look_different() -> None:
    pictures = {picture(Thing(shape, "red", "large")).tobytes() for shape in SHAPES}
    assert len(pictures) == len(SHAPES)


def test_the_same_seed_writes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_world(tmp_path, train=TRAIN, test=TEST, seed=SEED, captions=3)
    assert files(tmp_path) == files(folder)


def test_another_seed_writes_another_world(folder: Path, tmp_path: Path) -> None:
    write_world(tmp_path, train=TRAIN, test=TEST, seed=SEED + 1, captions=3)
    for name in ("train.jsonl", "test.jsonl"):
        assert (tmp_path / name).read_bytes() != (folder / name).read_bytes()


def test_a_world_without_captions_has_scenes_to_describe(folder: Path, training: list[Any], tmp_path: Path) -> None:
    write_world(tmp_path, train=TRAIN, test=TEST, seed=SEED, captions=0)
    scenes = records(tmp_path / "scenes.jsonl")
    assert [scene["id"] for scene in scenes] == [record["id"] for record in training]
    assert not any(scene["captions"] for scene in scenes)
    assert not (tmp_path / "train.jsonl").exists()
    assert (tmp_path / "test.jsonl").read_bytes() == (folder / "test.jsonl").read_bytes()


def test_every_record_has_a_picture_of_its_own(folder: Path, training: list[Any], testing: list[Any]) -> None:
    assert (len(training), len(testing)) == (TRAIN, TEST)
    images = sorted(path.relative_to(folder).as_posix() for path in (folder / "images").iterdir())
    assert sorted(record["image"] for record in training + testing) == images
    for name in images:
        with Image.open(folder / name) as image:
            assert (image.size, image.mode) == ((64, 64), "RGB")


def test_captions_of_other_languages_say_what_their_parent_says(training: list[Any], testing: list[Any]) -> None:
    rng = random.Random(SEED)
    scenes = {*itertools.islice(training_scenes(rng), TRAIN), *held_out_scenes(TEST, rng)}
    translations = {
        tuple(caption(scene, lang, template) for lang in LANGUAGES) for scene in scenes for template in range(TEMPLATES)
    }
    for record in training + testing:
        captions = {lang: [item for item in record["captions"] if item["lang"] == lang] for lang in LANGUAGES}
        for lang in LANGUAGES:
            parents = [None if lang == "en" else index for index in range(len(captions["en"]))]
            assert [item.get("parent") for item in captions[lang]] == parents
        for texts in zip(*([item["text"] for item in items] for items in captions.values()), strict=True):
            assert texts in translations


def test_english_captions_come_first_and_all_differ(training: list[Any]) -> None:
    for record in training:
        assert [item["lang"] for item in record["captions"]] == [lang for lang in LANGUAGES for _ in range(3)]
        assert max(Counter(item["text"] for item in record["captions"]).values()) == 1


def test_a_test_record_has_one_caption_per_language_that_no_other_has(testing: list[Any]) -> None:
    texts = [item["text"] for record in testing for item in record["captions"]]
    assert len(texts) == len(set(texts)) == TEST * len(LANGUAGES)


def test_the_label_is_the_shape_that_the_caption_names_first(training: list[Any], testing: list[Any]) -> None:
    for record in training + testing:
        words = record["captions"][0]["text"].replace(",", " ").replace(";", " ").split()
        assert next(word for word in words if word in SHAPES) == record["label"]


def test_more_captions_than_templates_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="larger than population"):
        write_world(tmp_path, train=1, test=1, captions=TEMPLATES + 1)
