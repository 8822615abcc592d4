"""The store of image embeddings: what one image tower has encoded, in the cache on disk.

It is the folder `<cache>/embeddings/<key>/` of segments. The key stands for the tower's weights, the preprocessing, the
precision and the number of views. An image that changes is encoded again: its identity changes with its path, size and
time (see images.Stamp). Where these stayed and only the time of the inode differs, the digest of its content decides.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from capivara_cli import artifacts, console
from capivara_cli.data import images
from capivara_cli.data.images import ImageRef, ImageRejected, Stamp
from capivara_cli.data.loading import Loaded
from capivara_cli.errors import CapivaraError
from capivara_cli.models import segments
from capivara_cli.models.clip import Clip
from capivara_cli.models.image_encoder import Views, encode_views
from capivara_cli.models.segments import Segment

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

SEGMENT_SECONDS = 60  # how much work a killed process may lose
READERS = 8  # threads that read images to compare them
MANY_TO_READ = 10_000  # images that take some time to read
ABOUT = "about.json"


class _Unwritten(NamedTuple):
    """An embedding (views, D) float16 that is not on disk yet, and what stands beside it there (see Segment)."""

    embedding: np.ndarray
    content: np.ndarray
    changed: int


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
        self._stale: set[bytes] = set()  # on disk, but of an image that has changed since
        self._verified: set[bytes] = set()
        self._changed_in_place = 0
        self._unwritten: dict[bytes, _Unwritten] = {}
        self._unwritten_bytes = 0
        self._flushed = time.monotonic()
        artifacts.remove_stale_in(self.folder)
        self.reload(verify=clip.verify_cache)

    def reload(self, *, verify: bool = False) -> None:
        """Open the segments that are on disk now; `verify` is that of `segments.open_all`."""
        import numpy as np

        segments.join_small(self.folder)
        opened = segments.open_all(self.folder, verify=verify)
        self.parts = [segment.embeddings for segment in opened]
        self._content = [segment.content for segment in opened]
        self._changed = [segment.changed for segment in opened]
        identity = np.concatenate([np.zeros((0, 16), np.uint8), *(segment.identity for segment in opened)])
        # A sorted array, because a dict would take some 200 bytes per image instead of 24.
        known = np.ascontiguousarray(identity).view("S16").ravel()
        self._order = np.argsort(known, kind="stable")  # stable: of an image that is there twice the newer one is last
        self._known = known[self._order]

    def find(self, keys: Sequence[bytes]) -> np.ndarray:
        """Return the row of each identity (N,), counted through all parts; -1 where none on disk can be used."""
        import numpy as np

        if not len(self._known) or not keys:
            return np.full(len(keys), -1)
        wanted = np.array(keys, "S16")
        last = np.searchsorted(self._known, wanted, side="right") - 1
        rows = np.where(self._known[last] == wanted, self._order[last], -1)
        if self._stale:
            rows[[key in self._stale for key in keys]] = -1
        return rows

    def missing(self, images: Iterable[tuple[Stamp, ImageRef]], *, verify: bool | None = None) -> dict[Stamp, ImageRef]:
        """Return the images that have no embedding, or only one from before they changed, and have not failed.

        Args:
            verify: compare the content of all that have one, not only where the inode changed; None: as the clip says.
        """
        wanted = {stamp.identity: (stamp, ref) for stamp, ref in images}
        verify = self.clip.verify_cache if verify is None else verify
        self._find_stale({key: item for key, item in wanted.items() if key not in self._unwritten}, verify)
        rows = self.find(list(wanted))
        return {
            stamp: ref
            for (key, (stamp, ref)), row in zip(wanted.items(), rows, strict=True)
            if row < 0 and key not in self._unwritten and key not in self.failed
        }

    def _find_stale(self, images: Mapping[bytes, tuple[Stamp, ImageRef]], verify: bool) -> None:
        """Compare images that have an embedding on disk with the content that was encoded."""
        import numpy as np

        keys = [key for key in images if key not in self._verified]
        rows = self.find(keys)
        keys = [key for key, row in zip(keys, rows, strict=True) if row >= 0]
        rows = rows[rows >= 0]
        if not keys:
            return
        changed = segments.gather(self._changed, rows)
        differs = changed != np.array([images[key][0].changed for key in keys])
        suspect = np.full(len(keys), True) if verify else differs & (changed != segments.UNKNOWN)
        if suspect.sum() > MANY_TO_READ:
            console.say(f"comparing {suspect.sum():,} images with what was encoded")
        indices = np.flatnonzero(suspect)
        with ThreadPoolExecutor(READERS) as readers:
            digests = list(readers.map(lambda i: _digest(images[keys[i]][1]), indices))
        for i, digest, content in zip(indices, digests, segments.gather(self._content, rows[indices]), strict=True):
            if digest is None or digest != content.tobytes():
                self._stale.add(keys[i])
                self._changed_in_place += changed[i] != segments.UNKNOWN
            elif differs[i]:  # only touched: remember the time, so as not to read it again
                embedding = segments.gather(self.parts, rows[i : i + 1])[0]
                self._put(images[keys[i]][0], _Unwritten(embedding, content, images[keys[i]][0].changed))
        self._verified.update(keys if verify else ())

    def take(self, keys: Sequence[bytes]) -> np.ndarray:
        """Return the plain view of images (N, D) float32. Each must have been added."""
        import numpy as np

        rows = self.find(keys)
        if any(row < 0 and key not in self._unwritten for key, row in zip(keys, rows, strict=True)):
            raise CapivaraError(f"{self.folder} was emptied while it was in use", "run the command again to resume")
        embeddings = [
            self._unwritten[key].embedding[0] if key in self._unwritten else self.parts[part][row_in_part, 0]
            for key, part, row_in_part in zip(keys, *segments.locate(self.parts, rows), strict=True)
        ]
        return np.array(embeddings, np.float32)

    def add_loaded(self, batch: Loaded[tuple[Stamp, ImageRef]]) -> None:
        """Encode the images of a batch that were loaded by `Prepare`, and note why the others were not."""
        stamps = [stamp for stamp, _ in batch.items]
        self.failed |= {stamps[i].identity: reason for i, reason in batch.reasons.items()}
        if batch.rows:
            content, pixels = batch.values
            self.add([stamps[i] for i in batch.rows], content.numpy(), encode_views(self.clip, pixels))

    def add(self, stamps: Sequence[Stamp], content: np.ndarray, features: Tensor) -> None:
        """Add the embeddings of a batch (n, views, D). They are written later, always whole batches at once.

        Args:
            content: (n, 16) uint8, digests of the images.
        """
        import numpy as np

        embeddings = features.numpy().astype(np.float16)
        for stamp, digest, embedding in zip(stamps, content, embeddings, strict=True):
            self._put(stamp, _Unwritten(embedding, digest, stamp.changed))
        if time.monotonic() - self._flushed > SEGMENT_SECONDS or self._unwritten_bytes > segments.SEGMENT_BYTES:
            self.flush()

    def _put(self, stamp: Stamp, item: _Unwritten) -> None:
        self._stale.discard(stamp.identity)
        self._unwritten[stamp.identity] = item
        self._unwritten_bytes += item.embedding.nbytes

    def flush(self) -> None:
        """Write what was added as a segment."""
        import numpy as np

        if self._unwritten:
            embeddings, content, changed = map(np.stack, zip(*self._unwritten.values(), strict=True))
            identity = np.frombuffer(bytearray(b"".join(self._unwritten)), np.uint8).reshape(-1, 16)
            segments.write(self.folder, time.time_ns(), Segment(embeddings, identity, content, changed))
            self._describe()
            self._unwritten.clear()
            self._unwritten_bytes = 0
            self.reload()
        if self._changed_in_place:
            console.say(f"note: {self._changed_in_place:,} images were changed in place, and are encoded again")
            self._changed_in_place = 0
        self._flushed = time.monotonic()

    def _describe(self) -> None:
        """Write down whose embeddings these are, for `capivara cache`."""
        path = self.folder / ABOUT
        if not path.is_file():
            model = str(replace(self.clip.spec, adapter=None))
            about = {"model": model, "precision": self.clip.runtime.precision, "views": self.views}
            artifacts.write_json(path, about)


class Prepare:
    """Prepare the views of an image, and the digest of its content, in a worker process."""

    def __init__(self, store: Store) -> None:
        self.views = Views(store.clip, store.views)

    def __call__(self, ref: ImageRef) -> tuple[Tensor, Tensor]:
        """Return the digest (16,) uint8, and all views (views, 3, H, W). Raises ImageRejected."""
        import torch

        # First the digest: of an image that changes between the two, it is then not that of the new content.
        digest = torch.frombuffer(bytearray(images.digest(ref)), dtype=torch.uint8)
        return digest, self.views(ref)


def _digest(ref: ImageRef) -> bytes | None:
    try:
        return images.digest(ref)
    except ImageRejected:  # it is no longer what was encoded
        return None
