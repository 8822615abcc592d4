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
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from capivara_cli.data import shards
from capivara_cli.errors import CapivaraError, explained

if TYPE_CHECKING:
    from PIL.Image import Image

# Pillow's own limit, checked here too because another library may have lifted it.
MAX_PIXELS = 178_956_970

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
            if is_folder or (is_image_name(entry.name) and entry.is_file()):
                entries.append((entry.name, is_folder))
    for name, is_folder in sorted(entries):
        if is_folder:
            yield from find(folder / name)
        else:
            yield folder / name


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
    from PIL import Image, ImageOps

    with _rejecting(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about odd EXIF, and about bombs, which are rejected below
        with Image.open(io.BytesIO(content(ref))) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageRejected(f"{image.width} x {image.height} pixels: too many, maybe a decompression bomb")
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))


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
    """Read the bytes of the file or member. Raises ImageRejected if it does not exist or cannot be read."""
    with _rejecting():
        if ref.member is None:
            with open(ref.path, "rb", opener=_open_regular) as file:
                return file.read()
        offset, size = _find_member(ref)
        with open(ref.path, "rb") as shard:
            shard.seek(offset)
            return shard.read(size)


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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content)) as image:
                format_ = image.format
    except Exception:  # a broken file makes Pillow's decoders raise nearly anything
        return None
    formats = Image.registered_extensions()
    return next((extension for extension in sorted(EXTENSIONS) if formats.get(extension) == format_), None)
