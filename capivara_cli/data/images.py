"""Images: find them, read them, and say why one cannot be used."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from capivara_cli.data import shards
from capivara_cli.errors import CapivaraError

if TYPE_CHECKING:
    from PIL.Image import Image

# Pillow refuses more pixels than this by itself, unless another library has lifted its limit.
MAX_PIXELS = 178_956_970

NO_FILE = "not a file"
_STARTS = {b"\xff\xd8\xff": ".jpg", b"\x89PNG\r\n": ".png", b"GIF8": ".gif", b"II*\0": ".tif", b"MM\0*": ".tif"}

EXTENSIONS = frozenset(
    [".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"]
)  # what a folder or a shard is searched for; a path that a record names may end in anything


class ImageRejected(CapivaraError):
    """An image that cannot be used; `message` is the reason, without the name."""


@dataclass(frozen=True)
class Rejected:
    """An image that could not be used, and why."""

    image: str
    reason: str


class ImageRef(NamedTuple):
    """Where an image is: a file, or a member of a tar shard."""

    path: str
    """Absolute path of the image file or of the shard."""
    member: str | None = None
    """Name inside the shard."""

    def __str__(self) -> str:
        return f"{self.path}#{self.member}" if self.member else self.path

    @classmethod
    def parse(cls, name: str, folder: Path) -> ImageRef:
        """`images/1.jpg`, an absolute path, or `shards/0.tar#1.jpg`, relative to the folder."""
        path, tar, member = name.partition(".tar#")
        return cls(os.path.abspath(folder / (path + ".tar" if tar else path)), member if tar else None)


def is_image_name(name: str) -> bool:
    """Whether a file's name ends as an image's."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS


def find(folder: Path) -> Iterator[Path]:
    """All images below a folder, in the order of their names; links to folders are not followed.

    Memory is that of the largest single folder's names. Raises CapivaraError for a folder that cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            inside = sorted(
                (entry.name, entry.is_dir(follow_symlinks=False))
                for entry in entries
                if entry.is_dir(follow_symlinks=False) or (is_image_name(entry.name) and entry.is_file())
            )
    except OSError as error:
        raise CapivaraError(f"cannot read the folder {folder}: {error.strerror}") from error
    for name, is_folder in inside:
        if is_folder:
            yield from find(folder / name)
        else:
            yield folder / name


def identity(ref: ImageRef) -> bytes:
    """16 bytes that change when the image does: path, member, and the file's size and time.

    The image itself is not read. Raises ImageRejected when the file is not there.
    """
    try:
        status = os.stat(ref.path)
    except (OSError, ValueError) as error:
        raise ImageRejected(_reason(error)) from error
    text = f"{ref.path}\0{ref.member or ''}\0{status.st_size}\0{status.st_mtime_ns}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def load(ref: ImageRef) -> Image:
    """The image in RGB, upright as its EXIF orientation says; of an animation, the first frame.

    Transparency is dropped, as `convert("RGB")` in CLIP's own preprocessing does. Raises ImageRejected,
    never anything else, for what cannot be read: missing, truncated, not an image, too many pixels.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd EXIF, and of bombs that are refused below
            with Image.open(io.BytesIO(content(ref))) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ImageRejected(f"{image.width} x {image.height} pixels: too many, maybe a decompression bomb")
                image.load()
                return _to_rgb(ImageOps.exif_transpose(image))
    except ImageRejected:
        raise
    except MemoryError as error:
        raise ImageRejected("does not fit in memory") from error
    except Exception as error:  # a broken file makes Pillow's decoders raise nearly anything
        raise ImageRejected(_reason(error)) from error


def _to_rgb(image: Image) -> Image:
    if image.mode.startswith("I") or image.mode == "F":  # convert() clips 16-bit grey at 255: nearly all white
        high = image.getextrema()[1]
        scale = 255 / 65535 if image.mode.startswith("I") else 255 / max(float(high), 1e-9)  # type: ignore[arg-type]
        image = image.convert("F").point(lambda value: value * scale).convert("L")
    elif "transparency" in image.info and image.mode == "P":
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def _reason(error: BaseException) -> str:
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "no such file"
    if isinstance(error, UnidentifiedImageError):
        return "not an image that can be read"
    if isinstance(error, Image.DecompressionBombError):
        return "too many pixels, maybe a decompression bomb"
    return (error.strerror if isinstance(error, OSError) and error.strerror else str(error)) or type(error).__name__


def content(ref: ImageRef) -> bytes:
    """The bytes of the file or member. Raises ImageRejected when there is no such file or member."""
    try:
        if ref.member is None:
            with open(ref.path, "rb", opener=_open_file) as file:
                return file.read()
        place = _member(ref)
        with open(ref.path, "rb") as shard:
            shard.seek(place[0])
            return shard.read(place[1])
    except (OSError, ValueError) as error:
        raise ImageRejected(_reason(error)) from error


def check(ref: ImageRef) -> None:
    """Raise ImageRejected when there is no such file or member. It is not read."""
    try:
        status = os.stat(ref.path)
    except (OSError, ValueError) as error:
        raise ImageRejected(_reason(error)) from error
    if not stat.S_ISREG(status.st_mode):
        raise ImageRejected(NO_FILE)
    if ref.member is not None:
        _member(ref)


def _open_file(path: str, flags: int) -> int:
    """Never waits: a pipe would, and a device never ends."""
    file = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if stat.S_ISREG(os.fstat(file).st_mode):
        return file
    os.close(file)
    raise ValueError(NO_FILE)


def _member(ref: ImageRef) -> tuple[int, int]:
    try:
        place = shards.find(ref.path, ref.member or "")
    except tarfile.ReadError as error:
        raise ImageRejected(f"not a tar file: {error}") from error
    except OSError as error:
        raise ImageRejected(_reason(error)) from error
    if place is None:
        raise ImageRejected("no such member in the shard")
    return place


def ending(content: bytes) -> str | None:
    """The ending that an image's content asks for, `.jpg`; None when it is no image that others read."""
    from PIL import Image

    if found := next((found for start, found in _STARTS.items() if content.startswith(start)), None):
        return found
    if content[8:12] == b"WEBP":
        return ".webp"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content)) as image:
                kind = image.format
    except Exception:  # a broken file makes Pillow's decoders raise nearly anything
        return None
    return next((each for each in sorted(EXTENSIONS) if Image.registered_extensions().get(each) == kind), None)
