"""Image embeddings: computed once, cached on disk, shared by all languages, runs and evaluations.

The store of one image tower is the folder `<cache>/embeddings/<key>/` of segments. The key stands for the tower's
weights, the preprocessing, the precision and the number of views. A changed image is encoded again, because its
identity changes with its path, size and time (see images.identity).
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from capivara_cli import artifacts
from capivara_cli.console import progress
from capivara_cli.data import images
from capivara_cli.data.images import ImageRef, ImageRejected, Rejected
from capivara_cli.data.loading import Loaded, load_images
from capivara_cli.models import segments
from capivara_cli.models.clip import Clip
from capivara_cli.models.image_encoder import Views, encode_views

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

T = TypeVar("T")

SEGMENT_SECONDS = 60  # how much work a killed process may lose
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

        features = _gather(self.parts, self.rows[rows], np.broadcast_to(view, len(rows)))  # (B, D) float16
        return torch.from_numpy(features.astype(np.float32))

    def in_memory(self) -> ImageTable:
        """Return a table with one part in memory if that is small: a random read of a mapped file costs a page."""
        import numpy as np

        size = len(self) * self.parts[0][0].nbytes if len(self) else 0
        if not 0 < size <= IN_MEMORY_BYTES:
            return self
        return ImageTable([_gather(self.parts, self.rows)], np.arange(len(self)))


def _gather(parts: list[np.ndarray], rows: np.ndarray, view: np.ndarray | None = None) -> np.ndarray:
    """Return rows (B,) of all parts: (B, D) in the given views (B,), or without these (B, views, D)."""
    import numpy as np

    part, row = _locate(parts, rows)
    result = np.empty((len(rows), *parts[0].shape[1 if view is None else 2 :]), np.float16)
    for i in np.unique(part):
        mask = part == i
        result[mask] = parts[i][row[mask]] if view is None else parts[i][row[mask], view[mask]]
    return result


def _locate(parts: list[np.ndarray], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the part of each row (B,), and the row within that part (B,)."""
    import numpy as np

    starts = np.cumsum([0, *map(len, parts)])
    part = np.searchsorted(starts, rows, side="right") - 1
    return part, rows - starts[part]


