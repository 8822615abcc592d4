"""Embed the images of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from capivara_cli import console
from capivara_cli.data.images import ImageRef, Rejected
from capivara_cli.errors import CapivaraError
from capivara_cli.models.clip import Clip
from capivara_cli.models.embedding_cache import ImageTable, embed
from capivara_cli.models.seen import UNKNOWN

if TYPE_CHECKING:
    import numpy as np


def embed_images(
    clip: Clip, role: str, images: Sequence[ImageRef], rejected: Sequence[Rejected] = ()
) -> tuple[ImageTable, list[int], list[Rejected]]:
    """Return the embeddings of the readable images, their indices, and all images that cannot be used.

    Warns of these once, for the model and not for the baseline again.

    Args:
        rejected: images that were rejected while the data was read.

    Raises:
        CapivaraError: no image can be read.
    """
    table, readable, unreadable = embed(clip, images)
    if not readable:
        raise CapivaraError(f"no image can be read; the first: {unreadable[0].image}: {unreadable[0].reason}")
    rejected = [*rejected, *unreadable]
    if rejected and role == "model":
        named = "; ".join(f"{item.image}: {item.reason}" for item in rejected[:10])
        more = f"; and {len(rejected) - 10} more" if len(rejected) > 10 else ""
        console.warn(f"{console.counted(len(rejected), 'image')} left out: {named}{more}")
    return table, readable, rejected


def count_copies(images: Sequence[ImageRef], content: np.ndarray, *, warn: bool) -> int:
    """Return how many images have the content of an earlier one.

    They are not merged, so that a published test set keeps its size.

    Args:
        content: (N, 16) uint8, digests of the images.
        warn: whether to warn of the copies, with the first one.
    """
    firsts: dict[bytes, ImageRef] = {}
    copies = []
    for image, row in zip(images, content, strict=True):
        digest = row.tobytes()
        if digest == UNKNOWN:
            continue
        if (first := firsts.setdefault(digest, image)) is not image:
            copies.append((image, first))
    if copies and warn:
        image, first = copies[0]
        console.warn(
            f"{len(copies):,} of {len(images):,} test images ({len(copies) / len(images):.1%}) are copies of another,"
            f" which lowers recall: {image} has the content of {first}"
        )
    return len(copies)
