"""Tar shards that are damaged, or that want to be unpacked elsewhere."""

from __future__ import annotations

import io
import json
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import given
from PIL import Image

from capivara_cli.data import images, records
from capivara_cli.data.images import ImageRejected
from capivara_cli.importing.import_data import import_data
from capivara_cli.importing.options import ImportOptions
from tests.hostile.conftest import damaged, fuzzing, refusal_of

if TYPE_CHECKING:
    import pytest


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (5, 4), (9, 8, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def tar(format: int = tarfile.PAX_FORMAT) -> bytes:
    members = {"1.png": picture(), "1.json": json.dumps({"caption": "a dog"}).encode(), "1.cls": b"3"}
    members |= {"a/2.png": picture(), "a/2.txt": "é".encode(), f"{'long' * 40}.png": picture()}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@fuzzing(100)
@given(content=damaged(tar(), tar(tarfile.GNU_FORMAT), tar(tarfile.GNU_FORMAT)[:3000]))
def test_a_damaged_shard_is_read_or_refused(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAPIVARA_CACHE", str(tmp_path / "cache"))
    Path("s.tar").write_bytes(content)

    def read() -> None:
        for record in records.read("s.tar"):
            with suppress(ImageRejected):
                images.load(record.image)

    refusal_of(read)
    refusal_of(lambda: import_data(["s.tar"], "out.jsonl", ImportOptions(overwrite=True)))
    assert {path.name for path in tmp_path.iterdir()} <= {"s.tar", "cache", "out.jsonl", "out.jsonl.rejected.jsonl"}
