from __future__ import annotations

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
from capivara_cli.models.embedding_store import Load, Store
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
    [segment] = artifacts.cache_folder().rglob("*.safetensors")
    assert load_file(segment)["embeddings"].shape[0] == 12  # with the one that was changed


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


def fake_segment(keys: list[bytes], value: float) -> Segment:
    """Return a segment with embeddings that consist of one value."""
    identity = np.frombuffer(bytearray(b"".join(keys)), np.uint8).reshape(-1, 16)
    embeddings = np.full((len(keys), 1, 4), value, np.float16)
    return Segment(embeddings, identity, np.zeros_like(identity), np.full(len(keys), segment_files.UNKNOWN))


def test_of_an_image_that_is_stored_twice_the_newer_counts(clip: Clip, folder: Path) -> None:
    loads = [Load(images.stamp(ref), ref) for ref in refs(folder)[:3]]
    keys = [load.stamp.identity for load in loads]
    store = Store(clip)
    others = [number.to_bytes(16, "little") for number in range(1, 40_000)]  # too large to be joined to three more
    segment_files.write(store.folder, fake_segment([*keys, *others], 1.0))
    segment_files.write(store.folder, fake_segment(keys, 2.0))
    store.reload()
    assert segments() == 2
    assert (store.take(keys) == 2).all()
    assert store.find([b"x" * 16]).tolist() == [-1]
    unknown = Load(images.Stamp(b"\0" * 16, 0), refs(folder)[0])
    assert store.missing([*loads, unknown, unknown]) == [unknown]


def test_segments_are_joined_so_that_there_are_few(clip: Clip, folder: Path) -> None:
    before = [rows(embed(clip, [ref])[0]) for ref in refs(folder)]
    assert segments() == 1
    after, kept, _ = embed(clip, refs(folder))
    assert kept == list(range(10))
    assert rows(after).equal(torch.cat(before))


def test_of_an_image_in_two_joined_segments_the_newer_embedding_stays(clip: Clip, folder: Path) -> None:
    store, key = Store(clip), b"k" * 16
    for number in range(6):
        segment_files.write(store.folder, fake_segment([key], number + 1))
    assert segments() == 1
    store.reload()
    assert store.take([key]).tolist() == [[6.0] * 4]


def test_a_thousand_segments_are_fewer_files_than_a_process_may_open(clip: Clip, folder: Path) -> None:
    """As a thousand runs on a few images each leave them."""
    store = Store(clip)
    keys = [number.to_bytes(16, "little") for number in range(1, 1201)]
    for number, key in enumerate(keys):
        segment_files.write(store.folder, fake_segment([key], number + 1))
    assert segments() == 1
    assert Store(clip).take(keys)[:, 0].tolist() == list(range(1, 1201))
