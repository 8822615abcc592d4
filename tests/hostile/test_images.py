"""Images that are damaged, huge, or of a format that Pillow opens by starting a program."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from PIL import Image

from capivara_cli.data import images
from capivara_cli.data.images import ImageRef, ImageRejected
from tests.hostile.conftest import damaged, fuzzing


def encoded(format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (17, 9), (200, 30, 60)).save(buffer, format, **options)
    return buffer.getvalue()


Image.init()
CONTENTS = {name: encoded(name) for name in images.FORMATS if name in Image.SAVE}
OTHERS = ("DDS", "EPS", "ICNS", "ICO", "IM", "PCX", "SGI", "TGA")  # that Pillow can write, and opens if it may


def reason(path: Path) -> str | None:
    """Return why an image is rejected, or None; any other exception fails the test."""
    try:
        return None if images.load(ImageRef(str(path))).mode == "RGB" else "another mode"
    except ImageRejected as error:
        return error.message or "no reason"


@fuzzing(300)
@given(content=damaged(*CONTENTS.values()))
def test_a_damaged_image_is_loaded_or_rejected(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(content)
    assert reason(tmp_path / "1.png") not in ("another mode", "no reason")
    assert images.extension_of(content) in {None, *images.EXTENSIONS}


@pytest.mark.parametrize("name", CONTENTS)
def test_each_format_is_opened_whatever_the_file_is_called(name: str, tmp_path: Path) -> None:
    (tmp_path / "1.x").write_bytes(CONTENTS[name])
    assert reason(tmp_path / "1.x") is None
    assert images.extension_of(CONTENTS[name]) in images.EXTENSIONS


@pytest.mark.parametrize("name", OTHERS)
def test_no_other_format_is_opened(name: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Pillow will drop some of them
        content = encoded(name)
    (tmp_path / "1.png").write_bytes(content)
    assert reason(tmp_path / "1.png") == "not an image that can be read"
    assert images.extension_of(content) is None


def test_no_program_is_started_for_postscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow starts `gs` for EPS; one that leaves a mark stands for it."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    (tmp_path / "1.png").write_bytes(encoded("EPS"))
    assert reason(tmp_path / "1.png") == "not an image that can be read"
    assert not (tmp_path / "started").exists()


def test_a_large_file_is_rejected_by_its_size(tmp_path: Path) -> None:
    with (tmp_path / "1.png").open("wb") as file:
        file.write(CONTENTS["PNG"])
        file.truncate(images.MAX_BYTES + 1)  # of which the disk holds nothing
    assert reason(tmp_path / "1.png") == "536,870,913 bytes: more than 512 MiB"
    with pytest.raises(ImageRejected, match="more than 512 MiB"):
        images.digest(ImageRef(str(tmp_path / "1.png")))


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    head, body, end = CONTENTS["PNG"][:33], CONTENTS["PNG"][33:-12], CONTENTS["PNG"][-12:]
    extra = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return head + extra + body + end


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_a_text_that_unpacks_to_gigabytes_is_not_unpacked(kind: bytes, tmp_path: Path) -> None:
    bomb = zlib.compress(bytes(1 << 24), 9)
    (tmp_path / "1.png").write_bytes(png((kind, b"a\0\0" + bomb)))
    said = reason(tmp_path / "1.png")
    assert said is None or "too large" in said


def test_many_pixels_are_rejected_before_they_are_decoded(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    content = bytearray(CONTENTS["PNG"])
    content[16:29] = header
    content[29:33] = struct.pack(">I", zlib.crc32(b"IHDR" + header))
    (tmp_path / "1.png").write_bytes(content)
    assert "too many" in str(reason(tmp_path / "1.png"))
