"""Images are decoded ahead, in order, and no further ahead than needed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from capivara_cli.data import images
from capivara_cli.data.images import ImageRef
from capivara_cli.data.loading import MIN_IMAGES_FOR_WORKERS, Loaded, load_images


def itself(ref: ImageRef) -> ImageRef:
    return ref


def prepare(ref: ImageRef) -> Tensor:
    image = images.load(ref)
    if image.width == 3:
        raise ValueError("three is too few")
    return torch.tensor(image.getpixel((0, 0)))


@pytest.fixture
def refs(tmp_path: Path) -> list[ImageRef]:
    """Ten images; of each, its number is the red of its pixels."""
    for number in range(10):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"{number}.png")
    Image.new("RGB", (3, 4)).save(tmp_path / "6.png")
    (tmp_path / "3.png").unlink()
    return [ImageRef(str(tmp_path / f"{number}.png")) for number in range(10)]


@pytest.mark.parametrize("workers", [0, 2])
def test_images_come_in_order_with_reasons_for_those_that_do_not(workers: int, refs: list[ImageRef]) -> None:
    found = list(load_images(iter([refs[:4], refs[4:8], refs[8:]]), itself, prepare, workers=workers))
    assert [batch.rows for batch in found] == [[0, 1, 2], [0, 1, 3], [0, 1]]
    assert [batch.values[:, 0].tolist() for batch in found] == [[0, 1, 2], [4, 5, 7], [8, 9]]
    assert [batch.reasons for batch in found] == [
        {3: "no such file"},
        {2: "cannot be prepared for the model: three is too few"},
        {},
    ]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_are_asked_for_as_they_are_needed(workers: int, refs: list[ImageRef]) -> None:
    asked = 0

    def batches() -> Iterator[list[ImageRef]]:
        nonlocal asked
        for _ in range(1000):
            asked += 1
            yield refs[:1]

    loaded = load_images(batches(), itself, prepare, workers=workers)
    assert asked == 0
    for number in range(1, 20):
        next(loaded)
        assert asked <= number + 2 * workers


def test_tensors_of_several_shapes_come_in_a_list(refs: list[ImageRef]) -> None:
    def shaped(ref: ImageRef) -> Tensor:
        return torch.zeros(int(Path(ref.path).stem) + 1)

    (batch,) = load_images(iter([refs[:3]]), itself, shaped, workers=0)
    assert [len(value) for value in batch.values] == [1, 2, 3]
    (batch,) = load_images(iter([refs[3:4]]), itself, prepare, workers=0)
    assert (batch.rows, len(batch.values), len(batch.reasons)) == ([], 0, 1)


def name(ref: ImageRef) -> str:
    return Path(ref.path).name


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_no_tensor_comes_in_a_list(workers: int, refs: list[ImageRef]) -> None:
    found = list(load_images(iter([refs[:2], refs[2:3]]), itself, name, workers=workers))
    assert found == [Loaded(refs[:2], [0, 1], ["0.png", "1.png"], {}), Loaded(refs[2:3], [0], ["2.png"], {})]


def test_no_batches_give_nothing() -> None:
    assert list(load_images(iter([]), itself, name, workers=0)) == []


def unfit(ref: ImageRef) -> Tensor:
    raise {"0.png": ValueError, "1.png": TypeError, "2.png": ZeroDivisionError}[name(ref)](f"odd {name(ref)}")


def test_what_a_model_cannot_take_is_rejected_for_its_reason(refs: list[ImageRef]) -> None:
    (batch,) = load_images(iter([refs[:3]]), itself, unfit, workers=0)
    assert (batch.rows, batch.values) == ([], [])
    assert batch.reasons == {place: f"cannot be prepared for the model: odd {place}.png" for place in range(3)}


def process(ref: ImageRef) -> int:
    return os.getpid()


def test_a_few_images_start_no_process(refs: list[ImageRef]) -> None:
    def processes(expected: int | None) -> set[int]:
        return {pid for batch in load_images(iter([refs[:2]]), itself, process, expected) for pid in batch.values}

    assert processes(MIN_IMAGES_FOR_WORKERS - 1) == {os.getpid()}
    assert processes(MIN_IMAGES_FOR_WORKERS).isdisjoint({os.getpid()})
    assert processes(None).isdisjoint({os.getpid()})


def test_items_without_an_image_to_load_keep_their_place(refs: list[ImageRef]) -> None:
    items = [(refs[0], True), (refs[1], False), (refs[3], True), (refs[4], True)]
    (batch,) = load_images(iter([items]), lambda item: item[0] if item[1] else None, name_if_there, workers=0)
    assert (batch.items, batch.rows, batch.values) == (items, [0, 3], ["0.png", "4.png"])
    assert batch.reasons == {2: "no such file"}


def name_if_there(ref: ImageRef) -> str:
    images.check(ref)
    return name(ref)
