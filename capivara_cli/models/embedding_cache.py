"""Image embeddings: computed once, cached on disk, shared by all languages, runs and evaluations."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from capivara_cli.data import images
from capivara_cli.data.images import ImageRef, ImageRejected, Rejected, Stamp
from capivara_cli.data.loading import load_images
from capivara_cli.models.clip import Clip
from capivara_cli.models.embedding_store import Load, Prepare, Store
from capivara_cli.models.image_encoder import Views
from capivara_cli.models.segments import gather
from capivara_cli.progress import progress

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

T = TypeVar("T")

IN_MEMORY_BYTES = 4 << 30  # of embeddings; a larger table stays on disk, memory-mapped


@dataclass
class ImageTable:
    """The embeddings of N images.

    Attributes:
        parts: arrays of (n, views, D) float16: one in memory, or memory-mapped segments.
        rows: (N,) row of each image, counted through all parts.
        content: (N, 16) uint8, digest of each image's bytes; zeros where an older version did not keep it.
    """

    parts: list[np.ndarray]
    rows: np.ndarray
    content: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def views(self) -> int:
        """Number of views per image."""
        return int(self.parts[0].shape[1])

    def subset(self, rows: np.ndarray) -> ImageTable:
        """Return the table of some of the images."""
        return ImageTable(self.parts, self.rows[rows], self.content[rows])

    def take(self, rows: np.ndarray, view: np.ndarray | int = 0) -> Tensor:
        """Return the embeddings of (B,) images, each in its view: (B, D) float32."""
        import numpy as np
        import torch

        features = gather(self.parts, self.rows[rows], np.broadcast_to(view, len(rows)))  # (B, D) float16
        return torch.from_numpy(features.astype(np.float32))

    def in_memory(self) -> ImageTable:
        """Return a table with one part in memory if that is small, otherwise this one.

        Training draws rows at random, and a random read of a mapped file costs a page (4 kB) of disk.
        """
        import numpy as np

        size = len(self) * self.parts[0][0].nbytes if len(self) else 0
        if not 0 < size <= IN_MEMORY_BYTES:
            return self
        return ImageTable([gather(self.parts, self.rows)], np.arange(len(self)), self.content)


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
    loads, reasons = _stamped(dict(enumerate(refs)))
    # Divide the images by identity, not by their positions among the missing ones: other ranks already add to the
    # store, so what is missing differs from rank to rank.
    shared = (
        load
        for load in loads.values()
        if int.from_bytes(load.stamp.identity[:8], "big") % runtime.world_size == runtime.rank
    )
    _encode(store, store.missing(shared), label)
    if runtime.world_size > 1:
        runtime.barrier()
        store.reload()
        # For its side effect: it marks embeddings of images that have changed since as stale, also those that another
        # rank could not encode again. `find` does not return them.
        store.missing(loads.values(), verify=False)
    keys = {i: load.stamp.identity for i, load in loads.items()}
    rows = store.find(list(keys.values()))
    reasons |= {i: store.failed[key] for i, key in keys.items() if key in store.failed}
    # The rank that could not use an image knows why, this one does not: load the image to find out.
    unexplained = [i for i in itertools.compress(keys, rows < 0) if i not in reasons]
    for batch in load_images(([i] for i in unexplained), lambda i: refs[i], Views(clip, 1), workers=0):
        reasons[batch.items[0]] = batch.reasons.get(0, "another rank could not use it")
    kept = list(itertools.compress(keys, rows >= 0))
    rows = rows[rows >= 0]
    table = ImageTable(store.parts, rows, store.content(rows)).in_memory()
    return table, kept, [Rejected(str(refs[i]), reasons[i]) for i in sorted(reasons)]


def _encode(store: Store, missing: list[Load], label: str) -> None:
    """Load and encode images, add them to the store and write it."""
    if missing:
        size = max(store.clip.image_batch_size() // store.views, 1)
        batches = (missing[start : start + size] for start in range(0, len(missing), size))
        with progress("rate") as bar:
            task = bar.add_task(f"encoding {label}", total=len(missing), rate="")
            started, done = time.monotonic(), 0
            for batch in load_images(batches, lambda load: load.image, Prepare(store), len(missing) * store.views):
                store.add(batch)
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


class _Window(NamedTuple, Generic[T]):
    """A window whose images are being loaded.

    Attributes:
        loads: index of an item -> its image.
        reasons: index of an item -> why its image cannot be loaded.
    """

    items: list[T]
    loads: dict[int, Load]
    reasons: dict[int, str]

    def embedded(self, store: Store) -> Embedded[T]:
        """Return the window with its embeddings, once all of its images have been added to the store."""
        keys = {i: load.stamp.identity for i, load in self.loads.items()}
        failed = {i: store.failed[key] for i, key in keys.items() if key in store.failed}
        rows = [i for i in keys if i not in failed]
        return Embedded(self.items, rows, store.take([keys[i] for i in rows]), self.reasons | failed)


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
    # Images that are being loaded: one that a later window has too is not loaded again. It will be in the store before
    # that window ends, because batches come back in order.
    loading: set[Stamp] = set()

    def batches() -> Iterator[list[Load]]:
        """Yield the images to load, batch by batch; a window travels at the end of its last batch."""
        size = clip.image_batch_size()
        for items in windows:
            refs = {i: ref for i, ref in enumerate(map(image_of, items)) if ref is not None}
            loads, reasons = _stamped(refs)
            missing = [load for load in store.missing(loads.values()) if load.stamp not in loading]
            loading.update(load.stamp for load in missing)
            # A window without missing images still needs a batch that carries it.
            *whole, last = [missing[start : start + size] for start in range(0, len(missing), size)] or [[]]
            yield from whole
            yield [*last, Load(Stamp(b"", 0), None, ends=_Window(items, loads, reasons))]

    try:
        for batch in load_images(batches(), lambda load: load.image, Prepare(store), expected, workers):
            store.add(batch)
            loading.difference_update(load.stamp for load in batch.items)
            if batch.items[-1].ends is not None:
                yield batch.items[-1].ends.embedded(store)
    finally:
        store.flush()


def _stamped(refs: dict[int, ImageRef]) -> tuple[dict[int, Load], dict[int, str]]:
    """Return index -> image with its stamp, and index -> why an image has none."""
    loads: dict[int, Load] = {}
    reasons: dict[int, str] = {}
    for i, ref in refs.items():
        try:
            loads[i] = Load(images.stamp(ref), ref)
        except ImageRejected as error:
            reasons[i] = error.message
    return loads, reasons
