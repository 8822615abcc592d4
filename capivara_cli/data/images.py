"""Images in files and tar shards: find them, read them, and say why one cannot be used."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from capivara_cli.data import shards
from capivara_cli.errors import CapivaraError, explained

if TYPE_CHECKING:
    from PIL.Image import Image

# The only formats that are opened, whatever a file is called. Some of Pillow's others start programs: EPS Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "PPM")
# What an image may cost. Of the frames of an animation, and of the images in a TIFF, only the first is decoded.
MAX_BYTES = 512 << 20  # of a file; it is refused by its size, before it is read
MAX_PIXELS = 178_956_970  # Pillow's own limit, checked here too because another library may have lifted it
MAX_TEXT_BYTES = 1 << 20  # of a text or a colour profile in a PNG, uncompressed; Pillow's own limit
MAX_ALL_TEXT_BYTES = 64 << 20  # of all texts in a PNG; Pillow's own limit

# Files with these extensions are images when a folder or a shard is searched. A record may name any file.
EXTENSIONS = frozenset(
    [".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"]
)
_FIRST_BYTES = {b"\xff\xd8\xff": ".jpg", b"\x89PNG\r\n": ".png", b"GIF8": ".gif", b"II*\0": ".tif", b"MM\0*": ".tif"}
_NOT_A_FILE = "not a file"


class ImageRejected(CapivaraError):
    """An image cannot be used; `message` is the reason, without the image's name."""


@dataclass(frozen=True)
class Rejected:
    """An image that could not be used, and why."""

    image: str
    reason: str


class ImageRef(NamedTuple):
    """The location of an image: a file, or a member of a tar shard."""

    path: str
    """Absolute path of the image file or of the shard."""
    member: str | None = None
    """Name inside the shard."""

    def __str__(self) -> str:
        return f"{self.path}#{self.member}" if self.member else self.path

    @classmethod
    def parse(cls, name: str, folder: Path) -> ImageRef:
        """Parse `images/1.jpg`, an absolute path, or `shards/0.tar#1.jpg`; relative ones start at the folder."""
        path, tar, member = name.partition(".tar#")
        return cls(os.path.abspath(folder / (path + ".tar" if tar else path)), member if tar else None)


def is_image_name(name: str) -> bool:
    """Whether a file name has the extension of an image."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS


def find(folder: Path) -> Iterator[Path]:
    """Yield all images below a folder, sorted by path; links to folders are not followed.

    Memory is needed for the names in one folder at a time. Raises CapivaraError for a folder that cannot be read.
    """
    entries = []
    with explained(f"cannot read the folder {folder}"), os.scandir(folder) as scan:
        for entry in scan:
            is_folder = entry.is_dir(follow_symlinks=False)
            if is_folder or _may_be_image(entry):
                entries.append((entry.name, is_folder))
    for name, is_folder in sorted(entries):
        if is_folder:
            yield from find(folder / name)
        else:
            yield folder / name


def _may_be_image(entry: os.DirEntry[str]) -> bool:
    if not is_image_name(entry.name):
        return False
    # A link that leads nowhere, or in a circle, counts: it is rejected by its name, like any image that cannot be read.
    return not os.path.isdir(entry.path) if entry.is_symlink() else entry.is_file()


class Stamp(NamedTuple):
    """What tells whether an image has changed, without reading it.

    Attributes:
        identity: 16 bytes that change with path, member, and the file's size and time.
        changed: time of the last change of the file's inode in ns. It also changes where the others were kept: where an
            image was overwritten in place, but also where it was only moved there and back.
    """

    identity: bytes
    changed: int


def stamp(ref: ImageRef) -> Stamp:
    """Return an image's stamp. Raises ImageRejected if the file does not exist."""
    with _rejecting():
        status = os.stat(ref.path)
    text = f"{ref.path}\0{ref.member or ''}\0{status.st_size}\0{status.st_mtime_ns}"
    identity = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return Stamp(identity, status.st_ctime_ns)


def identity(ref: ImageRef) -> bytes:
    """Return the identity of an image's stamp. Raises ImageRejected if the file does not exist."""
    return stamp(ref).identity


def digest(ref: ImageRef) -> bytes:
    """Return 16 bytes that change with the image's content. Raises ImageRejected if it cannot be read."""
    return hashlib.blake2b(content(ref), digest_size=16).digest()


