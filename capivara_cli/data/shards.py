"""Tar shards (WebDataset's form): their members in order, and any one of them at once; nothing is unpacked.

Where the members of a shard are is kept in `<cache>/shards/`, as sorted hashes of their names: a shard of a hundred
thousand members is looked through once, and then any member is found by a search in a memory-mapped file.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from capivara_cli import artifacts
from capivara_cli.errors import CapivaraError

if TYPE_CHECKING:
    import numpy as np


class Member(NamedTuple):
    """A regular file in a tar."""

    name: str
    offset: int
    """Of its first byte in the tar."""
    size: int


@dataclass
class Shard:
    """A tar that is read once from its beginning.

    Attributes:
        lost: what a tar that was cut short or damaged has lost, once it was read to its end.
        refused: how many members were refused, and the first of them, by the reason.
    """

    path: Path
    lost: str | None = None
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    table: np.ndarray | None = None

    def _refuse(self, reason: str, name: str) -> None:
        count, first = self.refused.get(reason, (0, name))
        self.refused[reason] = (count + 1, first)

    def members(self) -> Iterator[Member]:
        """The regular files, in order; of a tar cut short the whole ones. Keeps where they are for `find`.

        Raises OSError, and tarfile.ReadError when it is no tar at all.
        """
        import numpy as np

        total = os.path.getsize(self.path)
        hashes, places = bytearray(), []
        try:
            with tarfile.open(self.path, "r:") as archive:
                for member in archive:
                    archive.members = []  # type: ignore[attr-defined]  # it would remember them all
                    if not member.isfile():
                        if not member.isdir():
                            self._refuse("they are links or devices", member.name)
                        continue
                    if member.offset_data + member.size > total:
                        self.lost = f"cut short: {member.name} is not whole, and what follows is lost"
                        break
                    if not is_inside(member.name):
                        self._refuse("they lead out of it", member.name)
                        continue
                    hashes += _hash(member.name)
                    places.append((member.offset_data, member.size))
                    yield Member(member.name, *places[-1])
                else:
                    self.lost = _what_is_wrong_at(self.path, archive.offset, total)
        except tarfile.ReadError as error:
            if not places:
                raise
            self.lost = f"cut short after {len(places):,} members: {error}"
        self.table = _keep(self.path, bytes(hashes), np.array(places, np.int64).reshape(-1, 2))

    def samples(self) -> Iterator[tuple[str, dict[str, Member]]]:
        """Samples: the members' common name, and by what follows its first dot (WebDataset's rule) the members."""
        stem, own = "", dict[str, Member]()
        for member in self.members():
            folder, slash, base = member.name.rpartition("/")
            name, dot, extension = base.partition(".")
            if not dot or not name:
                continue
            if folder + slash + name != stem:
                if own:
                    yield stem, own
                stem, own = folder + slash + name, {}
            own[extension.lower()] = member
        if own:
            yield stem, own


def _what_is_wrong_at(path: Path, offset: int, total: int) -> str | None:
    """What ends a tar there, unless it is the end mark: blocks of zeros."""
    if offset + tarfile.BLOCKSIZE > total:
        return "without an end mark: it may have been cut short"
    with path.open("rb") as file:
        file.seek(offset)
        if any(file.read(tarfile.BLOCKSIZE)):
            return f"damaged at byte {offset:,}: the {total - offset:,} bytes from there on are lost"
    return None


def is_inside(name: str) -> bool:
    """Whether a name stays inside its folder."""
    return not name.startswith(("/", "\\")) and ".." not in PurePosixPath(name.replace("\\", "/")).parts


def find(path: str, name: str) -> tuple[int, int] | None:
    """Offset and size of a member; None when there is no such one.

    Raises OSError, and tarfile.ReadError when it is no tar at all.
    """
    status = os.stat(path)
    hashes, places = _index(path, status.st_size, status.st_mtime_ns)
    wanted = _sortable(_hash(name))
    at = int(hashes.searchsorted(wanted, side="right")[0]) - 1  # of two with one name the later counts, as in any tar
    if at < 0 or hashes[at] != wanted[0]:
        return None
    return int(places[at, 0]), int(places[at, 1])


def _hash(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _sortable(hashes: bytes) -> np.ndarray:
    import numpy as np

    return np.frombuffer(hashes, "S16")


@lru_cache(maxsize=1024)
def _index(path: str, size: int, time: int) -> tuple[np.ndarray, np.ndarray]:
    """Sorted hashes (n,) of 16 bytes and places (n, 2) int64, memory-mapped. Size and time are the shard's."""
    import numpy as np

    file = _file(path, size, time)
    if file.is_file():
        table = np.load(file, mmap_mode="r", allow_pickle=False)
    else:
        shard = Shard(Path(path))
        for _ in shard.members():
            pass
        assert shard.table is not None, "it was read to its end"
        table = shard.table
    return table["name"], table["place"]


def _file(path: str, size: int, time: int) -> Path:
    return artifacts.cache_folder() / "shards" / f"{artifacts.fingerprint(os.path.abspath(path), size, time)}.npy"


def _keep(path: Path, hashes: bytes, places: np.ndarray) -> np.ndarray:
    """The index, which is kept in the cache when that can be written."""
    import numpy as np

    status = os.stat(path)
    file = _file(str(path), status.st_size, status.st_mtime_ns)
    names = _sortable(hashes)
    order = np.argsort(names, kind="stable")
    table = np.empty(len(names), [("name", "S16"), ("place", np.int64, 2)])
    table["name"], table["place"] = names[order], places[order]
    if not file.is_file():
        with suppress(CapivaraError), artifacts.writing(file) as temporary, temporary.open("wb") as out:
            np.save(out, table, allow_pickle=False)
    return table
