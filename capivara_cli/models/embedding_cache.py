"""Image embeddings: computed once, kept in the cache, shared by all languages, runs and evaluations.

A store is a folder `<cache>/embeddings/<key>/`; the key stands for the image tower's weights, the preprocessing,
the precision and the number of views. It holds segments that are never changed once written:

    embeddings  (n, views, D) float16, normalised
    identity    (n, 16) uint8, see images.identity: path, member, size and time of the image

so that a killed run loses at most a segment's work, new images are added, changed images are computed anew
(their identity is another), and any number of processes may write at once. Many small segments, as many small runs
leave them, are put together now and then.
"""

from __future__ import annotations

import itertools
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from capivara_cli import artifacts
from capivara_cli.console import progress
from capivara_cli.data import images
from capivara_cli.data.images import ImageRef, ImageRejected, Rejected
from capivara_cli.data.loading import load_images
from capivara_cli.models.clip import Clip
from capivara_cli.models.image_encoder import Views, encode_images, encode_views

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

SEGMENT_SECONDS = 60  # how much work a killed process may lose
SEGMENT_BYTES = 256 << 20
MANY_SEGMENTS = 64  # small ones; each open one takes a file of the thousand that a process may have
IN_MEMORY_BYTES = 4 << 30  # a larger table stays on disk, memory-mapped


@dataclass
class ImageTable:
    """The embeddings of N images, in the order in which they were asked for.

    Attributes:
        parts: arrays of (n, views, D) float16: one in memory, or memory-mapped segments.
        part, row: (N,) where each image's embedding is.
    """

    parts: list[np.ndarray]
    part: np.ndarray
    row: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    @property
    def views(self) -> int:
        """How many views of an image there are."""
        return int(self.parts[0].shape[1])

    def subset(self, rows: np.ndarray) -> ImageTable:
        """The table of these images only."""
        return ImageTable(self.parts, self.part[rows], self.row[rows])

    def take(self, rows: np.ndarray, view: np.ndarray | int = 0) -> Tensor:
        """(B,) images and their views -> (B, D) float32."""
        import numpy as np
        import torch

        view = np.broadcast_to(view, len(rows))
        result = np.empty((len(rows), self.parts[0].shape[2]), np.float32)
        part = self.part[rows]
        for index in np.unique(part):
            here = part == index
            result[here] = self.parts[index][self.row[rows[here]], view[here]]
        return torch.from_numpy(result)


