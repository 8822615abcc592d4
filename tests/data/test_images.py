from __future__ import annotations

import io
import os
import random
import struct
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from capivara_cli.data import images
from capivara_cli.data.images import ImageRef, ImageRejected
from capivara_cli.errors import CapivaraError

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
LARGE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)  # noise, so that its files are long


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def empty_png(width: int, height: int) -> bytes:
    """A small file that says it has so many grey pixels."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + png_chunk(b"IEND", b"")


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def shard(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def load(path: Path, content: bytes | None = None) -> Image.Image:
    if content is not None:
        path.write_bytes(content)
    return images.load(ImageRef(str(path)))


def refused(path: Path, content: bytes | None = None) -> str:
    with pytest.raises(ImageRejected) as caught:
        load(path, content)
    return caught.value.message


# For each EXIF orientation: where the corner that the file has at its top left belongs in the upright image.
@pytest.mark.parametrize(
    ("orientation", "size", "corner"),
    [
        (1, (3, 2), (0, 0)),
        (2, (3, 2), (2, 0)),
        (3, (3, 2), (2, 1)),
        (4, (3, 2), (0, 1)),
        (5, (2, 3), (0, 0)),
        (6, (2, 3), (1, 0)),
        (7, (2, 3), (1, 2)),
        (8, (2, 3), (0, 2)),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_an_image_is_turned_upright_as_its_exif_says(
    kind: str, orientation: int, size: tuple[int, int], corner: tuple[int, int], tmp_path: Path
) -> None:
    image = Image.new("RGB", (3, 2), BLUE)
    image.putpixel((0, 0), RED)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a", kind, exif=exif)
    upright = load(tmp_path / "a")
    assert upright.size == size
    assert upright.getpixel(corner) == RED


def test_16_bit_grey_keeps_its_greys(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 16448, 32896, 65535]], np.uint16))
    greys = np.asarray(load(tmp_path / "a.png", encoded(image)))[0, :, 0]
    assert np.abs(greys.astype(int) - [0, 64, 128, 255]).max() <= 1


def test_a_float_image_is_scaled_to_its_brightest_pixel(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32))
    greys = np.asarray(load(tmp_path / "a.tiff", encoded(image, "TIFF")))[0, :, 0]
    assert np.abs(greys.astype(int) - [0, 127, 255]).max() <= 1


def test_a_palettes_transparency_is_dropped_and_its_colours_stay(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=b"\x00\x80")
    loaded = load(tmp_path / "a.png")
    assert [loaded.getpixel((x, 0)) for x in (0, 1)] == [RED, GREEN]


@pytest.mark.parametrize(("mode", "pixel"), [("RGBA", (255, 0, 0, 0)), ("LA", (9, 0)), ("L", 9), ("1", 1)])
def test_every_mode_becomes_rgb(mode: str, pixel: int | tuple[int, ...], tmp_path: Path) -> None:
    loaded = load(tmp_path / "a.png", encoded(Image.new(mode, (2, 2), pixel)))
    expected = {"RGBA": RED, "LA": (9, 9, 9), "L": (9, 9, 9), "1": (255, 255, 255)}[mode]
    assert (loaded.mode, loaded.getpixel((1, 1))) == ("RGB", expected)


def test_a_cmyk_jpeg_becomes_rgb(tmp_path: Path) -> None:
    loaded = load(tmp_path / "a.jpg", encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))
    assert loaded.mode == "RGB"
    assert np.abs(np.asarray(loaded).astype(int) - RED).max() < 8


def test_an_animations_first_frame_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in (GREEN, RED)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert load(tmp_path / "a.gif").getpixel((0, 0)) == GREEN


def test_the_name_does_not_decide_the_format(tmp_path: Path) -> None:
    assert load(tmp_path / "a.jpg", encoded(Image.new("RGB", (2, 2), RED), "PNG")).getpixel((0, 0)) == RED


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_truncated_image_is_rejected(kind: str, tmp_path: Path) -> None:
    content = encoded(Image.fromarray(LARGE), kind)
    assert refused(tmp_path / "a", content[: len(content) // 2])


def test_a_broken_png_is_rejected(tmp_path: Path) -> None:
    content = bytearray(encoded(Image.fromarray(LARGE)))
    content[60:200] = bytes(140)
    assert refused(tmp_path / "a.png", bytes(content))


@pytest.mark.parametrize("content", [b"This is a text, whatever its name says.\n", b"", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_rejected(content: bytes, tmp_path: Path) -> None:
    assert refused(tmp_path / "a.png", content) == "not an image that can be read"


@pytest.mark.parametrize("side", [50_000, 15_000])
def test_a_decompression_bomb_is_rejected(side: int, tmp_path: Path) -> None:
    assert "too many pixels" in refused(tmp_path / "a.png", empty_png(side, side))


def test_a_decompression_bomb_is_rejected_where_pillows_limit_was_lifted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert refused(tmp_path / "a.png", empty_png(50_000, 50_000)).startswith("50000 x 50000 pixels: too many")


def test_an_image_that_pillow_only_warns_of_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 - 1)
    assert load(tmp_path / "a.png", encoded(Image.fromarray(LARGE))).size == (64, 64)


def test_a_missing_file_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert refused(tmp_path / "none.jpg") == "no such file"
    assert refused(tmp_path / "file" / "none.jpg") == "no such file"


def test_a_folder_is_rejected(tmp_path: Path) -> None:
    assert refused(tmp_path) == "not a file"


def test_members_of_a_shard_are_loaded(tmp_path: Path) -> None:
    colours = {"a/0.png": RED, "a/1.png": GREEN}
    path = shard(tmp_path / "0.tar", {n: encoded(Image.new("RGB", (5, 4), c)) for n, c in colours.items()})
    for name, colour in colours.items():
        assert images.load(ImageRef(str(path), name)).getpixel((4, 3)) == colour


def test_a_missing_member_is_rejected(tmp_path: Path) -> None:
    path = shard(tmp_path / "0.tar", {"0.png": b"x"})
    with pytest.raises(ImageRejected, match="no such member in the shard"):
        images.load(ImageRef(str(path), "1.png"))


def test_a_member_of_a_missing_shard_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ImageRejected, match="no such file"):
        images.load(ImageRef(str(tmp_path / "none.tar"), "1.png"))


def test_what_is_no_tar_has_no_members(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(b"This is a text." * 100)
    with pytest.raises(ImageRejected, match="not a tar file"):
        images.load(ImageRef(str(tmp_path / "0.tar"), "1.png"))


def test_a_reference_with_a_member_is_split_at_the_tar(tmp_path: Path) -> None:
    assert ImageRef.parse("s/0.tar#a#1.jpg", tmp_path) == ImageRef(str(tmp_path / "s" / "0.tar"), "a#1.jpg")
    assert ImageRef.parse("../a#1.jpg", tmp_path / "b") == ImageRef(str(tmp_path / "a#1.jpg"))


def test_a_reference_reads_back_from_its_text(tmp_path: Path) -> None:
    for ref in (ImageRef(str(tmp_path / "a.jpg")), ImageRef(str(tmp_path / "0.tar"), "a.jpg")):
        assert ImageRef.parse(str(ref), tmp_path) == ref


def test_images_are_found_below_a_folder_by_name(tmp_path: Path) -> None:
    for name in ("b.png", "a/z.JPEG", "a/b/c.webp", "a/notes.txt", "png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [path.relative_to(tmp_path).as_posix() for path in images.find(tmp_path)] == [
        "a/b/c.webp",
        "a/z.JPEG",
        "b.png",
    ]


def test_an_identity_changes_with_the_files_time_and_size(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x")
    os.utime(path, ns=(0, 5))
    first = images.identity(ImageRef(str(path)))
    assert images.identity(ImageRef(str(path))) == first
    os.utime(path, ns=(0, 6))
    later = images.identity(ImageRef(str(path)))
    path.write_bytes(b"xy")
    os.utime(path, ns=(0, 5))
    assert len({first, later, images.identity(ImageRef(str(path)))}) == 3


def test_members_of_one_shard_differ_in_identity(tmp_path: Path) -> None:
    path = str(shard(tmp_path / "0.tar", {"0.png": b"x"}))
    assert len({images.identity(ImageRef(path, member)) for member in (None, "0.png", "1.png")}) == 3


def test_a_missing_file_has_no_identity(tmp_path: Path) -> None:
    with pytest.raises(ImageRejected, match="no such file"):
        images.identity(ImageRef(str(tmp_path / "none.jpg")))


def test_a_shard_that_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    for size in (3, 5):
        content = io.BytesIO()
        Image.new("RGB", (size, size)).save(content, "PNG")
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            filler = tarfile.TarInfo("filler")
            filler.size = 2000 * size
            archive.addfile(filler, io.BytesIO(bytes(filler.size)))
            info = tarfile.TarInfo("a.png")
            info.size = len(content.getvalue())
            archive.addfile(info, io.BytesIO(content.getvalue()))
        os.utime(tmp_path / "a.tar", (size, size))
        assert images.load(ImageRef(str(tmp_path / "a.tar"), "a.png")).size == (size, size)


def test_a_member_whose_name_is_not_unicode_has_an_identity(tmp_path: Path) -> None:
    (tmp_path / "s.tar").touch()
    assert len(images.identity(ImageRef.parse("s.tar#\ud800.jpg", tmp_path))) == 16


def test_images_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for name in ("b.jpg", "a/z.jpg", "a.jpg", "a/b/c.png", "a-b/1.gif", "B/2.webp", "a/b.png", "ä/1.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert list(images.find(tmp_path)) == sorted(path for path in tmp_path.rglob("*") if path.is_file())


def test_links_to_images_are_followed_and_links_to_folders_are_not(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "1.jpg").write_bytes(b"")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "2.jpg").symlink_to(tmp_path / "in" / "1.jpg")
    (tmp_path / "in" / "3.jpg").symlink_to(tmp_path / "nowhere")
    assert [path.name for path in images.find(tmp_path)] == ["1.jpg", "2.jpg"]


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(CapivaraError, match=f"cannot read the folder {tmp_path}: Permission denied"):
        list(images.find(tmp_path))


def grow(folder: Path, depth: int, lot: random.Random) -> None:
    """Files and folders whose names differ in what sorts before and after a slash and a dot."""
    for _ in range(lot.randrange(6)):
        name = "".join(lot.choices("ab-. _0Zä", k=lot.randint(1, 3))) + lot.choice(["", ".jpg", ".PNG", ".txt"])
        path = folder / name
        if name.strip(".") and not path.exists():
            if depth and lot.random() < 0.5:
                path.mkdir()
                grow(path, depth - 1, lot)
            else:
                path.touch()


@pytest.mark.parametrize("seed", range(30))
def test_images_come_in_the_order_of_their_paths_in_any_tree(seed: int, tmp_path: Path) -> None:
    for number in range(3):  # so that no tree is empty
        (tmp_path / f"a{number}" / "b").mkdir(parents=True)
        (tmp_path / f"a{number}.jpg").touch()
        grow(tmp_path / f"a{number}" / "b", 3, random.Random(10 * seed + number))
    every = sorted(path for path in tmp_path.rglob("*") if path.is_file() and images.is_image_name(path.name))
    assert list(images.find(tmp_path)) == every


def test_a_folder_below_that_cannot_be_read_is_named_when_its_turn_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/1.jpg", "b/2.jpg", "c/3.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    scan, asked = os.scandir, list[str]()

    def refuse(folder: Path) -> Iterator[os.DirEntry[str]]:
        asked.append(folder.name)
        if folder.name == "b":
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    found = images.find(tmp_path)
    assert not asked
    assert next(found) == tmp_path / "a" / "1.jpg"
    assert asked == [tmp_path.name, "a"]
    with pytest.raises(CapivaraError, match=f"cannot read the folder {tmp_path}/b: Permission denied"):
        next(found)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CapivaraError, match=r"cannot read the folder .*none: No such file"):
        list(images.find(tmp_path / "none"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.jpg", True), ("a.b.JPEG", True), ("ä/1.WebP", True), ("a.jpg.txt", False), (".jpg", False), ("jpg", False)],
)
def test_an_images_name_ends_in_a_known_way(name: str, expected: bool) -> None:
    assert images.is_image_name(name) is expected
