from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capivara_cli import artifacts
from capivara_cli.data import images, records, shards
from capivara_cli.data.images import ImageRef
from capivara_cli.data.shards import Shard
from capivara_cli.errors import CapivaraError
from tests.helpers import write_tar


def names(path: Path) -> list[str]:
    return [member.name for member in Shard(path).members()]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPIVARA_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_a_member_is_found_without_the_others(format: int, tmp_path: Path) -> None:
    long = "a" * 90 + "/" + "b" * (60 if format == tarfile.USTAR_FORMAT else 160) + ".png"
    path = write_tar(tmp_path / "0.tar", {f"{i}.png": bytes([i]) * i for i in range(200)} | {long: b"long"}, format)
    for i in (0, 7, 199):
        assert images.content(ImageRef(str(path), f"{i}.png")) == bytes([i]) * i
    assert images.content(ImageRef(str(path), long)) == b"long"
    assert shards.find(str(path), "200.png") is None


def test_the_index_is_saved_and_a_changed_shard_is_indexed_again(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "0.tar", {"0.png": b"first"})
    assert names(path) == ["0.png"]
    [index] = (artifacts.cache_folder() / "shards").iterdir()
    written = index.stat().st_mtime_ns
    assert images.content(ImageRef(str(path), "0.png")) == b"first"
    assert index.stat().st_mtime_ns == written
    write_tar(path, {"1.png": b"x" * 600, "0.png": b"second"})
    os.utime(path, ns=(1, 1))
    assert images.content(ImageRef(str(path), "0.png")) == b"second"
    np.load(index, allow_pickle=False)  # no pickle in it


def test_a_shard_changed_in_place_is_indexed_again(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "0.tar", {"a.png": b"first", "b.png": b"second"})
    os.utime(path, ns=(0, 0))
    assert images.content(ImageRef(str(path), "a.png")) == b"first"
    write_tar(path, {"b.png": b"second", "a.png": b"third"})
    os.utime(path, ns=(0, 0))
    assert images.content(ImageRef(str(path), "a.png")) == b"third"