class Store:
    """The embeddings of all images that one image tower has seen, on disk.

    Attributes:
        folder: where its segments are.
        failed: identity -> why an image could not be used, of those that were tried here.
    """

    def __init__(self, clip: Clip, views: int = 1) -> None:
        self.clip = clip
        self.views = views
        key = artifacts.fingerprint(clip.image_tower_fingerprint(), views)
        self.folder = artifacts.cache_folder() / "embeddings" / key
        self.failed: dict[bytes, str] = {}
        self._pending: dict[bytes, np.ndarray] = {}
        self._flushed = time.monotonic()
        self.reload()

    def reload(self) -> None:
        """Look which segments there are now; their embeddings stay on disk, memory-mapped."""
        import numpy as np

        _join_small_segments(self.folder)
        opened = _segments(self.folder)
        self.segments = [embeddings for _, embeddings in opened]
        identity = np.concatenate([np.zeros((0, 16), np.uint8), *(identity for identity, _ in opened)])
        known = np.ascontiguousarray(identity).view("S16").ravel()  # (n,) of the whole store: 32 bytes an image
        sizes = [len(embeddings) for embeddings in self.segments]
        self._starts = np.cumsum([0, *sizes])
        self._order = np.argsort(known, kind="stable")  # of an image that was encoded twice the newer one is last
        self._known = known[self._order]

    def find(self, keys: Sequence[bytes]) -> np.ndarray:
        """(N,) identities -> (N, 2) segment and row in it; -1 where there is none."""
        import numpy as np

        places = np.full((len(keys), 2), -1, np.int64)
        if not len(self._known) or not keys:
            return places
        asked = np.array(keys, "S16")
        at = np.searchsorted(self._known, asked, side="right") - 1
        there = self._known[at] == asked
        rows = self._order[at[there]]
        places[there, 0] = np.searchsorted(self._starts, rows, side="right") - 1
        places[there, 1] = rows - self._starts[places[there, 0]]
        return places

    def missing(self, keys: Sequence[bytes]) -> list[int]:
        """Which of the images have no embedding yet, and were not tried in vain."""
        found = self.find(keys)[:, 0] >= 0
        return [i for i, key in enumerate(keys) if not found[i] and key not in self._pending and key not in self.failed]

    def take(self, keys: Sequence[bytes]) -> np.ndarray:
        """(N,) identities -> (N, D) float32 of the plain view; each must be there."""
        import numpy as np

        rows = [
            self._pending[key][0] if segment < 0 else self.segments[segment][row, 0]
            for key, (segment, row) in zip(keys, self.find(keys), strict=True)
        ]
        return np.array(rows, np.float32)

    def add(self, keys: Sequence[bytes], features: Tensor) -> None:
        """Add (n, views, D) embeddings of a batch; they are on disk some time later, whole batches at once."""
        import numpy as np

        self._pending.update(zip(keys, features.numpy().astype(np.float16), strict=True))
        size = sum(rows.nbytes for rows in itertools.islice(self._pending.values(), 1)) * len(self._pending)
        if time.monotonic() - self._flushed > SEGMENT_SECONDS or size > SEGMENT_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what was added as a segment."""
        import numpy as np

        if self._pending:
            identity = np.frombuffer(bytearray(b"".join(self._pending)), np.uint8).reshape(-1, 16)
            # The name sorts by time, so of an image that was encoded twice the newer embedding is taken.
            name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.safetensors"
            _write_segment(self.folder / name, np.stack(list(self._pending.values())), identity)
            self._pending.clear()
            self.reload()
        self._flushed = time.monotonic()


def embed(
    clip: Clip, refs: Sequence[ImageRef], *, views: int = 1, label: str = "images"
) -> tuple[ImageTable, list[int], list[Rejected]]:
    """Embeddings of the images: those in the store as they are, the others computed and added.

    View 0 is the image as open_clip evaluates it; further views are augmented as in the recipe, see
    `encoding.augmentation`. With several ranks each computes its share.

    Returns:
        the table; the indices of `refs` that it has, ascending (table row i is image `kept[i]`);
        and what was rejected, with the reason.
    """
    store = Store(clip, views)
    keys, reasons = _identities(refs)
    places = store.find(list(keys.values()))
    missing = {keys[i]: i for i, (segment, _) in zip(keys, places, strict=True) if segment < 0}
    rank, ranks = clip.runtime.rank, clip.runtime.world_size
    if missing or ranks > 1:
        # By the key: what is missing now is not the same for each rank, as the others are at work already.
        own = [i for key, i in missing.items() if int.from_bytes(key[:8], "big") % ranks == rank]
        _compute(store, [refs[i] for i in own], [keys[i] for i in own], label)
        clip.runtime.barrier()
        store.reload()
        places = store.find(list(keys.values()))
    there = places[:, 0] >= 0
    for i in itertools.compress(keys, ~there):
        reasons[i] = store.failed.get(keys[i]) or _why_not(clip, refs[i])
    kept = list(itertools.compress(keys, there))
    table = ImageTable(store.segments, places[there, 0], places[there, 1])
    return _settle(table), kept, [Rejected(str(refs[i]), reasons[i]) for i in sorted(reasons)]


def embed_windows(
    clip: Clip, windows: Iterator[list[ImageRef]], expected: int | None = None, workers: int | None = None
) -> Iterator[tuple[list[int], np.ndarray, dict[int, str]]]:
    """Embeddings window by window, in constant memory: images are decoded ahead while the caller is at work.

    A window is asked for when there are workers for it. The batches that are encoded are cut from each window by
    itself, so a run that was killed goes on with the same ones, and ends with the same numbers.

    Yields:
        the places of the window's images that worked, their embeddings (n, D) float32, and the reason for each place
        that did not.
    """
    store = Store(clip)
    waiting: deque[tuple[dict[int, bytes], dict[int, str], deque[list[bytes]]]] = deque()
    under_way: set[bytes] = set()

    def batches() -> Iterator[list[ImageRef]]:
        for refs in windows:
            keys, reasons = _identities(refs)
            own = list(keys.values())
            places = dict(zip(keys.values(), keys, strict=True))  # an image that comes twice is encoded once
            wanted = [own[i] for i in store.missing(own) if own[i] not in under_way]
            wanted = list(dict.fromkeys(wanted))
            under_way.update(wanted)
            size = clip.image_batch_size()
            parts = [wanted[i : i + size] for i in range(0, len(wanted), size)] or [[]]
            waiting.append((keys, reasons, deque(parts)))
            yield from ([refs[places[key]] for key in part] for part in parts)

    try:
        for good, pixels, errors in load_images(batches(), Views(clip, 1), expected, workers):
            keys, reasons, parts = waiting[0]
            part = parts.popleft()
            store.failed |= {part[i]: reason for i, reason in errors.items()}
            if good:
                store.add([part[i] for i in good], encode_views(clip, pixels))
            under_way.difference_update(part)
            if not parts:
                waiting.popleft()
                reasons |= {i: store.failed[key] for i, key in keys.items() if key in store.failed}
                kept = [i for i, key in keys.items() if key not in store.failed]
                yield kept, store.take([keys[i] for i in kept]), reasons
    finally:
        store.flush()


def _identities(refs: Sequence[ImageRef]) -> tuple[dict[int, bytes], dict[int, str]]:
    keys: dict[int, bytes] = {}
    reasons: dict[int, str] = {}
    for i, ref in enumerate(refs):
        try:
            keys[i] = images.identity(ref)
        except ImageRejected as error:
            reasons[i] = error.message
    return keys, reasons


def _segments(folder: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Identity and embeddings of each, oldest first."""
    opened: dict[Path, tuple[np.ndarray, np.ndarray]] = {}
    while left := _sizes(folder).keys() - opened.keys():
        for path in left:
            with suppress(FileNotFoundError):  # another process has just joined it to others: they are there now
                opened[path] = _open_segment(path)
    return [opened[path] for path in sorted(opened)]