def check(ref: ImageRef) -> None:
    """Check that the file or member exists, without reading it. Raises ImageRejected if it does not."""
    with _rejecting():
        if not stat.S_ISREG(os.stat(ref.path).st_mode):
            raise ImageRejected(_NOT_A_FILE)
        if ref.member is not None:
            _find_member(ref)


@contextmanager
def _rejecting() -> Iterator[None]:
    """Turn any error into ImageRejected: a broken file makes Pillow's decoders raise nearly anything."""
    try:
        yield
    except ImageRejected:
        raise
    except Exception as error:
        raise ImageRejected(_reason(error)) from error


def load(ref: ImageRef) -> Image:
    """Read the image as RGB, rotated as its EXIF orientation says; of an animation, the first frame.

    Transparency is dropped, as `convert("RGB")` in CLIP's own preprocessing does. Raises ImageRejected, and nothing
    else, if the image cannot be read: missing, truncated, not an image, too many pixels.
    """
    from PIL import ImageOps

    with _rejecting(), _opened(content(ref)) as image:
        image.load()
        return _to_rgb(ImageOps.exif_transpose(image))


@contextmanager
def _opened(content: bytes) -> Iterator[Image]:
    """Open an image of one of the formats, within the limits; nothing is decoded yet."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about odd EXIF, and about bombs, which are rejected below
        with Image.open(io.BytesIO(content), formats=_available_formats()) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageRejected(f"{image.width} x {image.height} pixels: too many, maybe a decompression bomb")
            yield image


@cache
def _available_formats() -> list[str]:
    """Return the formats that this Pillow was built with, and set Pillow's limits on texts."""
    from PIL import Image, PngImagePlugin

    PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = MAX_TEXT_BYTES, MAX_ALL_TEXT_BYTES
    Image.init()  # registers all formats
    return [name for name in FORMATS if name in Image.OPEN]


def _to_rgb(image: Image) -> Image:
    if image.mode.startswith("I") or image.mode == "F":  # convert() alone clips 16-bit grey at 255: nearly all white
        high = image.getextrema()[1]
        scale = 255 / 65535 if image.mode.startswith("I") else 255 / max(float(high), 1e-9)  # type: ignore[arg-type]
        image = image.convert("F").point(lambda value: value * scale).convert("L")
    elif "transparency" in image.info and image.mode == "P":
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def _reason(error: Exception) -> str:
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "no such file"
    if isinstance(error, UnidentifiedImageError):
        return "not an image that can be read"
    if isinstance(error, Image.DecompressionBombError):
        return "too many pixels, maybe a decompression bomb"
    if isinstance(error, MemoryError):
        return "does not fit in memory"
    if isinstance(error, tarfile.ReadError):
        return f"not a tar file: {error}"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def content(ref: ImageRef) -> bytes:
    """Read the bytes of the file or member. Raises ImageRejected if it cannot be read, or is above MAX_BYTES."""
    with _rejecting():
        if ref.member is None:
            with open(ref.path, "rb", opener=_open_regular) as file:
                _check_size(os.fstat(file.fileno()).st_size)
                return file.read()
        offset, size = _find_member(ref)
        _check_size(size)
        with open(ref.path, "rb") as shard:
            shard.seek(offset)
            return shard.read(size)


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise ImageRejected(f"{size:,} bytes: more than {MAX_BYTES >> 20} MiB")


def _open_regular(path: str, flags: int) -> int:
    """Open a regular file only: a pipe would block, and a device never ends."""
    file = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if stat.S_ISREG(os.fstat(file).st_mode):
        return file
    os.close(file)
    raise ImageRejected(_NOT_A_FILE)


def _find_member(ref: ImageRef) -> tuple[int, int]:
    """Return offset and size of a member in its shard."""
    location = shards.find(ref.path, ref.member or "")
    if location is None:
        raise ImageRejected("no such member in the shard")
    return location


def extension_of(content: bytes) -> str | None:
    """Return the extension that fits an image's content, such as `.jpg`; None if common readers cannot read it."""
    from PIL import Image

    for first_bytes, extension in _FIRST_BYTES.items():
        if content.startswith(first_bytes):
            return extension
    if content[8:12] == b"WEBP":
        return ".webp"
    try:
        with _opened(content) as image:
            format_ = image.format
    except Exception:  # a broken file makes Pillow's decoders raise nearly anything
        return None
    formats = Image.registered_extensions()
    return next((extension for extension in sorted(EXTENSIONS) if formats.get(extension) == format_), None)
