"""Tar shards in WebDataset's form: their members in order, and random access to any of them; nothing is unpacked.

An index in `<cache>/shards/` has the sorted hashes of the members' names, with their offsets and sizes. A shard of a
hundred thousand members is scanned once; after that, a binary search in the memory-mapped index finds any member.
"""

from __future__ import annotations

import hashlib
import os
import struct
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from capivara_cli import artifacts, console
from capivara_cli.errors import CapivaraError, first_line

if TYPE_CHECKING:
    import numpy as np


_END = struct.Struct("<qI")  # after the index: when the shard's inode changed, in ns, and the checksum of the index


class Member(NamedTuple):
    """A regular file in a tar.

    Attributes:
        offset: of its first byte in the tar.
    """

    name: str
    offset: int
    size: int


@dataclass
class Shard:
    """A tar to be read once, from its beginning.

    Attributes:
        lost: what is missing from a truncated or damaged tar; known after reading.
        refused: reason -> number of refused members, and the name of the first.
        index: see `_build_index`; known after reading.
    """

    path: Path
    lost: str | None = None
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    index: np.ndarray | None = None

    def members(self) -> Iterator[Member]:
        """Yield the regular files, in order; of a truncated tar, the complete ones. Save the index for `find`.

        Raises OSError, and tarfile.ReadError if it is not a tar.
        """
        import numpy as np

        total = os.path.getsize(self.path)
        hashes, locations = bytearray(), []
        try:
            with tarfile.open(self.path, "r:") as archive:
                for member in archive:
                    archive.members = []  # type: ignore[attr-defined]  # tarfile would keep them all in memory
                    if not member.isfile():
                        if not member.isdir():
                            self._refuse("link or device", member.name)
                        continue
                    if member.offset_data + member.size > total:
                        self.lost = f"truncated: {member.name} is incomplete, and what follows is lost"
                        break
                    if not is_inside(member.name):
                        self._refuse("path outside the archive", member.name)
                        continue
                    hashes += _hash(member.name)
                    locations.append((member.offset_data, member.size))
                    yield Member(member.name, member.offset_data, member.size)
                else:
                    self.lost = _missing_end(self.path, archive.offset, total)
        except tarfile.ReadError as error:
            if not locations:
                raise
            self.lost = f"truncated after {len(locations):,} members: {error}"
        self.index = _build_index(bytes(hashes), np.array(locations, np.int64).reshape(-1, 2))
        _save_index(self.path, self.index)

    def _refuse(self, reason: str, name: str) -> None:
        count, first = self.refused.get(reason, (0, name))
        self.refused[reason] = (count + 1, first)

    def samples(self) -> Iterator[tuple[str, dict[str, Member]]]:
        """Yield each sample: the name that its members share, and extension -> member.

        As WebDataset has it, the extension is everything after the first dot of the file name.
        """
        stem, members = "", dict[str, Member]()
        for member in self.members():
            folder, slash, base = member.name.rpartition("/")
            name, dot, extension = base.partition(".")
            if not dot or not name:
                continue
            if folder + slash + name != stem:
                if members:
                    yield stem, members
                stem, members = folder + slash + name, {}
            members[extension.lower()] = member
        if members:
            yield stem, members


def _missing_end(path: Path, offset: int, total: int) -> str | None:
    """Return what is wrong at the end of a tar's last member; None if there is the end mark, a block of zeros."""
    if offset + tarfile.BLOCKSIZE > total:
        return "without an end mark: it may be truncated"
    with path.open("rb") as file:
        file.seek(offset)
        if any(file.read(tarfile.BLOCKSIZE)):
            return f"damaged at byte {offset:,}: the remaining {total - offset:,} bytes are lost"
    return None


def is_inside(name: str) -> bool:
    """Whether a member's name stays inside the folder that the tar would be unpacked to."""
    return not name.startswith(("/", "\\")) and ".." not in PurePosixPath(name.replace("\\", "/")).parts


def find(path: str, name: str) -> tuple[int, int] | None:
    """Return offset and size of a member; None if the shard has no such member.

    Raises OSError, and tarfile.ReadError if it is not a tar.
    """
    status = os.stat(path)
    index = _load_index(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    key = _as_keys(_hash(name))
    # Of members with the same name the last one counts, as in any tar.
    row = int(index["name"].searchsorted(key, side="right")[0]) - 1
    if row < 0 or index["name"][row] != key[0]:
        return None
    offset, size = index["place"][row]
    return int(offset), int(size)


def _hash(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _as_keys(hashes: bytes) -> np.ndarray:
    """Convert n hashes of 16 bytes to an array (n,) that numpy can sort and search."""
    import numpy as np

    return np.frombuffer(hashes, "S16")


def _build_index(hashes: bytes, locations: np.ndarray) -> np.ndarray:
    """Return a structured array (n,), sorted by `name` (a hash): `place` is offset and size."""
    import numpy as np

    names = _as_keys(hashes)
    order = np.argsort(names, kind="stable")
    index = np.empty(len(names), [("name", "S16"), ("place", np.int64, 2)])
    index["name"], index["place"] = names[order], locations[order]
    return index


def _save_index(path: Path, index: np.ndarray) -> None:
    """Save the index, unless the cache cannot be written."""
    import numpy as np

    status = os.stat(path)
    file = _index_file(str(path), status.st_size, status.st_mtime_ns)
    if not file.is_file():
        with suppress(CapivaraError), artifacts.writing(file) as temporary, temporary.open("wb") as out:
            np.save(out, index, allow_pickle=False)
            out.write(_END.pack(status.st_ctime_ns, zlib.crc32(index.data)))


def _read_index(file: Path, path: str, size: int, changed: int) -> np.ndarray | None:
    """Return a saved index; None if there is none. One that is damaged is removed, and one of an older content."""
    import numpy as np

    try:
        index = np.lib.format.open_memmap(file, mode="r")
        with file.open("rb") as opened:
            opened.seek(index.offset + index.nbytes)
            end = opened.read()
        if index.dtype.names != ("name", "place") or index.ndim != 1:
            raise ValueError("not an index")
        then, checksum = _END.unpack(end) if end else (changed, None)  # older versions wrote no end
        if checksum not in (None, zlib.crc32(index.data)) or (index["place"] @ [1, 1] > size).any():
            raise ValueError("another checksum")
        if then == changed:
            return index
    except OSError:  # there is none, or no permission to read it
        return None
    except Exception as error:  # numpy's reader of a damaged file raises nearly anything
        console.say(f"note: {file} is damaged ({first_line(error)}): it is removed, and {path} is indexed again")
    with suppress(OSError):
        file.unlink()
    return None


@lru_cache(maxsize=1024)
def _load_index(path: str, size: int, time: int, changed: int) -> np.ndarray:
    """Load or make the index of a shard.

    Its size and times are arguments so that a changed shard is indexed again; `changed` is that of images.Stamp.
    """
    index = _read_index(_index_file(path, size, time), path, size, changed)
    if index is not None:
        return index
    shard = Shard(Path(path))
    for _ in shard.members():
        pass
    assert shard.index is not None, "it was read to its end"
    return shard.index


def _index_file(path: str, size: int, time: int) -> Path:
    return artifacts.cache_folder() / "shards" / f"{artifacts.fingerprint(os.path.abspath(path), size, time)}.npy"
