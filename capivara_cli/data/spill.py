"""A map from keys to texts that may be larger than the memory."""

from __future__ import annotations

import itertools
import operator
import sqlite3
from collections.abc import Iterator
from typing import Self

from capivara_cli.errors import CapivaraError

_GET = "SELECT value FROM item WHERE key = ? ORDER BY number LIMIT 1 OFFSET ?"
_ADD = "INSERT INTO item VALUES (?, ?, ?)"
_ADD_NEW = "INSERT OR IGNORE INTO item VALUES (?, ?, ?)"
# The table is sorted by key, so the first number of a key costs nothing; SQLite sorts the rest in the temporary folder.
_GROUPS = "SELECT min(number) OVER (PARTITION BY key) AS first, value FROM item ORDER BY first, number"


class Spill:
    """A multimap of texts in constant memory: a temporary SQLite database, on disk as soon as it is large.

    A key is a text or a number, and has one value or several, in the order in which they were added. Any `str` will
    do, lone surrogates included. All methods raise CapivaraError when the temporary folder is full. Threads may use it
    in turn, not at once.
    """

    def __init__(self) -> None:
        self._database = sqlite3.connect("", check_same_thread=False)
        self._length = 0
        self._errors = _DatabaseErrors()
        # Nothing has to survive a crash. SQLite removes the file when it opens it.
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute("PRAGMA cache_size = -16384")  # KiB; the default, 2 MiB, reads pages again and again
        self._database.execute(
            "CREATE TABLE item (key BLOB, number INTEGER, value BLOB, PRIMARY KEY (key, number)) WITHOUT ROWID"
        )

    def __len__(self) -> int:
        """Return the number of values."""
        return self._length

    def add(self, key: str | int, value: str) -> None:
        """Add a value to those of the key."""
        self._length += 1
        with self._errors:
            self._database.execute(_ADD, (_key(key), self._length, _encode(value)))

    def setdefault(self, key: str | int, value: str) -> str | None:
        """Return the key's value; set this one and return None if the key is new. Not for a spill with `add`."""
        # Number 0 makes the key unique, so that one statement looks and adds: this is called for every record.
        with self._errors:
            added = self._database.execute(_ADD_NEW, (_key(key), 0, _encode(value))).rowcount
        self._length += added
        return None if added else self.get(key)

    def get(self, key: str | int, index: int = 0) -> str | None:
        """Return a value of the key by its index, or None."""
        with self._errors:
            row = self._database.execute(_GET, (_key(key), index)).fetchone()
        return None if row is None else _decode(row[0])

    def groups(self) -> Iterator[list[str]]:
        """Yield the values of each key, in the order in which the keys were first added."""
        with self._errors:
            for _, rows in itertools.groupby(self._database.execute(_GROUPS), key=operator.itemgetter(0)):
                yield [_decode(value) for _, value in rows]

    def close(self) -> None:
        """Remove the database."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _key(key: str | int) -> bytes | int:
    return key if isinstance(key, int) else _encode(key)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # SQLite's TEXT takes no lone surrogates, its BLOB takes anything


def _decode(text: bytes) -> str:
    return text.decode("utf-8", "surrogatepass")


class _DatabaseErrors:
    """Raise CapivaraError when SQLite fails inside the block. A generator's `contextmanager` would take 2 µs more."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, sqlite3.OperationalError):
            raise CapivaraError(
                f"the temporary folder cannot be written: {error}", "TMPDIR=FOLDER names another one"
            ) from error