class Store:
    """The embeddings of all images that one image tower has encoded.

    Attributes:
        parts: the embeddings of each segment (n, views, D) float16, memory-mapped.
        failed: identity -> why the image cannot be used, for images that this process tried.
    """

    def __init__(self, clip: Clip, views: int = 1) -> None:
        self.clip = clip
        self.views = views
        key = artifacts.fingerprint(clip.image_tower_fingerprint(), views)
        self.folder = artifacts.cache_folder() / "embeddings" / key
        self.failed: dict[bytes, str] = {}
        self._unwritten: dict[bytes, np.ndarray] = {}
        self._unwritten_bytes = 0
        self._flushed = time.monotonic()
        self.reload()

    def reload(self) -> None:
        """Open the segments that are on disk now."""
        import numpy as np

        segments.join_small(self.folder)
        opened = segments.open_all(self.folder)
        self.parts = [embeddings for _, embeddings in opened]
        identity = np.concatenate([np.zeros((0, 16), np.uint8), *(identity for identity, _ in opened)])
        # A sorted array, because a dict would take some 200 bytes per image instead of 24.
        known = np.ascontiguousarray(identity).view("S16").ravel()
        self._order = np.argsort(known, kind="stable")  # stable: of an image that is there twice the newer one is last
        self._known = known[self._order]

    def find(self, keys: Sequence[bytes]) -> np.ndarray:
        """Return the row of each identity (N,), counted through all parts; -1 where there is none on disk."""
        import numpy as np

        if not len(self._known) or not keys:
            return np.full(len(keys), -1)
        wanted = np.array(keys, "S16")
        last = np.searchsorted(self._known, wanted, side="right") - 1
        return np.where(self._known[last] == wanted, self._order[last], -1)

    def missing(self, images: Iterable[tuple[bytes, ImageRef]]) -> dict[bytes, ImageRef]:
        """Return the images that have no embedding yet and have not failed, each once."""
        wanted = dict(images)
        rows = self.find(list(wanted))
        return {
            key: ref
            for (key, ref), row in zip(wanted.items(), rows, strict=True)
            if row < 0 and key not in self._unwritten and key not in self.failed
        }

    def take(self, keys: Sequence[bytes]) -> np.ndarray:
        """Return the plain view of images (N, D) float32. Each must have been added."""
        import numpy as np

        rows = self.find(keys)
        embeddings = [
            self._unwritten[key][0] if row < 0 else self.parts[part][row_in_part, 0]
            for key, row, part, row_in_part in zip(keys, rows, *_locate(self.parts, rows), strict=True)
        ]
        return np.array(embeddings, np.float32)

    def add_loaded(self, batch: Loaded[tuple[bytes, ImageRef]]) -> None:
        """Encode the images of a batch that were loaded, and note why the others were not."""
        keys = [key for key, _ in batch.items]
        self.failed |= {keys[i]: reason for i, reason in batch.reasons.items()}
        if batch.rows:
            self.add([keys[i] for i in batch.rows], encode_views(self.clip, batch.values))

    def add(self, keys: Sequence[bytes], features: Tensor) -> None:
        """Add the embeddings of a batch (n, views, D). They are written later, always whole batches at once."""
        import numpy as np

        embeddings = features.numpy().astype(np.float16)
        self._unwritten.update(zip(keys, embeddings, strict=True))
        self._unwritten_bytes += embeddings.nbytes
        if time.monotonic() - self._flushed > SEGMENT_SECONDS or self._unwritten_bytes > segments.SEGMENT_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what was added as a segment."""
        import numpy as np

        if self._unwritten:
            identity = np.frombuffer(bytearray(b"".join(self._unwritten)), np.uint8).reshape(-1, 16)
            segments.write(self.folder, time.time_ns(), identity, np.stack(list(self._unwritten.values())))
            self._unwritten.clear()
            self._unwritten_bytes = 0
            self.reload()
        self._flushed = time.monotonic()


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
    keys, reasons = _identities(dict(enumerate(refs)))
    missing = store.missing((key, refs[i]) for i, key in keys.items())
    if missing or runtime.world_size > 1:
        # Shared by key, not by position: what is missing differs between ranks, as the others are at work already.
        for key in list(missing):
            if int.from_bytes(key[:8], "big") % runtime.world_size != runtime.rank:
                del missing[key]
        _encode(store, missing, label)
        runtime.barrier()
        store.reload()
    rows = store.find(list(keys.values()))
    reasons |= {i: store.failed[key] for i, key in keys.items() if key in store.failed}
    # Another rank knows why it could not use an image, this one does not: load the image to find out.
    unexplained = [i for i in itertools.compress(keys, rows < 0) if i not in reasons]
    for batch in load_images(([i] for i in unexplained), lambda i: refs[i], Views(clip, 1), workers=0):
        reasons[batch.items[0]] = batch.reasons.get(0, "another rank could not use it")
    kept = list(itertools.compress(keys, rows >= 0))
    table = ImageTable(store.parts, rows[rows >= 0]).in_memory()
    return table, kept, [Rejected(str(refs[i]), reasons[i]) for i in sorted(reasons)]


def _encode(store: Store, missing: dict[bytes, ImageRef], label: str) -> None:
    """Load and encode images, add them to the store and write it."""
    items = list(missing.items())
    size = max(store.clip.image_batch_size() // store.views, 1)
    batches = (items[start : start + size] for start in range(0, len(items), size))
    prepare = Views(store.clip, store.views)
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
    # Windows being encoded: the number of its last batch, the items, and what `_identities` returned for them.
    waiting: deque[tuple[int, list[T], dict[int, bytes], dict[int, str]]] = deque()
    loading: set[bytes] = set()  # an image that comes again while it is being loaded is encoded once

    def batches() -> Iterator[list[tuple[bytes, ImageRef]]]:
        size, last = clip.image_batch_size(), 0
        for items in windows:
            refs = {i: ref for i, ref in enumerate(map(image_of, items)) if ref is not None}
            keys, reasons = _identities(refs)
            wanted = store.missing((key, refs[i]) for i, key in keys.items())
            missing = [(key, ref) for key, ref in wanted.items() if key not in loading]
            loading.update(key for key, _ in missing)
            parts = [missing[start : start + size] for start in range(0, len(missing), size)] or [[]]
            last += len(parts)
            waiting.append((last, items, keys, reasons))
            yield from parts

    try:
        loads = load_images(batches(), lambda item: item[1], Views(clip, 1), expected, workers)
        for number, batch in enumerate(loads, start=1):
            store.add_loaded(batch)
            loading.difference_update(key for key, _ in batch.items)
            if number == waiting[0][0]:
                _, items, keys, reasons = waiting.popleft()
                rows = [i for i, key in keys.items() if key not in store.failed]
                reasons |= {i: store.failed[key] for i, key in keys.items() if key in store.failed}
                yield Embedded(items, rows, store.take([keys[i] for i in rows]), reasons)
    finally:
        store.flush()


def _identities(refs: dict[int, ImageRef]) -> tuple[dict[int, bytes], dict[int, str]]:
    """Return the identity of each image under its index, and the reason for each that has none."""
    keys: dict[int, bytes] = {}
    reasons: dict[int, str] = {}
    for i, ref in refs.items():
        try:
            keys[i] = images.identity(ref)
        except ImageRejected as error:
            reasons[i] = error.message
    return keys, reasons
