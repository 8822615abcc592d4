"""Image embeddings: computed once, cached on disk, shared by all languages, runs and evaluations."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from capivara_cli.console import progress
from capivara_cli.data import images
from capivara_cli.data.images import ImageRef, ImageRejected, Rejected, Stamp
from capivara_cli.data.loading import load_images
from capivara_cli.models.clip import Clip
from capivara_cli.models.embedding_store import Prepare, Store
from capivara_cli.models.image_encoder import Views
from capivara_cli.models.segments import gather

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

T = TypeVar("T")

IN_MEMORY_BYTES = 4 << 30  # a larger table stays on disk, memory-mapped


@dataclass
class ImageTable:
    """The embeddings of N images.

    Attributes:
        parts: arrays of (n, views, D) float16: one in memory, or memory-mapped segments.
        rows: (N,) row of each image, counted through all parts.
    """

    parts: list[np.ndarray]
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def views(self) -> int:
        """Number of views per image."""
        return int(self.parts[0].shape[1])

    def subset(self, rows: np.ndarray) -> ImageTable:
        """Return the table of some of the images."""
        return ImageTable(self.parts, self.rows[rows])

    def take(self, rows: np.ndarray, view: np.ndarray | int = 0) -> Tensor:
        """Return the embeddings of (B,) images, each in its view: (B, D) float32."""
        import numpy as np
        import torch

        features = gather(self.parts, self.rows[rows], np.broadcast_to(view, len(rows)))  # (B, D) float16
        return torch.from_numpy(features.astype(np.float32))

    def in_memory(self) -> ImageTable:
        """Return a table with one part in memory if that is small: a random read of a mapped file costs a page."""
        import numpy as np

        size = len(self) * self.parts[0][0].nbytes if len(self) else 0
        if not 0 < size <= IN_MEMORY_BYTES:
            return self
        return ImageTable([gather(self.parts, self.rows)], np.arange(len(self)))


def embed(
    clip: Clip, refs: Sequence[ImageRef], *, views: int = 1, label: str = "images"
) -> tuple[ImageTable, list[int], list[Rejected]]:
    """Return the embeddings of images: cached ones from the store, the others computed and added to it.

    View 0 is the image as open_clip evaluates it; further views are augmented as in the recipe, see
    `image_encoder.augmentation`. With several ranks, each computes its share.

    Returns:
        the table; the indices of `refs` that it has, ascending (table row i is image `kept[i]`);
        and the rejected images with their reasons.
    """
    store, runtime = Store(clip, views), clip.runtime
    stamps, reasons = _stamps(dict(enumerate(refs)))
    # Shared by identity, not by position: what is missing differs between ranks, as the others are at work already.
    missing = store.missing(
        (stamp, refs[i])
        for i, stamp in stamps.items()
        if int.from_bytes(stamp.identity[:8], "big") % runtime.world_size == runtime.rank
    )
    _encode(store, missing, label)
    if runtime.world_size > 1:
        runtime.barrier()
        store.reload()
        # Also finds the stale ones that another rank could not encode again.
        store.missing(((stamp, refs[i]) for i, stamp in stamps.items()), verify=False)
    keys = {i: stamp.identity for i, stamp in stamps.items()}
    rows = store.find(list(keys.values()))
    reasons |= {i: store.failed[key] for i, key in keys.items() if key in store.failed}
    # Another rank knows why it could not use an image, this one does not: load the image to find out.
    unexplained = [i for i in itertools.compress(keys, rows < 0) if i not in reasons]
    for batch in load_images(([i] for i in unexplained), lambda i: refs[i], Views(clip, 1), workers=0):
        reasons[batch.items[0]] = batch.reasons.get(0, "another rank could not use it")
    kept = list(itertools.compress(keys, rows >= 0))
    table = ImageTable(store.parts, rows[rows >= 0]).in_memory()
    return table, kept, [Rejected(str(refs[i]), reasons[i]) for i in sorted(reasons)]


def _encode(store: Store, missing: dict[Stamp, ImageRef], label: str) -> None:
    """Load and encode images, add them to the store and write it."""
    if not missing:
        store.flush()
        return
    items = list(missing.items())
    size = max(store.clip.image_batch_size() // store.views, 1)
    batches = (items[start : start + size] for start in range(0, len(items), size))
    prepare = Prepare(store)
    with progress("rate") as bar:
        task = bar.add_task(f"encoding {label}", total=len(items), rate="")
        started, done = time.monotonic(), 0
        for batch in load_images(batches, lambda item: item[1], prepare, len(items) * store.views):
            store.add_loaded(batch)
            done += len(batch.items)
            rate = done / (time.monotonic() - started)
            bar.update(task, completed=done, rate=f"{rate:.0f} images/s")
    store.flush()


@dataclass(frozen=True)
class Embedded(Generic[T]):
    """A window of items, with the embeddings of their images.

    Attributes:
        items: the items, as they came.
        rows: indices of the items that have an embedding, ascending.
        features: (rows, D) float32, normalised.
        reasons: index of an item -> why its image cannot be used.
    """

    items: list[T]
    rows: list[int]
    features: np.ndarray
    reasons: dict[int, str]


def embed_windows(
    clip: Clip,
    windows: Iterator[list[T]],
    image_of: Callable[[T], ImageRef | None],
    expected: int | None = None,
    workers: int | None = None,
) -> Iterator[Embedded[T]]:
    """Embed the images of items window by window, in constant memory; images are loaded ahead of the caller.

    Batches are cut within a window, never across two: a run that was killed and resumed encodes the same batches, and
    so ends with the same numbers.

    Args:
        windows: is asked for the next window only when a worker is free for it.
        image_of: the item's image; None for an item whose image is not needed.
        expected: images to come, if known.
        workers: see `load_images`.
    """
    store = Store(clip)
    # Windows being encoded: the number of its last batch, the items, and what `_stamps` returned for them.
    waiting: deque[tuple[int, list[T], dict[int, Stamp], dict[int, str]]] = deque()
    loading: set[Stamp] = set()  # an image that comes again while it is being loaded is encoded once

    def batches() -> Iterator[list[tuple[Stamp, ImageRef]]]:
        size, last = clip.image_batch_size(), 0
        for items in windows:
            refs = {i: ref for i, ref in enumerate(map(image_of, items)) if ref is not None}
            stamps, reasons = _stamps(refs)
            wanted = store.missing((stamp, refs[i]) for i, stamp in stamps.items())
            missing = [(stamp, ref) for stamp, ref in wanted.items() if stamp not in loading]
            loading.update(stamp for stamp, _ in missing)
            parts = [missing[start : start + size] for start in range(0, len(missing), size)] or [[]]
            last += len(parts)
            waiting.append((last, items, stamps, reasons))
            yield from parts

    try:
        loads = load_images(batches(), lambda item: item[1], Prepare(store), expected, workers)
        for number, batch in enumerate(loads, start=1):
            store.add_loaded(batch)
            loading.difference_update(stamp for stamp, _ in batch.items)
            if number == waiting[0][0]:
                _, items, stamps, reasons = waiting.popleft()
                keys = {i: stamp.identity for i, stamp in stamps.items()}
                rows = [i for i, key in keys.items() if key not in store.failed]
                reasons |= {i: store.failed[key] for i, key in keys.items() if key in store.failed}
                yield Embedded(items, rows, store.take([keys[i] for i in rows]), reasons)
    finally:
        store.flush()


def _stamps(refs: dict[int, ImageRef]) -> tuple[dict[int, Stamp], dict[int, str]]:
    """Return the stamp of each image under its index, and the reason for each that has none."""
    stamps: dict[int, Stamp] = {}
    reasons: dict[int, str] = {}
    for i, ref in refs.items():
        try:
            stamps[i] = images.stamp(ref)
        except ImageRejected as error:
            reasons[i] = error.message
    return stamps, reasons
