"""Images as pixels, for training the image tower itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING

from capivara_cli.data.images import ImageRef, ImageRejected, Rejected
from capivara_cli.data.loading import cores
from capivara_cli.models.clip import Clip
from capivara_cli.models.image_encoder import Views
from capivara_cli.models.seen import digests
from capivara_cli.progress import progress

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

CACHE_BYTES = 1 << 30  # of decoded views; the first ones that were decoded stay, later ones are decoded at each use


class Decoder:
    """Decodes views in threads (Pillow releases the interpreter's lock) and keeps the first gigabyte of them."""

    def __init__(self, clip: Clip, views: int) -> None:
        self._views = Views(clip, views)
        self._cache: dict[tuple[ImageRef, int], Tensor] = {}  # (image, view) -> (3, H, W)
        self._cached_bytes = 0
        self._threads = ThreadPoolExecutor(cores())

    def map(self, refs: Sequence[ImageRef], views: Sequence[int]) -> Iterator[Tensor | ImageRejected]:
        """Yield (3, H, W) float32 for each image and view, or the reason why not."""
        return self._threads.map(self._decode, refs, views)

    def _decode(self, ref: ImageRef, view: int) -> Tensor | ImageRejected:
        cached = self._cache.get((ref, view))
        if cached is not None:
            return cached
        try:
            pixels = self._views.one(ref, view)
        except ImageRejected as error:
            return error
        size = pixels.numel() * pixels.element_size()
        # Threads do not wait for each other here: the limit may be exceeded by a few views, which does no harm.
        if self._cached_bytes + size <= CACHE_BYTES:
            self._cache[ref, view] = pixels
            self._cached_bytes += size
        return pixels


class PixelTable:
    """Views of N images, decoded when they are needed. Has `subset` and `take`, like `ImageTable`."""

    def __init__(self, refs: Sequence[ImageRef], decoder: Decoder) -> None:
        self.refs = refs
        self._decoder = decoder
        self._background = ThreadPoolExecutor(1)  # waits for the decoder's threads while a step is computed
        self._prefetched: tuple[bytes, Future[Tensor]] | None = None  # bytes of the rows and views, and their pixels

    def __len__(self) -> int:
        return len(self.refs)

    @cached_property
    def content(self) -> np.ndarray:
        """Digest of each image's bytes, (N, 16) uint8."""
        return digests(self.refs)

    def subset(self, rows: np.ndarray) -> PixelTable:
        """Return the table of these images only."""
        return PixelTable([self.refs[row] for row in rows], self._decoder)

    def take(self, rows: np.ndarray, views: np.ndarray) -> Tensor:
        """Return the pixels of (B,) images and their views, (B, 3, H, W) float32. Raises ImageRejected."""
        if self._prefetched is not None and self._prefetched[0] == rows.tobytes() + views.tobytes():
            return self._prefetched[1].result()
        return self._load(rows, views)

    def prefetch(self, rows: np.ndarray, views: np.ndarray) -> None:
        """Start to decode what the next `take` will ask for."""
        self._prefetched = (rows.tobytes() + views.tobytes(), self._background.submit(self._load, rows, views))

    def _load(self, rows: np.ndarray, views: np.ndarray) -> Tensor:
        import torch

        refs = [self.refs[row] for row in rows]
        pixels: list[Tensor] = []
        for ref, decoded in zip(refs, self._decoder.map(refs, views.tolist()), strict=True):
            if isinstance(decoded, ImageRejected):
                raise ImageRejected(
                    f"{ref}: {decoded.message}",
                    "it could be read when the run began: put it back, and type the same line again",
                )
            pixels.append(decoded)
        return torch.stack(pixels)


def load_pixels(
    clip: Clip, refs: Sequence[ImageRef], *, views: int = 1, label: str = "images"
) -> tuple[PixelTable, list[int], list[Rejected]]:
    """Decode the plain view of every image once, to find those that cannot be read. The counterpart of `embed`.

    Returns:
        the table of the readable images; their indices in `refs`, ascending; and the rejected ones with the reason.
    """
    decoder = Decoder(clip, views)
    readable: list[int] = []
    rejected: list[Rejected] = []
    with progress() as bar:
        outcomes = decoder.map(refs, [0] * len(refs))
        for index, outcome in enumerate(bar.track(outcomes, total=len(refs), description=f"decoding {label}")):
            if isinstance(outcome, ImageRejected):
                rejected.append(Rejected(str(refs[index]), outcome.message))
            else:
                readable.append(index)
    return PixelTable([refs[index] for index in readable], decoder), readable, rejected
