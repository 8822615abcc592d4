"""Images as pixels, for training the image tower itself."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from capivara_cli.console import progress
from capivara_cli.data.images import ImageRef, ImageRejected, Rejected
from capivara_cli.models.image_encoder import Views

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from capivara_cli.models.clip import Clip

CACHE_BYTES = 1 << 30  # decoded views that are kept, in the order of first use


class Decoder:
    """Decodes views in threads (Pillow lets go of the interpreter's lock) and keeps the first gigabyte of them."""

    def __init__(self, clip: Clip, views: int) -> None:
        self._views = Views(clip, views)
        self._cache: dict[tuple[ImageRef, int], Tensor] = {}
        self._cached = 0
        self._threads = ThreadPoolExecutor(os.cpu_count())

    def map(self, refs: Sequence[ImageRef], views: Sequence[int]) -> Iterator[Tensor | ImageRejected]:
        """(3, H, W) float32 of each image and view, or why not."""
        return self._threads.map(self._one, refs, views)

    def _one(self, ref: ImageRef, view: int) -> Tensor | ImageRejected:
        known = self._cache.get((ref, view))
        if known is not None:
            return known
        try:
            pixels = self._views.one(ref, view)
        except ImageRejected as error:
            return error
        size = pixels.numel() * pixels.element_size()
        if self._cached + size <= CACHE_BYTES:
            self._cache[ref, view] = pixels
            self._cached += size
        return pixels


class PixelTable:
    """Views of N images, decoded when they are asked for."""

    def __init__(self, refs: Sequence[ImageRef], decoder: Decoder) -> None:
        self.refs = refs
        self._decoder = decoder
        self._ahead = ThreadPoolExecutor(1)
        self._next: tuple[bytes, Future[Tensor]] | None = None

    def __len__(self) -> int:
        return len(self.refs)

    def subset(self, rows: np.ndarray) -> PixelTable:
        """The table of these images only."""
        return PixelTable([self.refs[row] for row in rows], self._decoder)

    def take(self, rows: np.ndarray, view: np.ndarray) -> Tensor:
        """(B,) images and their views -> (B, 3, H, W) float32. Raises ImageRejected."""
        if self._next is not None and self._next[0] == rows.tobytes() + view.tobytes():
            return self._next[1].result()
        return self._load(rows, view)

    def prefetch(self, rows: np.ndarray, view: np.ndarray) -> None:
        """Begin to decode what the next `take` will ask for."""
        self._next = (rows.tobytes() + view.tobytes(), self._ahead.submit(self._load, rows, view))

    def _load(self, rows: np.ndarray, view: np.ndarray) -> Tensor:
        import torch

        refs = [self.refs[row] for row in rows]
        parts: list[Tensor] = []
        for ref, part in zip(refs, self._decoder.map(refs, view.tolist()), strict=True):
            if isinstance(part, ImageRejected):
                raise ImageRejected(f"{ref}: {part.message}", "it was readable when the run began")
            parts.append(part)
        return torch.stack(parts)


def check(refs: Sequence[ImageRef], decoder: Decoder, label: str) -> tuple[list[int], list[Rejected]]:
    """Decode every image once: the indices of those that can be read, and the others with the reason."""
    good: list[int] = []
    rejected: list[Rejected] = []
    with progress() as bar:
        outcomes = decoder.map(refs, [0] * len(refs))
        for index, outcome in enumerate(bar.track(outcomes, total=len(refs), description=f"decoding {label}")):
            if isinstance(outcome, ImageRejected):
                rejected.append(Rejected(str(refs[index]), outcome.message))
            else:
                good.append(index)
    return good, rejected
