"""The store of image embeddings: what one image tower has encoded, in the cache on disk.

It is the folder `<cache>/embeddings/<key>/` of segments. The key is a hash of the tower's weights, the preprocessing,
the precision and the number of views. An image that changes is encoded again: its identity changes with its path, size
and time (see images.Stamp). If these are the same and only the time of the inode differs, its content is compared with
the digest of what was encoded.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from capivara_cli import artifacts, console
from capivara_cli.data import images
from capivara_cli.data.images import ImageRef, ImageRejected, Stamp
from capivara_cli.data.loading import Loaded
from capivara_cli.errors import CapivaraError
from capivara_cli.models import segments
from capivara_cli.models.clip import Clip
from capivara_cli.models.image_encoder import Views, encode_views
from capivara_cli.models.segments import Index, Segment

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

SEGMENT_SECONDS = 60  # after this time a segment is written; a killed process loses about this much work
READERS = 8  # threads that read images to compare them
MANY_TO_READ = 10_000  # images; comparing more of them takes so long that a message says so
ABOUT = "about.json"


class Load(NamedTuple):
    """An image to look up or to load; or a marker, without an image, that the images of a window are complete.

    Attributes:
        image: None for a marker, whose stamp is empty.
        ends: the window that a marker ends, see `embed_windows`.
    """

    stamp: Stamp
    image: ImageRef | None
    ends: Any = None


class Store:
    """The embeddings of all images that one image tower has encoded.

    Attributes:
        segments: what is on disk; rows are counted through all of them.
        failed: identity -> why the image cannot be used, for images that this process tried.
    """

    def __init__(self, clip: Clip, views: int = 1) -> None:
        self.clip = clip
        self.views = views
        key = artifacts.fingerprint(clip.image_tower_fingerprint(), views)
        self.folder = artifacts.cache_folder() / "embeddings" / key
        self.failed: dict[bytes, str] = {}
        self._stale: set[bytes] = set()  # identities on disk whose image has changed since
        self._verified: set[bytes] = set()  # identities whose content was compared with `verify`
        self._changed_in_place = 0  # images, for the message of `flush`
        self._unwritten: dict[bytes, Segment] = {}  # identity -> the row that will be in the next segment
        self._flushed = time.monotonic()
        artifacts.remove_stale_in(self.folder)
        self.reload(verify=clip.verify_cache)

    def reload(self, *, verify: bool = False) -> None:
        """Open the segments that are on disk now; `verify` is that of `segments.open_all`."""
        self.segments = segments.open_all(self.folder, verify=verify)
        self._index = Index(self.segments)

    @property
    def parts(self) -> list[np.ndarray]:
        """The embeddings of each segment (n, views, D) float16, memory-mapped."""
        return [segment.embeddings for segment in self.segments]

    def content(self, rows: np.ndarray) -> np.ndarray:
        """Return the digests of the images in some rows (N,): (N, 16) uint8."""
        import numpy as np

        return segments.gather([np.zeros((0, 16), np.uint8), *(part.content for part in self.segments)], rows)

    def find(self, keys: Sequence[bytes]) -> np.ndarray:
        """Return the row of each identity (N,); -1 where none on disk can be used."""
        rows = self._index.rows(keys)
        if self._stale:
            rows[[key in self._stale for key in keys]] = -1
        return rows

    def missing(self, images: Iterable[Load], *, verify: bool | None = None) -> list[Load]:
        """Return the images that have not failed and have no embedding, or only one from before they changed.

        An image that comes twice is returned once.

        Args:
            verify: compare the content of every image that has an embedding, not only if the time of its inode changed;
                None for the clip's `verify_cache`.
        """
        wanted = {load.stamp.identity: load for load in images if load.stamp.identity not in self._unwritten}
        self._find_stale(wanted, self.clip.verify_cache if verify is None else verify)
        rows = self.find(list(wanted))
        return [
            load for (key, load), row in zip(wanted.items(), rows, strict=True) if row < 0 and key not in self.failed
        ]

    def _find_stale(self, images: Mapping[bytes, Load], verify: bool) -> None:
        """Compare images that have an embedding on disk with the content that was encoded."""
        import numpy as np

        keys = [key for key in images if key not in self._verified]
        rows = self.find(keys)
        keys = [key for key, row in zip(keys, rows, strict=True) if row >= 0]
        rows = rows[rows >= 0]
        if not keys:
            return
        changed = segments.gather([segment.changed for segment in self.segments], rows)
        differs = changed != np.array([images[key].stamp.changed for key in keys])
        # Older segments have neither the time of the inode nor a digest: without `verify` they are believed.
        suspect = np.full(len(keys), True) if verify else differs & (changed != segments.UNKNOWN)
        if suspect.sum() > MANY_TO_READ:
            console.say(f"comparing {console.counted(int(suspect.sum()), 'image')} with what was encoded")
        indices = np.flatnonzero(suspect)
        with ThreadPoolExecutor(READERS) as readers:
            digests = list(readers.map(lambda i: _digest(images[keys[i]]), indices))
        for i, digest, content in zip(indices, digests, self.content(rows[indices]), strict=True):
            if digest is None or digest != content.tobytes():
                self._stale.add(keys[i])
                self._changed_in_place += changed[i] != segments.UNKNOWN
            elif differs[i]:  # the content is the same: store the new time, so that it is not compared again
                self._put(images[keys[i]].stamp, segments.gather(self.parts, rows[i : i + 1])[0], content)
        self._verified.update(keys if verify else ())

    def take(self, keys: Sequence[bytes]) -> np.ndarray:
        """Return view 0 (without augmentation) of images (N, D) float32. Each must have been added."""
        import numpy as np

        rows = self.find(keys)
        if any(row < 0 and key not in self._unwritten for key, row in zip(keys, rows, strict=True)):
            raise CapivaraError(f"{self.folder} was emptied while it was in use", "run the command again to resume")
        parts = self.parts
        embeddings = [
            self._unwritten[key].embeddings[0] if key in self._unwritten else parts[part][row, 0]
            for key, part, row in zip(keys, *segments.locate(parts, rows), strict=True)
        ]
        return np.array(embeddings, np.float32)

    def add(self, batch: Loaded[Load]) -> None:
        """Encode the images of a batch that were loaded by `Prepare`, and note why the others were not.

        The embeddings stay in memory until `flush`, which is called here from time to time.
        """
        import numpy as np

        self.failed |= {batch.items[i].stamp.identity: reason for i, reason in batch.reasons.items()}
        if not batch.rows:
            return
        content, pixels = batch.values  # (n, 16) uint8, (n, views, 3, H, W)
        embeddings = encode_views(self.clip, pixels).numpy().astype(np.float16)  # (n, views, D)
        for i, digest, embedding in zip(batch.rows, content.numpy(), embeddings, strict=True):
            self._put(batch.items[i].stamp, embedding, digest)
        size = len(self._unwritten) * embeddings[0].nbytes
        if time.monotonic() - self._flushed > SEGMENT_SECONDS or size > segments.SEGMENT_BYTES:
            self.flush()

    def _put(self, stamp: Stamp, embedding: np.ndarray, content: np.ndarray) -> None:
        import numpy as np

        self._stale.discard(stamp.identity)
        identity = np.frombuffer(bytearray(stamp.identity), np.uint8)
        self._unwritten[stamp.identity] = Segment(embedding, identity, content, np.array(stamp.changed))

    def flush(self) -> None:
        """Write what was added as a segment."""
        import numpy as np

        if self._unwritten:
            segments.write(self.folder, Segment(*map(np.stack, zip(*self._unwritten.values(), strict=True))))
            self._describe()
            self._unwritten.clear()
            self.reload()
        if self._changed_in_place:
            console.say(f"note: {console.counted(self._changed_in_place, 'image')} changed in place: encoding again")
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

        # The digest first: if the image changes between the two reads, the digest is that of the old content, and the
        # next comparison finds the change. A bytearray, because torch warns of memory that cannot be written.
        digest = torch.frombuffer(bytearray(images.digest(ref)), dtype=torch.uint8)
        return digest, self.views(ref)


def _digest(load: Load) -> bytes | None:
    try:
        return images.digest(load.image) if load.image is not None else None
    except ImageRejected:  # the image cannot be read any more, so it is not what was encoded
        return None
