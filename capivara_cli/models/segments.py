"""Segments: the files of the embedding cache.

A segment is a safetensors file that never changes once written; `Segment` describes its tensors. A killed process
therefore loses at most one segment's work, and any number of processes may write to a folder at once without a lock:
the worst that can happen is that an image is stored twice. Names sort by time, and the later of two embeddings of an
image counts.
"""

from __future__ import annotations

import json
import time
import uuid
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from capivara_cli import artifacts, console

if TYPE_CHECKING:
    import numpy as np

SEGMENT_BYTES = 256 << 20  # no segment is larger, so that a killed process loses little, and joining takes little
SMALL_BYTES = 1 << 20  # a smaller segment is always joined to the next one
SAMPLES = 64  # embeddings of a segment that are checked when it is opened; checking all would read the whole file
DTYPES = {"float16": "F16", "uint8": "U8", "int64": "I64"}  # as safetensors spells them
UNKNOWN = -1  # `changed` of older segments, which have no `content` either


class Segment(NamedTuple):
    """The tensors of a segment of n images. For a single image (`Store._unwritten`), the first axis is missing.

    Attributes:
        embeddings: (n, views, D) float16, normalised; memory-mapped.
        identity: (n, 16) uint8, see images.Stamp.
        content: (n, 16) uint8, digest of the image's bytes.
        changed: (n,) int64, see images.Stamp.
    """

    embeddings: np.ndarray
    identity: np.ndarray
    content: np.ndarray
    changed: np.ndarray


def write(folder: Path, segment: Segment) -> None:
    """Write a segment, joined with the latest ones in the folder as long as these are about as large or smaller.

    A folder therefore has about log2(images) segments and one per SEGMENT_BYTES, and an embedding is rewritten no more
    than about log2(images) times. Few segments, because an open one holds a file descriptor, and a process has 1,024 of
    them by default.
    """
    import torch

    joined: list[Path] = []
    with suppress(FileNotFoundError):  # another process has just joined that one
        for path in sorted(folder.glob("*.safetensors"), reverse=True):
            size = segment.embeddings.nbytes
            # The older one may be twice as large, or small; together they may not exceed SEGMENT_BYTES.
            if path.stat().st_size > min(max(2 * size, SMALL_BYTES), SEGMENT_BYTES - size):
                break
            if (older := _open_or_remove(path)) is not None:
                segment = _join(older, segment)
                joined.append(path)
    tensors = {name: torch.from_numpy(array) for name, array in segment._asdict().items()}
    checksums = {name: str(zlib.crc32(array.data)) for name, array in segment._asdict().items()}
    name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.safetensors"
    artifacts.save_tensors(folder / name, tensors, {"format": "pt"} | checksums)
    for path in joined:
        path.unlink(missing_ok=True)


def _join(older: Segment, newer: Segment) -> Segment:
    """Return both as one; of an image that is in both, only the newer embedding."""
    import numpy as np

    repeated = np.isin(_as_keys(older.identity), _as_keys(newer.identity))
    return Segment(*(np.concatenate([old[~repeated], new]) for old, new in zip(older, newer, strict=True)))


def _as_keys(identity: np.ndarray) -> np.ndarray:
    """Return (n, 16) uint8 as (n,) values of 16 bytes, which sort and compare as a whole."""
    import numpy as np

    return np.ascontiguousarray(identity).view("S16").ravel()


def open_all(folder: Path, *, verify: bool = False) -> list[Segment]:
    """Return the segments, oldest first. One that is damaged is removed.

    Args:
        verify: also compare the embeddings with their checksums, which reads all of them.
    """
    while True:
        with suppress(FileNotFoundError):  # another process has just joined a segment to others: list them again
            opened = [_open_or_remove(path, verify) for path in sorted(folder.glob("*.safetensors"))]
            return [segment for segment in opened if segment is not None]


