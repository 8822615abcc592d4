"""What is on disk is not what the image is now, or not what was written."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from capivara_cli import artifacts
from capivara_cli.data import images
from capivara_cli.data.images import ImageRef, Stamp
from capivara_cli.models.clip import Clip
from capivara_cli.models.embedding_cache import embed, embed_windows

COUNT = 6


@pytest.fixture
def refs(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[ImageRef]:
    """Some images of one size, and a cache of their own."""
    monkeypatch.setenv("CAPIVARA_CACHE", str(tmp_path / "cache"))
    paths = [tmp_path / f"{number}.png" for number in range(COUNT)]
    for path in paths:
        write(path, (world / "images" / f"test-0000{path.stem}.png").read_bytes())
    return [ImageRef(str(path)) for path in paths]


def write(path: Path | str, content: bytes) -> None:
    """Write a file of one size and time, whatever its content."""
    Path(path).write_bytes(content.ljust(10_000, b"\0"))
    os.utime(path, ns=(0, 0))


def embeddings(clip: Clip, refs: list[ImageRef]) -> torch.Tensor:
    table, _, rejected = embed(clip, refs)
    assert not rejected
    return table.take(np.arange(len(table)))


def in_windows(clip: Clip, refs: list[ImageRef]) -> torch.Tensor:
    windows = list(embed_windows(clip, iter([refs[:2], refs[2:]]), lambda ref: ref, workers=0))
    assert not any(window.reasons for window in windows)
    return torch.from_numpy(np.concatenate([window.features for window in windows]))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[ImageRef]:
    """The images whose content is read."""
    content, read = images.content, list[ImageRef]()

    def recorded(ref: ImageRef) -> bytes:
        read.append(ref)
        return content(ref)

    monkeypatch.setattr(images, "content", recorded)
    return read


@pytest.mark.parametrize("run", [embeddings, in_windows])
def test_an_image_changed_in_place_is_encoded_again(
    run: Callable[[Clip, list[ImageRef]], torch.Tensor],
    clip: Clip,
    refs: list[ImageRef],
    world: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = run(clip, refs)
    write(refs[3].path, (world / "images" / "test-00050.png").read_bytes())
    capsys.readouterr()
    after = run(clip, refs)
    assert "1 image changed in place" in capsys.readouterr().err
    assert not torch.allclose(after[3], before[3], atol=1e-3)
    assert after[[0, 1, 2, 4, 5]].equal(before[[0, 1, 2, 4, 5]])
    assert run(clip, refs).equal(after)
    assert "changed in place" not in capsys.readouterr().err


def test_an_image_that_was_only_touched_is_read_once_and_not_encoded(
    clip: Clip, refs: list[ImageRef], reads: list[ImageRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = embeddings(clip, refs)
    Path(refs[3].path).chmod(0o600)
    reads.clear()
    monkeypatch.setattr(images, "load", lambda ref: pytest.fail(f"{ref} is encoded"))
    for expected in ([refs[3]], []):
        assert embeddings(clip, refs).equal(before)
        assert reads == expected
        reads.clear()


def test_an_image_that_was_broken_in_place_is_rejected(clip: Clip, refs: list[ImageRef]) -> None:
    embeddings(clip, refs)
    write(refs[3].path, b"text")
    for _ in range(2):
        _, kept, rejected = embed(clip, refs)
        assert kept == [0, 1, 2, 4, 5]
        assert [item.reason for item in rejected] == ["not an image that can be read"]
    (window,) = embed_windows(clip, iter([refs]), lambda ref: ref, workers=0)
    assert window.rows == [0, 1, 2, 4, 5]


def test_all_images_are_compared_if_that_is_asked_for(
    clip: Clip, refs: list[ImageRef], world: Path, reads: list[ImageRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where not even the inode's time tells: on some file systems of a network."""
    stamp = images.stamp
    monkeypatch.setattr(images, "stamp", lambda ref: Stamp(stamp(ref).identity, 0))
    before = embeddings(clip, refs)
    write(refs[3].path, (world / "images" / "test-00050.png").read_bytes())
    assert embeddings(clip, refs).equal(before)
    clip.verify_cache = True
    reads.clear()
    assert not torch.allclose(embeddings(clip, refs)[3], before[3], atol=1e-3)
    assert set(reads) == set(refs)


