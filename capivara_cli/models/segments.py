"""Segments: the files of the embedding cache.

A segment is a safetensors file that never changes once written; `Segment` says what is in it. So a killed process loses
at most one segment's work, and any number of processes may write to a folder at once. Names sort by time: of an image
that is there twice, the embedding of the later segment counts.
"""

from __future__ import annotations

import json
import uuid
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from capivara_cli import artifacts, console

if TYPE_CHECKING:
    import numpy as np

SEGMENT_BYTES = 256 << 20
MANY_SEGMENTS = 64  # small ones. An open segment holds a file descriptor, and a process has 1,024 of them by default
SAMPLES = 64  # embeddings of a segment that are looked at when it is opened
DTYPES = {"float16": "F16", "uint8": "U8", "int64": "I64"}  # as safetensors spells them
UNKNOWN = -1  # `changed` of older segments, which have no `content` either


class Segment(NamedTuple):
    """What is stored of n images.

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


def write(folder: Path, nanoseconds: int, segment: Segment) -> None:
    """Write a segment from that time."""
    import torch

    tensors = {name: torch.from_numpy(array) for name, array in segment._asdict().items()}
    checksums = {name: str(zlib.crc32(array.data)) for name, array in segment._asdict().items()}
    path = folder / f"{nanoseconds:020d}-{uuid.uuid4().hex[:8]}.safetensors"
    artifacts.save_tensors(path, tensors, {"format": "pt"} | checksums)


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
    # Its reader would copy the embeddings into memory.
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


def locate(parts: Sequence[np.ndarray], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the part of each row (B,), which is counted through all parts, and the row within that part (B,)."""
    import numpy as np

    starts = np.cumsum([0, *map(len, parts)])
    part = np.searchsorted(starts, rows, side="right") - 1
    return part, rows - starts[part]


def gather(parts: Sequence[np.ndarray], rows: np.ndarray, view: np.ndarray | None = None) -> np.ndarray:
    """Return rows (B,) of all parts: (B, ...), or of embeddings in the given views (B,): (B, D)."""
    import numpy as np

    part, row = locate(parts, rows)
    result = np.empty((len(rows), *parts[0].shape[1 if view is None else 2 :]), parts[0].dtype)
    for i in np.unique(part):
        mask = part == i
        result[mask] = parts[i][row[mask]] if view is None else parts[i][row[mask], view[mask]]
    return result


def join_small(folder: Path) -> None:
    """Join neighbouring small segments when there are many, unless another process is doing it."""
    import numpy as np

    if sum(size < SEGMENT_BYTES // 2 for size in _sizes(folder).values()) <= MANY_SEGMENTS:
        return
    try:
        lock = (folder / "lock").open("ab")
    except OSError:  # a cache that we may only read
        return
    with lock:
        if not artifacts.lock(lock):
            return
        for paths in _neighbours(_sizes(folder)):
            copies = []
            for path in paths:
                if (segment := _open_or_remove(path)) is not None:
                    copies.append(
                        tuple(map(np.array, segment))
                    )  # copies, so that the files are closed again one by one
            if not copies:
                continue
            joined = Segment(*map(np.concatenate, zip(*copies, strict=True)))
            newest_first = np.ascontiguousarray(joined.identity[::-1]).view("S16").ravel()
            newest = np.sort(len(newest_first) - 1 - np.unique(newest_first, return_index=True)[1])
            # With the time of the newest of them, so that it stays older than the segments after it.
            write(folder, int(paths[-1].name.partition("-")[0]), Segment(*(array[newest] for array in joined)))
            for path in paths:
                path.unlink(missing_ok=True)


def _sizes(folder: Path) -> dict[Path, int]:
    """Return the bytes of each segment, oldest first."""
    sizes = {}
    for path in sorted(folder.glob("*.safetensors")):
        with suppress(FileNotFoundError):
            sizes[path] = path.stat().st_size
    return sizes


def _neighbours(sizes: dict[Path, int]) -> Iterator[list[Path]]:
    """Yield runs of at least two neighbours that are together no larger than a segment."""
    run: list[Path] = []
    total = 0
    for path, size in sizes.items():
        if total + size > SEGMENT_BYTES:
            if len(run) > 1:
                yield run
            run, total = [], 0
        run.append(path)
        total += size
    if len(run) > 1:
        yield run