def count(path: Path) -> int:
    """Return the number of images in a segment; 0 if it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            return int(file.get_slice("identity").get_shape()[0])
    except (OSError, SafetensorError):
        return 0


def _open_or_remove(path: Path, verify: bool = False) -> Segment | None:
    from safetensors import SafetensorError

    try:
        return _open(path, verify)
    except (SafetensorError, ValueError, KeyError) as error:
        console.say(f"note: {path} is damaged ({error}): it is removed, and its images are encoded again")
        with suppress(OSError):  # a cache that we may only read
            path.unlink()
        return None


def _open(path: Path, verify: bool) -> Segment:
    """Raises SafetensorError, ValueError or KeyError if the file is damaged."""
    import numpy as np
    from safetensors import safe_open

    with safe_open(path, "np") as file:  # checks the header, and that the file is whole
        metadata = file.metadata() or {}
    # The reader of safetensors would copy the embeddings into memory, so map them here. The file is 8 bytes (the size
    # of the header, little-endian), the header (JSON), and the tensors; `data_offsets` count from the header's end.
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))

    rows, views, width = header["embeddings"]["shape"]
    old = {"content": np.zeros((rows, 16), np.uint8), "changed": np.full(rows, UNKNOWN)}

    def array(name: str, dtype: str, *columns: int) -> np.ndarray:
        if name not in header and name in old:
            return old[name]
        entry = header[name]
        if (entry["dtype"], entry["shape"]) != (DTYPES[dtype], [rows, *columns]) or not rows:
            raise ValueError(f"{name} is {entry['dtype']} {entry['shape']}")
        # Segments of older versions have no checksums. That of the embeddings is checked only with `verify`, because it
        # reads all of them.
        values = np.memmap(path, dtype, "r", 8 + size + entry["data_offsets"][0], (rows, *columns))
        if (verify or name != "embeddings") and metadata.get(name) not in (None, str(zlib.crc32(values.data))):
            raise ValueError(f"{name} has another checksum")
        return values

    embeddings = array("embeddings", "float16", views, width)
    identity, changed = np.array(array("identity", "uint8", 16)), np.array(array("changed", "int64"))
    segment = Segment(embeddings, identity, array("content", "uint8", 16), changed)
    samples = np.array(embeddings[np.linspace(0, len(embeddings) - 1, SAMPLES).astype(int)])  # (SAMPLES, views, D)
    if not np.isfinite(samples).all() or not samples.any(axis=-1).all():  # zeros are what a power cut leaves
        raise ValueError("embeddings that are no unit vectors")
    return segment


class Index:
    """Where the embedding of each image is in some segments. Rows are counted through all segments."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        import numpy as np

        keys = _as_keys(np.concatenate([np.zeros((0, 16), np.uint8), *(segment.identity for segment in segments)]))
        # A sorted array, because a dict would take some 200 bytes per image instead of 24. A stable sort: of an image
        # that is stored twice, the newer row comes last.
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    def rows(self, keys: Sequence[bytes]) -> np.ndarray:
        """Return the row of each identity (N,); -1 where there is none."""
        import numpy as np

        if not len(self._keys) or not keys:
            return np.full(len(keys), -1)
        wanted = np.frombuffer(b"".join(keys), "S16")
        # The last of equal keys. -1 for a key that sorts before all others: it is then compared with the very last key,
        # which it does not equal.
        last = np.searchsorted(self._keys, wanted, side="right") - 1
        return np.where(self._keys[last] == wanted, self._order[last], -1)


def locate(parts: Sequence[np.ndarray], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the part that holds each row (B,), and the row's index within that part (B,).

    Args:
        rows: (B,) counted through all parts, as if they were one array.
    """
    import numpy as np

    starts = np.cumsum([0, *map(len, parts)])
    part = np.searchsorted(starts, rows, side="right") - 1
    return part, rows - starts[part]


def gather(parts: Sequence[np.ndarray], rows: np.ndarray, view: np.ndarray | None = None) -> np.ndarray:
    """Return rows (B,), counted through all parts: (B, ...). With `view` (B,), one view of each row: (B, D)."""
    import numpy as np

    part, row = locate(parts, rows)
    result = np.empty((len(rows), *parts[0].shape[1 if view is None else 2 :]), parts[0].dtype)
    for i in np.unique(part):
        mask = part == i
        result[mask] = parts[i][row[mask]] if view is None else parts[i][row[mask], view[mask]]
    return result