def segment() -> Path:
    (path,) = artifacts.cache_folder().rglob("*.safetensors")
    return path


def test_a_segment_of_an_older_version_is_still_used(
    clip: Clip, refs: list[ImageRef], reads: list[ImageRef], world: Path
) -> None:
    before = embeddings(clip, refs)
    tensors = load_file(segment())
    save_file({name: tensors[name] for name in ("embeddings", "identity")}, segment(), {"format": "pt"})
    Path(refs[3].path).chmod(0o600)
    reads.clear()
    assert embeddings(clip, refs).equal(before)
    assert not reads
    clip.verify_cache = True  # there is nothing to compare them with
    assert embeddings(clip, refs).equal(before)
    assert set(reads) == set(refs)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zeros(path: Path) -> None:
    """As a power cut leaves a file that was renamed before it was on the disk."""
    path.write_bytes(bytes(path.stat().st_size))


def zero_tail(path: Path) -> None:
    """The embeddings come first: safetensors sorts by the size of the type."""
    data = path.read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    path.write_bytes(data[:start] + bytes(len(data) - start))


def no_header(path: Path) -> None:
    path.write_bytes(b"\xff" * 8 + path.read_bytes()[8:])


def other_tensors(path: Path) -> None:
    save_file({"a": torch.zeros(3)}, path)


def other_shape(path: Path) -> None:
    tensors = load_file(path)
    save_file(tensors | {"identity": tensors["identity"][:, :4].contiguous()}, path)


def fewer_rows(path: Path) -> None:
    tensors = load_file(path)
    save_file(tensors | {"identity": tensors["identity"][:2].contiguous()}, path)


def not_finite(path: Path) -> None:
    tensors = load_file(path)
    save_file(tensors | {"embeddings": tensors["embeddings"] * float("nan")}, path)


def flipped_bits(path: Path) -> None:
    """In the table of identities, where another image would be looked up."""
    data, tensors = path.read_bytes(), load_file(path)
    table = tensors["identity"].numpy().tobytes()
    path.write_bytes(data.replace(table, bytes(byte ^ 1 for byte in table)))


DAMAGES = [
    *(cut, empty, zeros, zero_tail, no_header),
    *(other_tensors, other_shape, fewer_rows, not_finite, flipped_bits),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_segment_is_removed_and_computed_again(
    damage: Callable[[Path], None], clip: Clip, refs: list[ImageRef], capsys: pytest.CaptureFixture[str]
) -> None:
    before = embeddings(clip, refs)
    path = segment()
    damage(path)
    capsys.readouterr()
    assert embeddings(clip, refs).equal(before)
    messages = capsys.readouterr().err
    assert messages.count(f"{path} is damaged (") == 1
    assert not path.exists()
    assert in_windows(clip, refs).equal(before)
    assert "damaged" not in capsys.readouterr().err


def test_a_damaged_segment_that_cannot_be_removed_is_passed_over(
    clip: Clip, refs: list[ImageRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = embeddings(clip, refs)
    cut(segment())

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "unlink", refuse)
    assert embeddings(clip, refs).equal(before)


def test_a_changed_embedding_is_found_if_that_is_asked_for(clip: Clip, refs: list[ImageRef]) -> None:
    before = embeddings(clip, refs)
    tensors, data = load_file(segment()), segment().read_bytes()
    row = tensors["embeddings"][3].numpy().tobytes()
    segment().write_bytes(data.replace(row, row[::-1]))
    clip.verify_cache = True
    assert embeddings(clip, refs).equal(before)
