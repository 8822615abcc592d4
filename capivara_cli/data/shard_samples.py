"""The images of a tar shard in WebDataset's form, with the files beside each."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from capivara_cli import console
from capivara_cli.data import images, sidecars
from capivara_cli.data.shards import Shard
from capivara_cli.errors import CapivaraError


class ShardSample(NamedTuple):
    """An image of a shard.

    Attributes:
        where: `shard.tar#000123.jpg`, for messages.
        image: the same with forward slashes: the record's `image`.
        data: the record made from the files beside the image, or the error if they cannot be read.
    """

    where: str
    image: str
    data: dict[str, Any] | CapivaraError


def read(path: Path, lang: str = "en", encoding: str | None = None) -> Iterator[ShardSample]:
    """Read all images of a shard. Warns of skipped members and samples at the end.

    Args:
        lang: language of captions that do not name one.
        encoding: of `.txt` and `.cls` files; None is UTF-8.

    Raises:
        CapivaraError: not a tar file.
    """
    shard = Shard(path)
    without_image, first_without_image = 0, ""
    try:
        with path.open("rb") as file:
            for stem, members in shard.samples():
                image = next((member for member in members.values() if images.is_image_name(member.name)), None)
                if image is None:
                    without_image += 1
                    first_without_image = first_without_image or stem
                    continue
                where, name = f"{path}#{image.name}", f"{path.as_posix()}#{image.name}"
                parts = {}
                for extension in sidecars.EXTENSIONS:
                    if extension in members:
                        file.seek(members[extension].offset)
                        # One byte more than the limit, so that `sidecars.read` notices a file that is too large.
                        parts[extension] = file.read(min(members[extension].size, sidecars.MAX_BYTES + 1))
                try:
                    data = {"id": stem, **sidecars.read(parts, f"{path}#{stem}", lang, encoding), "image": name}
                    yield ShardSample(where, name, data)
                except CapivaraError as error:
                    yield ShardSample(where, name, error)
    except (OSError, tarfile.ReadError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"not a tar file: {error}"
        raise CapivaraError(f"{path}: {reason}") from error
    if shard.lost:
        console.warn(f"{path} is {shard.lost}")
    for reason, (count, first) in shard.refused.items():
        console.warn(f"{path}: {count:,} members left out ({reason}), the first: {first}")
    if without_image:
        console.warn(
            f"{path}: {console.counted(without_image, 'sample')} without an image, the first {first_without_image}"
        )
