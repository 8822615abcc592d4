"""Image embeddings: computed once, kept in the cache, shared by all languages, runs and evaluations.

A store is a folder `<cache>/embeddings/<key>/`; the key stands for the image tower's weights, the preprocessing,
the precision and the number of views. It holds segments that are never changed once written:

    embeddings  (n, views, D) float16, normalised
    identity    (n, 16) uint8, see images.identity: path, member, size and time of the image

so that a killed run loses at most a segment's work, new images are added, changed images are computed anew
(their identity is another), and any number of processes may write at once.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from capivara_cli import artifacts, images
from capivara_cli.clip import Clip
from capivara_cli.console import progress
from capivara_cli.encoding import encode_images
from capivara_cli.images import ImageRef, ImageRejected

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

SEGMENT_SECONDS = 60  # how much work a killed process may lose
SEGMENT_BYTES = 256 << 20
IN_MEMORY_BYTES = 4 << 30  # a larger table stays on disk, memory-mapped


@dataclass(frozen=True)
class Rejected:
    """An image that could not be used, and why."""

    image: str
    reason: str


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
    import numpy as np

    store = artifacts.cache_folder() / "embeddings" / artifacts.fingerprint(clip.image_tower_fingerprint(), views)
    keys, reasons = _identities(refs)
    segments, places = _scan(store)
    missing = [i for i, key in keys.items() if key not in places]
    if missing or clip.runtime.world_size > 1:
        share = missing[clip.runtime.rank :: clip.runtime.world_size]
        failed = _compute(clip, store, [refs[i] for i in share], [keys[i] for i in share], views, label)
        clip.runtime.barrier()
        segments, places = _scan(store)
        failures = dict(failed)
        for i in missing:
            if keys[i] not in places:
                reasons[i] = failures.get(keys[i], "rejected by another rank")
    kept = [i for i, key in keys.items() if key in places]
    where = np.array([places[keys[i]] for i in kept], np.int64).reshape(-1, 2)
    table = ImageTable(segments, where[:, 0], where[:, 1])
    return _settle(table), kept, [Rejected(str(refs[i]), reasons[i]) for i in sorted(reasons)]


def _identities(refs: Sequence[ImageRef]) -> tuple[dict[int, bytes], dict[int, str]]:
    keys: dict[int, bytes] = {}
    reasons: dict[int, str] = {}
    for i, ref in enumerate(refs):
        try:
            keys[i] = images.identity(ref)
        except ImageRejected as error:
            reasons[i] = error.message
    return keys, reasons


def _scan(store: Path) -> tuple[list[np.ndarray], dict[bytes, tuple[int, int]]]:
    """Open all segments: their memory-mapped embeddings, and identity -> (segment, row)."""
    segments: list[np.ndarray] = []
    places: dict[bytes, tuple[int, int]] = {}
    for path in sorted(store.glob("*.safetensors")):
        identity, embeddings = _open_segment(path)
        for row, key in enumerate(identity):
            places[key.tobytes()] = (len(segments), row)
        segments.append(embeddings)
    return segments, places


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


def _compute(
    clip: Clip, store: Path, refs: list[ImageRef], keys: list[bytes], views: int, label: str
) -> list[tuple[bytes, str]]:
    """Encode the images and write segments as they fill up. Returns the identities that failed, and why."""
    import numpy as np

    failed: list[tuple[bytes, str]] = []
    done: list[np.ndarray] = []
    done_keys: list[bytes] = []
    started = time.monotonic()

    def flush() -> None:
        nonlocal started
        if done:
            _write_segment(store, np.concatenate(done), done_keys)
        done.clear()
        done_keys.clear()
        started = time.monotonic()

    with progress("rate") as bar:
        task = bar.add_task(f"encoding {label}", total=len(refs), rate="")
        begun = time.monotonic()
        for indices, features, errors in encode_images(clip, refs, views=views):
            failed += [(keys[i], reason) for i, reason in errors]
            if len(indices):
                done.append(features.numpy().astype(np.float16))
                done_keys += [keys[i] for i in indices]
            count = len(indices) + len(errors)
            rate = (bar.tasks[task].completed + count) / (time.monotonic() - begun)
            bar.update(task, advance=count, rate=f"{rate:.0f} images/s")
            if time.monotonic() - started > SEGMENT_SECONDS or sum(part.nbytes for part in done) > SEGMENT_BYTES:
                flush()
    flush()
    return failed


def _write_segment(store: Path, embeddings: np.ndarray, keys: list[bytes]) -> None:
    import numpy as np
    import torch

    identity = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16)
    tensors = {"embeddings": torch.from_numpy(embeddings), "identity": torch.from_numpy(identity.copy())}
    # The name sorts by time, so of an image that was encoded twice the newer embedding is taken.
    name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.safetensors"
    artifacts.save_tensors(store / name, tensors, {"format": "pt"})
