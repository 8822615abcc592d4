from __future__ import annotations

import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from capivara_cli import artifacts
from capivara_cli.data import images
from capivara_cli.data.images import ImageRef
from capivara_cli.models import segments as segment_files
from capivara_cli.models.clip import Clip
from capivara_cli.models.embedding_cache import ImageTable, embed, embed_windows
from capivara_cli.models.embedding_store import Store
from capivara_cli.models.segments import Segment


@pytest.fixture
def folder(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten images, and a cache of their own."""
    monkeypatch.setenv("CAPIVARA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "images").mkdir()
    for number in range(10):
        shutil.copy(world / "images" / f"test-{number:05d}.png", tmp_path / "images")
    return tmp_path / "images"


def refs(folder: Path) -> list[ImageRef]:
    return [ImageRef(str(path)) for path in images.find(folder)]


def segments() -> int:
    return len(list(artifacts.cache_folder().rglob("*.safetensors")))


def rows(table: ImageTable) -> torch.Tensor:
    return table.take(np.arange(len(table)))


def test_an_embedding_is_the_towers_in_half_precision(clip: Clip, folder: Path) -> None:
    table, kept, rejected = embed(clip, refs(folder))
    with torch.inference_mode():
        plain = clip.encode_pixels(torch.stack([clip.preprocess(images.load(ref)) for ref in refs(folder)]))
    torch.testing.assert_close(rows(table), plain.cpu().half().float(), rtol=0, atol=1e-3)
    assert kept == list(range(10))
    assert not rejected


def test_an_image_that_is_known_is_not_read_again(clip: Clip, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = rows(embed(clip, refs(folder))[0])
    monkeypatch.setattr(images, "content", lambda ref: pytest.fail(f"{ref} is read"))
    table, _, rejected = embed(clip, refs(folder))
    assert rows(table).equal(before)
    assert not rejected
    assert segments() == 1


def test_new_images_are_added_and_changed_ones_done_again(clip: Clip, folder: Path, world: Path) -> None:
    before = rows(embed(clip, refs(folder))[0])
    shutil.copy(world / "images" / "test-00020.png", folder / "test-00020.png")
    shutil.copy(world / "images" / "test-00021.png", folder / "test-00003.png")
    table, kept, _ = embed(clip, refs(folder))
    after = rows(table)
    assert kept == list(range(11))
    assert after[:3].equal(before[:3])
    assert after[4:10].equal(before[4:])
    assert not after[3].equal(before[3])
    stored = [load_file(path)["embeddings"].shape[0] for path in artifacts.cache_folder().rglob("*.safetensors")]
    assert sorted(stored) == [2, 10]


def test_views_have_a_store_of_their_own_with_the_plain_one_first(clip: Clip, folder: Path) -> None:
    plain = rows(embed(clip, refs(folder))[0])
    table, _, _ = embed(clip, refs(folder), views=3)
    assert table.views == 3
    torch.testing.assert_close(table.take(np.arange(10), 0), plain, rtol=0, atol=1e-3)
    assert not torch.allclose(table.take(np.arange(10), 1), table.take(np.arange(10), 2), atol=1e-3)


def test_another_image_tower_has_a_store_of_its_own(clip: Clip, folder: Path) -> None:
    before = rows(embed(clip, refs(folder))[0])
    clip.model.visual.conv1.weight.data.mul_(1.5)
    assert not torch.allclose(rows(embed(clip, refs(folder))[0]), before, atol=1e-3)


def test_the_text_tower_does_not_matter_to_the_store(clip: Clip, folder: Path) -> None:
    embed(clip, refs(folder))
    clip.model.text.proj.weight.data.mul_(1.5)
    embed(clip, refs(folder))
    assert segments() == 1


def test_what_cannot_be_read_is_named_in_the_order_of_the_images(clip: Clip, folder: Path) -> None:
    (folder / "test-00004.png").write_text("text")
    asked = [ImageRef(str(folder / "absent.png")), *refs(folder)]
    _, kept, rejected = embed(clip, asked)
    assert kept == [1, 2, 3, 4, 6, 7, 8, 9, 10]
    assert [(Path(item.image).name, item.reason) for item in rejected] == [
        ("absent.png", "no such file"),
        ("test-00004.png", "not an image that can be read"),
    ]


def test_a_subset_keeps_its_rows(clip: Clip, folder: Path) -> None:
    table, _, _ = embed(clip, refs(folder))
    assert rows(table.subset(np.array([7, 2]))).equal(rows(table)[[7, 2]])


def test_windows_are_as_the_whole_and_known_images_are_not_read_again(clip: Clip, folder: Path) -> None:
    (folder / "test-00004.png").write_text("text")
    asked = refs(folder)
    windows = [[*asked[:6], asked[0]], [], [ImageRef(str(folder / "absent.png")), *asked[4:]]]
    found = list(embed_windows(clip, iter(windows), lambda ref: ref))
    table, kept, _ = embed(clip, asked)
    row = dict(zip(kept, rows(table), strict=True))
    assert [window.items for window in found] == windows
    assert found[0].rows == [0, 1, 2, 3, 5, 6]
    for i, feature in zip(found[0].rows, found[0].features, strict=True):
        assert torch.from_numpy(feature).equal(row[i % 6])
    assert found[0].reasons == {4: "not an image that can be read"}
    assert found[1].rows == []
    assert found[2].reasons == {0: "no such file", 1: "not an image that can be read"}
    assert found[2].rows == [2, 3, 4, 5, 6]
    stored = [load_file(path)["embeddings"].shape[0] for path in artifacts.cache_folder().rglob("*.safetensors")]
    assert sum(stored) == 9  # each once


def test_of_an_image_that_was_encoded_twice_the_newer_counts(clip: Clip, folder: Path) -> None:
    store = Store(clip)
    stamps = [images.stamp(ref) for ref in refs(folder)[:3]]
    keys = [stamp.identity for stamp in stamps]
    for value in (1.0, 2.0):
        store.add(stamps, np.zeros((3, 16), np.uint8), torch.full((3, 1, 4), value))
        store.flush()
    assert (store.take(keys) == 2).all()
    assert store.find([b"x" * 16]).tolist() == [-1]
    ref = refs(folder)[0]
    unknown = images.Stamp(b"\0" * 16, 0)
    assert Store(clip).missing([(stamp, ref) for stamp in [*stamps, unknown]]) == {unknown: ref}


def test_many_small_segments_are_put_together(clip: Clip, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_files, "MANY_SEGMENTS", 4)
    found = refs(folder)
    before = [rows(embed(clip, [ref])[0]) for ref in found]
    assert 1 < segments() <= 5
    after, kept, _ = embed(clip, found)
    assert kept == list(range(10))
    assert rows(after).equal(torch.cat(before))


def test_of_an_image_that_is_there_twice_the_newer_one_stays_when_segments_are_joined(
    clip: Clip, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = refs(folder)[0]
    store = Store(clip)
    for number in range(6):
        store.add([images.stamp(ref)], np.zeros((1, 16), np.uint8), torch.full((1, 1, 4), float(number + 1)))
        store.flush()
    assert segments() == 6
    monkeypatch.setattr(segment_files, "MANY_SEGMENTS", 4)
    assert Store(clip).take([images.identity(ref)]).tolist() == [[6.0] * 4]
    assert segments() == 1


def test_more_segments_than_a_process_may_have_files(clip: Clip, folder: Path) -> None:
    """As a thousand runs on a few images each leave them."""
    store = Store(clip)
    keys = [number.to_bytes(16, "little") for number in range(1, 1201)]
    for number, key in enumerate(keys):
        identity = np.frombuffer(bytearray(key), np.uint8).reshape(1, 16)
        embedding = np.full((1, 1, 4), number + 1, np.float16)
        segment_files.write(
            store.folder, number, Segment(embedding, identity, np.zeros_like(identity), np.zeros(1, int))
        )
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        assert Store(clip).take(keys)[:, 0].tolist() == list(range(1, 1201))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
