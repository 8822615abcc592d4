from __future__ import annotations

import io
import os
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from capivara_cli.data import images
from capivara_cli.data.images import ImageRef, ImageRejected
from capivara_cli.errors import CapivaraError
from tests.helpers import write_tar

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
LARGE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)  # noise, so that its files are long


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def empty_png(width: int, height: int) -> bytes:
    """A small file whose header claims this number of grey pixels."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + png_chunk(b"IEND", b"")


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def load(path: Path, content: bytes | None = None) -> Image.Image:
    if content is not None:
        path.write_bytes(content)
    return images.load(ImageRef(str(path)))


def refused(path: Path, content: bytes | None = None) -> str:
    with pytest.raises(ImageRejected) as caught:
        load(path, content)
    return caught.value.message


# Per EXIF orientation: the position in the upright image of the pixel that the file has at its top left.
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


def test_a_palettes_transparency_is_dropped_and_its_colours_are_kept(tmp_path: Path) -> None:
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
def test_a_file_that_is_not_an_image_is_rejected(content: bytes, tmp_path: Path) -> None:
    assert refused(tmp_path / "a.png", content) == "not an image that can be read"


@pytest.mark.parametrize("side", [50_000, 15_000])
def test_a_decompression_bomb_is_rejected(side: int, tmp_path: Path) -> None:
    assert "too many pixels" in refused(tmp_path / "a.png", empty_png(side, side))


def test_a_decompression_bomb_is_rejected_if_pillows_limit_was_lifted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert refused(tmp_path / "a.png", empty_png(50_000, 50_000)).startswith("50000 x 50000 pixels: too many")


def test_an_image_that_pillow_only_warns_about_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    path = write_tar(tmp_path / "0.tar", {n: encoded(Image.new("RGB", (5, 4), c)) for n, c in colours.items()})
    for name, colour in colours.items():
        assert images.load(ImageRef(str(path), name)).getpixel((4, 3)) == colour


@pytest.mark.parametrize(
    ("shard", "reason"),
    [
        ("0.tar", "no such member in the shard"),
        ("none.tar", "no such file"),
        ("text.tar", "not a tar file: .*"),
    ],
)
def test_a_missing_member_is_rejected(shard: str, reason: str, tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"0.png": b"x"})
    (tmp_path / "text.tar").write_bytes(b"This is a text." * 100)
    ref = ImageRef(str(tmp_path / shard), "1.png")
    for read in (images.load, images.content, images.check):
        with pytest.raises(ImageRejected, match=f"^{reason}$"):
            read(ref)


def test_a_reference_with_a_member_is_split_at_the_tar(tmp_path: Path) -> None:
    assert ImageRef.parse("s/0.tar#a#1.jpg", tmp_path) == ImageRef(str(tmp_path / "s" / "0.tar"), "a#1.jpg")
    assert ImageRef.parse("../a#1.jpg", tmp_path / "b") == ImageRef(str(tmp_path / "a#1.jpg"))


def test_a_reference_reads_back_from_its_text(tmp_path: Path) -> None:
    for ref in (ImageRef(str(tmp_path / "a.jpg")), ImageRef(str(tmp_path / "0.tar"), "a.jpg")):
        assert ImageRef.parse(str(ref), tmp_path) == ref


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
    path = str(write_tar(tmp_path / "0.tar", {"0.png": b"x"}))
    assert len({images.identity(ImageRef(path, member)) for member in (None, "0.png", "1.png")}) == 3


def test_a_missing_file_has_no_identity(tmp_path: Path) -> None:
    with pytest.raises(ImageRejected, match="no such file"):
        images.identity(ImageRef(str(tmp_path / "none.jpg")))


def test_a_member_whose_name_is_not_unicode_has_an_identity(tmp_path: Path) -> None:
    (tmp_path / "s.tar").touch()
    assert len(images.identity(ImageRef.parse("s.tar#\ud800.jpg", tmp_path))) == 16


def test_images_are_found_below_a_folder_in_the_order_of_their_paths(tmp_path: Path) -> None:
    names = ("b.jpg", "a/z.JPEG", "a.jpg", "a/b/c.png", "a-b/1.gif", "B/2.webp", "a/b.png", "ä/1.jpg")
    for name in (*names, "a/notes.txt", "png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert list(images.find(tmp_path)) == sorted(tmp_path / name for name in names)


def test_links_to_images_are_followed_and_links_to_folders_are_not(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "1.jpg").write_bytes(b"")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "2.jpg").symlink_to(tmp_path / "in" / "1.jpg")
    (tmp_path / "in" / "3.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "in" / "4.jpg").symlink_to(tmp_path / "in" / "4.jpg")
    (tmp_path / "in" / "5.jpg").symlink_to(tmp_path / "in")
    assert [path.name for path in images.find(tmp_path)] == ["1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    for name in ("3.jpg", "4.jpg"):  # leads nowhere, or in a circle
        with pytest.raises(ImageRejected):
            images.load(ImageRef.parse(f"in/{name}", tmp_path))


def grow(folder: Path, depth: int, rng: random.Random) -> None:
    """Make files and folders whose names have characters that sort before and after a slash and a dot."""
    for _ in range(rng.randrange(6)):
        name = "".join(rng.choices("ab-. _0Zä", k=rng.randint(1, 3))) + rng.choice(["", ".jpg", ".PNG", ".txt"])
        path = folder / name
        if name.strip(".") and not path.exists():
            if depth and rng.random() < 0.5:
                path.mkdir()
                grow(path, depth - 1, rng)
            else:
                path.touch()


@pytest.mark.parametrize("seed", range(30))
def test_images_are_sorted_by_path_in_any_tree(seed: int, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()  # so that no tree is empty
    for index in range(3):
        (tmp_path / f"a{index}" / "b").mkdir(parents=True)
        grow(tmp_path / f"a{index}" / "b", 3, random.Random(10 * seed + index))
    expected = sorted(path for path in tmp_path.rglob("*") if path.is_file() and images.is_image_name(path.name))
    assert list(images.find(tmp_path)) == expected


def test_a_folder_is_read_when_its_turn_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/1.jpg", "b/2.jpg", "c/3.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    scandir, scanned = os.scandir, list[str]()

    def refuse(folder: Path) -> Iterator[os.DirEntry[str]]:
        scanned.append(folder.name)
        if folder.name == "b":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    paths = images.find(tmp_path)
    assert not scanned
    assert next(paths) == tmp_path / "a" / "1.jpg"
    assert scanned == [tmp_path.name, "a"]
    with pytest.raises(CapivaraError, match=f"cannot read the folder {tmp_path}/b: Permission denied"):
        next(paths)


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CapivaraError, match=r"cannot read the folder .*none: No such file"):
        list(images.find(tmp_path / "none"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.jpg", True), ("a.b.JPEG", True), ("ä/1.WebP", True), ("a.jpg.txt", False), (".jpg", False), ("jpg", False)],
)
def test_an_image_is_recognised_by_its_extension(name: str, expected: bool) -> None:
    assert images.is_image_name(name) is expected
