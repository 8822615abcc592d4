"""Files that a command writes: what exists is refused, and only our own kind of file is replaced."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from capivara_cli import artifacts, files
from capivara_cli.errors import CapivaraError

KINDS = {
    files.RECORDS: b'{"image": "a.png", "id": "a"}\n',
    files.REJECTED: b'{"rejected": "unreadable", "id": "a", "image": "a.png"}\n',
    files.RESULT: b'{\n  "dataset": "test",\n  "task": "zeroshot_retrieval"\n}\n',
    files.QUERIES: b'{"role": "model", "lang": "hi", "rank": 1.0}\n',
    files.PER_CLASS: b"role,lang,label,name,images,metric,value\n",
    files.PLOT: b"\x89PNG\r\n\x1a\n tEXtSoftware\0capivara score",
    files.TABLE: b"filepath\ttitle\tlang\n",
}
OTHERS = {
    "a photo": b"\x89PNG\r\n\x1a\n IHDR",
    "a shard": b"a.png\0\0\0",
    "settings": b"train:\n  lr: 1\n",
    "somebody's JSON": b'{\n  "name": "thesis"\n}\n',
    "an indented record": b'{\n  "id": 1, "image": "a.png", "rejected": "why"\n}\n',
    "COCO's annotations": b'{"info": {}, "images": [{"id": 1, "image": "a.png"}]}\n',
    "a notebook": b'{"cells": [{"id": "a", "source": ["image"]}]}\n',
    "notes": b'{"rejected": "my notes on applicants", "id": 1}\n',
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_file_of_its_own_kind_is_replaced_only_with_overwrite(kind: files.Kind, tmp_path: Path) -> None:
    path = tmp_path / "out"
    files.check_writable(path, kind, overwrite=False)
    for content in (KINDS[kind], b""):
        path.write_bytes(content)
        files.check_writable(path, kind, overwrite=True)
        with pytest.raises(CapivaraError, match="out already exists") as caught:
            files.check_writable(path, kind, overwrite=False)
        assert caught.value.hint == "--overwrite replaces it"


@pytest.mark.parametrize("what", OTHERS)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_another_file_is_never_replaced_and_no_hint_says_that_it_would_be(
    kind: files.Kind, what: str, tmp_path: Path
) -> None:
    path = tmp_path / "out"
    path.write_bytes(OTHERS[what])
    for overwrite, message in (
        (False, "out already exists"),
        (True, f"is not replaced, because it is not {kind.name}"),
    ):
        with pytest.raises(CapivaraError, match=message) as caught:
            files.check_writable(path, kind, overwrite=overwrite, flag="--ranks")
        assert caught.value.hint == "--ranks another file"


def test_a_text_is_never_replaced_unless_it_is_empty(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    files.check_writable(tmp_path / "out", files.NEVER, overwrite=True)
    (tmp_path / "out").write_text("\\documentclass{thesis}\n")
    with pytest.raises(CapivaraError, match="a text or a class file does not say who wrote it"):
        files.check_writable(tmp_path / "out", files.NEVER, overwrite=True)


def test_a_record_longer_than_what_is_read_first_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "out").write_text('{"captions": "' + files.HEAD * "x" + '", "id": 1, "image": "a.png"}\n')
    files.check_writable(tmp_path / "out", files.RECORDS, overwrite=True)


def test_a_place_where_nothing_can_be_written_is_refused_and_nothing_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, message in ((".", "is a folder"), ("file/x", "file is not a folder"), ("file/deep/x", "is not a folder")):
        with pytest.raises(CapivaraError, match=message):
            files.check_writable(tmp_path / name, files.RESULT, overwrite=True)
    files.check_writable(tmp_path / "new" / "deep" / "x", files.RESULT, overwrite=False)
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["/dev/null", "/dev/stdout", "/dev/stderr", "/dev/fd/2", "pipe"])
def test_a_device_or_a_named_pipe_is_a_stream(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / name  # an absolute name stays as it is
    assert files.is_stream(path)
    files.check_writable(path, files.RESULT, overwrite=False)


def test_files_folders_and_links_to_them_are_no_streams(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    assert not any(map(files.is_stream, [tmp_path, tmp_path / "file", tmp_path / "link", tmp_path / "new"]))


def test_a_named_pipe_gets_the_content_once_it_is_complete_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    with artifacts.writing(pipe) as temporary:
        temporary.write_bytes(b"part")
        temporary.write_bytes(b"whole")
    reader.join(timeout=20)
    assert received == [b"whole"]
    assert pipe.is_fifo()


def test_what_a_dead_process_left_is_removed_by_the_next_that_writes_the_file(tmp_path: Path) -> None:
    dead = next(number for number in range(2**21, 2**22) if not Path(f"/proc/{number}").exists())
    left, alive = tmp_path / f".a.json.{dead}.tmp", tmp_path / f".a.json.{os.getppid()}.tmp"
    other = tmp_path / f".b.json.{dead}.tmp"
    for path in (left, alive, other):
        path.write_text("torn")
    artifacts.write_json(tmp_path / "a.json", 1)
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", alive.name, other.name}


@pytest.mark.parametrize("name", ["loop", "a" * 300])
def test_a_name_that_leads_nowhere_is_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(CapivaraError, match=r"-o .*: (Too many levels|File name too long)"):
        files.check_writable(tmp_path / name, files.RESULT, overwrite=True)
