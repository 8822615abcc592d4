"""Segments: the files of the embedding cache.

A segment is a safetensors file that never changes once written:

    embeddings  (n, views, D) float16, normalised
    identity    (n, 16) uint8, see images.identity

So a killed process loses at most one segment's work, and any number of processes may write to a folder at once. Names
sort by time: of an image that is there twice, the embedding of the later segment counts.
"""

from __future__ import annotations

import json
import struct
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from capivara_cli import artifacts

if TYPE_CHECKING:
    import numpy as np

SEGMENT_BYTES = 256 << 20
MANY_SEGMENTS = 64  # small ones. An open segment holds a file descriptor, and a process has 1,024 of them by default


def write(folder: Path, nanoseconds: int, identity: np.ndarray, embeddings: np.ndarray) -> None:
    """Write a segment: (n, 16) identities and (n, views, D) embeddings, from that time."""
    import torch

    tensors = {"embeddings": torch.from_numpy(embeddings), "identity": torch.from_numpy(identity)}
    path = folder / f"{nanoseconds:020d}-{uuid.uuid4().hex[:8]}.safetensors"
    artifacts.save_tensors(path, tensors, {"format": "pt"})


def open_all(folder: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return identities and memory-mapped embeddings of each segment, oldest first."""
    while True:
        with suppress(FileNotFoundError):  # another process has just joined a segment to others: list them again
            return [_open(path) for path in sorted(folder.glob("*.safetensors"))]


def _open(path: Path) -> tuple[np.ndarray, np.ndarray]:
    # safetensors' own reader for numpy would copy the embeddings into memory.
    import numpy as np

    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))

    def array(name: str, dtype: type) -> np.ndarray:
        entry = header[name]
        return np.memmap(path, dtype, "r", 8 + size + entry["data_offsets"][0], tuple(entry["shape"]))

    return np.array(array("identity", np.uint8)), array("embeddings", np.float16)


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
            # Copies, so that the files are closed again one by one.
            copies = [tuple(map(np.array, _open(path))) for path in paths]
            identity, embeddings = (np.concatenate(arrays) for arrays in zip(*copies, strict=True))
            # With the time of the newest of them, so that it stays older than the segments after it.
            write(folder, int(paths[-1].name.partition("-")[0]), identity, embeddings)
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