def _sizes(folder: Path) -> dict[Path, int]:
    """Bytes of each segment, oldest first."""
    result = {}
    for path in sorted(folder.glob("*.safetensors")):
        with suppress(FileNotFoundError):
            result[path] = path.stat().st_size
    return result


def _join_small_segments(folder: Path) -> None:
    """Put small segments that follow each other together when there are many, unless another process is doing it."""
    import numpy as np

    if sum(size < SEGMENT_BYTES // 2 for size in _sizes(folder).values()) <= MANY_SEGMENTS:
        return
    with ExitStack() as stack:
        try:
            lock = stack.enter_context((folder / "lock").open("ab"))
        except OSError:  # a cache that we may only read
            return
        if not artifacts.lock(lock):
            return
        for run in _runs(_sizes(folder)):
            parts = [tuple(map(np.array, _open_segment(path))) for path in run]  # copies: no file of them stays open
            keys, embeddings = (np.concatenate(column) for column in zip(*parts, strict=True))
            # In the place of the last of them: of an image that is there twice the newer one stays the newer one.
            name = f"{run[-1].name[:20]}-{uuid.uuid4().hex[:8]}.safetensors"
            _write_segment(folder / name, embeddings, keys)
            for path in run:
                path.unlink(missing_ok=True)


def _runs(sizes: dict[Path, int]) -> Iterator[list[Path]]:
    """Neighbours that together are no larger than a segment, at least two."""
    run: list[Path] = []
    total = 0
    for path, size in (*sizes.items(), (Path(), SEGMENT_BYTES + 1)):
        if total + size > SEGMENT_BYTES:
            if len(run) > 1:
                yield run
            run, total = [], 0
        run.append(path)
        total += size


def _open_segment(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Identity (n, 16), and embeddings (n, views, D) memory-mapped: safetensors' own reader would copy them."""
    import json
    import struct

    import numpy as np

    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))

    def array(name: str, dtype: type) -> np.ndarray:
        entry = header[name]
        offset = 8 + size + entry["data_offsets"][0]
        return np.memmap(path, dtype, "r", offset, tuple(entry["shape"]))

    return np.array(array("identity", np.uint8)), array("embeddings", np.float16)


def _settle(table: ImageTable) -> ImageTable:
    """The table in memory when it is small enough: random reads of a mapped file cost a page each."""
    import numpy as np

    if not table.parts or not len(table):
        return table
    shape = table.parts[0].shape
    if len(table) * shape[1] * shape[2] * 2 > IN_MEMORY_BYTES:
        return table
    whole = np.empty((len(table), *shape[1:]), np.float16)
    for index in np.unique(table.part):
        here = table.part == index
        whole[here] = table.parts[index][table.row[here]]
    return ImageTable([whole], np.zeros(len(table), np.int64), np.arange(len(table)))


def _why_not(clip: Clip, ref: ImageRef) -> str:
    """Why another rank could not use the image."""
    try:
        Views(clip, 1)(ref)
    except ImageRejected as error:
        return error.message
    except (ValueError, TypeError, ZeroDivisionError) as error:
        return f"cannot be prepared for the model: {error}"
    return "another rank could not use it"


def _compute(store: Store, refs: list[ImageRef], keys: list[bytes], label: str) -> None:
    """Encode the images and add them to the store."""
    with progress("rate") as bar:
        task = bar.add_task(f"encoding {label}", total=len(refs), rate="")
        begun = time.monotonic()
        for indices, features, errors in encode_images(store.clip, refs, views=store.views):
            store.failed |= {keys[i]: reason for i, reason in errors}
            if len(indices):
                store.add([keys[i] for i in indices], features)
            count = len(indices) + len(errors)
            rate = (bar.tasks[task].completed + count) / (time.monotonic() - begun)
            bar.update(task, advance=count, rate=f"{rate:.0f} images/s")
    store.flush()


def _write_segment(path: Path, embeddings: np.ndarray, identity: np.ndarray) -> None:
    """Write (n, views, D) embeddings of images with (n, 16) identities."""
    import torch

    tensors = {"embeddings": torch.from_numpy(embeddings), "identity": torch.from_numpy(identity)}
    artifacts.save_tensors(path, tensors, {"format": "pt"})
