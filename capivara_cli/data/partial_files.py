"""The lines of a partial file: a mark, a digest of the record as it came, and JSON. See `resumable`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from capivara_cli import artifacts, files, locks
from capivara_cli.data.output import PART
from capivara_cli.errors import CapivaraError, explained

HEAD = 9  # bytes of a line before its JSON: the mark, and eight digits of the digest
_LINE = re.compile(rb"[+~-][0-9a-f]{8}\{")  # how each line begins
_TORN_LINE = re.compile(rb"[+~-][0-9a-f]{0,8}")  # of a process that was killed, or had no room


def is_partial(path: Path) -> bool:
    """Return whether it is empty, or each of its first lines has a mark, the digest of a record, and an object."""
    if not path.is_file():
        return False
    with explained(f"cannot read {path}"), path.open("rb") as file:
        lines = file.read(files.HEAD).split(b"\n")
    return all(map(_LINE.match, lines[:-1])) and bool(
        not lines[-1] or _LINE.match(lines[-1]) or _TORN_LINE.fullmatch(lines[-1])
    )


def has_settings(path: Path) -> bool:
    """Return whether `begin` may have written it."""
    with suppress(CapivaraError):
        settings = artifacts.read_json(path)
        return isinstance(settings, dict) and {"ranks", "window"} <= settings.keys()
    return False


def is_free(path: Path) -> bool:
    """Return whether no process writes it."""
    lock = locks.acquire(path)
    if lock is not None:
        lock.release()
    return lock is not None


def records_only(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Return the lines of records, without those of rejected parts."""
    return (line for line in lines if not line.startswith(PART))


def batch(lines: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Yield the lines of the next `size` records, and of their parts."""
    records = 0
    for line in lines:
        yield line
        records += not line.startswith(PART)
        if records == size:
            return


def drop_torn_batch(partial: Path, size: int) -> None:
    """Cut the file after its last whole batch: what a killed process was writing is done again."""
    end = position = records = 0
    with partial.open("rb") as file:
        for line in file:
            position += len(line)
            records += not line.startswith(PART)
            if records % size == 0 and not line.startswith(PART) and line.endswith(b"\n"):
                end = position
    with partial.open("rb+") as file:
        file.truncate(end)