@pytest.mark.parametrize("kept", [0, 100, 1000, -1, None])
@pytest.mark.parametrize("fill", [b"", b"\0", b"\xff"])
def test_a_damaged_index_is_removed_and_made_again(
    kept: int | None, fill: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_tar(tmp_path / "0.tar", {f"{i}.png": bytes([i]) for i in range(200)})
    names(path)
    [index] = (artifacts.cache_folder() / "shards").iterdir()
    data = index.read_bytes()
    damaged = (
        data[:kept] + fill * (len(data) - len(data[:kept])) if kept is not None else data[:500] + b"x" + data[501:]
    )
    index.write_bytes(damaged)
    assert images.content(ImageRef(str(path), "7.png")) == bytes([7])
    assert capsys.readouterr().err.count(f"{index} is damaged (") == (damaged != data)
    assert index.read_bytes() == data


def test_an_index_of_an_older_version_is_still_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tar(tmp_path / "0.tar", {"a.png": b"first"})
    names(path)
    [index] = (artifacts.cache_folder() / "shards").iterdir()
    np.save(index, np.load(index))
    monkeypatch.setattr(Shard, "members", lambda shard: pytest.fail(f"{shard.path} is indexed again"))
    assert images.content(ImageRef(str(path), "a.png")) == b"first"


def test_of_two_members_with_one_name_the_last_counts_as_in_any_tar(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        for content in (b"first", b"second"):
            info = tarfile.TarInfo("0.png")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    with tarfile.open(tmp_path / "0.tar") as archive:
        expected = archive.extractfile("0.png")
        assert expected is not None
        assert images.content(ImageRef(str(tmp_path / "0.tar"), "0.png")) == expected.read() == b"second"


def test_folders_and_links_are_not_members(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        for name, kind in (("a", tarfile.DIRTYPE), ("a/link.png", tarfile.SYMTYPE), ("a/0.png", tarfile.REGTYPE)):
            info = tarfile.TarInfo(name)
            info.type = kind
            archive.addfile(info)
    assert names(tmp_path / "0.tar") == ["a/0.png"]


@pytest.mark.parametrize(
    ("length", "lost"),
    [
        (512 + 5000, "truncated after 1 members"),
        (512 + 5120, "without an end mark"),
        (512 + 5120 + 100, "truncated"),
        (512 + 5120 + 512, "1.png is incomplete"),
        (512 + 5120 + 512 + 3000, "1.png is incomplete"),
    ],
)
def test_a_truncated_tar_has_its_complete_members_and_a_warning(
    length: int, lost: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = b"x" * 5000  # after a header of 512 bytes, padded to 5120
    path = write_tar(tmp_path / "0.tar", {"0.png": first, "1.png": b"y" * 5000})
    os.truncate(path, length)
    shard = Shard(path)
    assert [(member.offset, member.size) for member in shard.members()] == [(512, 5000)]
    assert shard.lost is not None
    assert lost in shard.lost
    assert images.content(ImageRef(str(path), "0.png")) == first
    assert [record.id for record in records.read(path)] == ["0"]
    assert f"{path} is {shard.lost}" in " ".join(capsys.readouterr().err.split())


def test_a_damaged_header_in_the_middle_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_tar(tmp_path / "0.tar", {f"{n}.png": b"x" * 500 for n in range(6)})
    with path.open("r+b") as file:
        file.seek(3 * 1024)
        file.write(b"????")
    assert [record.id for record in records.read(path)] == ["0", "1", "2"]
    assert "damaged at byte 3,072: the remaining 7,168 bytes are lost" in " ".join(capsys.readouterr().err.split())


def test_samples_without_an_image_and_links_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_tar(tmp_path / "0.tar", {"0.png": b"x", "0.txt": b"a", "1.png": b"x", "2.txt": b"b", "3.heic": b"x"})
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo("4.png")
        info.type, info.linkname = tarfile.LNKTYPE, "0.png"
        archive.addfile(info)
    assert [record.id for record in records.read(path)] == ["0", "1"]
    said = " ".join(capsys.readouterr().err.split())
    assert "1 members left out (link or device), the first: 4.png" in said
    assert "2 samples without an image, the first 2" in said


def test_a_whole_tar_has_lost_nothing(tmp_path: Path) -> None:
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        shard = Shard(write_tar(tmp_path / "0.tar", {"0.png": b"x", "1.png": b""}, form))
        assert len(list(shard.members())) == 2
        assert shard.lost is None


@pytest.mark.parametrize("name", ["/etc/0.png", "../0.png", "a/../../0.png", "..\\0.png", "\\0.png"])
def test_members_that_lead_out_of_the_folder_are_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_tar(tmp_path / "0.tar", {"ok.png": b"x", name: b"y"})
    assert names(path) == ["ok.png"]
    assert shards.find(str(path), name) is None
    assert [record.id for record in records.read(path)] == ["ok"]
    assert "1 members left out" in capsys.readouterr().err


def test_a_file_that_is_not_a_tar_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(b"This is a text." * 100)
    with pytest.raises(CapivaraError, match=r"0\.tar: not a tar file"):
        list(records.read(tmp_path / "0.tar"))


def test_the_extension_starts_at_the_first_dot_of_the_file_name(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "0.tar", {"a.b/1.png": b"", "a.b/1.seg.JSON": b"", "a.b/2.x.png": b"", ".hidden": b""})
    samples = {stem: list(members) for stem, members in Shard(path).samples()}
    assert samples == {"a.b/1": ["png", "seg.json"], "a.b/2": ["x.png"]}


@given(st.dictionaries(st.text("ab/.é\u0301字", min_size=1, max_size=30), st.binary(max_size=20), max_size=20))
def test_any_names_are_found_or_refused(members: dict[str, bytes]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = write_tar(Path(folder) / "0.tar", members)
        for name, content in members.items():
            if any(other.endswith("/") and other.rstrip("/") == name.rstrip("/") for other in members):
                continue  # a folder's name, which tarfile writes without the slashes
            location = shards.find(str(path), name)
            if shards.is_inside(name):
                assert location is not None
                offset, size = location
                assert path.read_bytes()[offset : offset + size] == content
            else:
                assert location is None
