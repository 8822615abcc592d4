"""A map from keys to texts that does not fit into memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Self

from capivara_cli.errors import CapivaraError

_GET = "SELECT value FROM item WHERE key = ? ORDER BY number LIMIT 1 OFFSET ?"
_ADD = "INSERT INTO item VALUES (?, ?, ?)"
_GROUPS = "SELECT key, value FROM item ORDER BY key, number"


class Spill:
    """A sorted multimap of texts in constant memory: a temporary SQLite database, on disk as soon as it is large.

    A key has one value or several, in the order in which they were added. Any `str` will do, lone surrogates included.
    All methods raise CapivaraError when the temporary folder is full. Threads may use it in turn, not at once.
    """

    def __init__(self) -> None:
        self._database = sqlite3.connect("", check_same_thread=False)
        self._length = 0
        # Nothing has to survive a crash. SQLite removes the file when it opens it.
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute(
            "CREATE TABLE item (key BLOB, number INTEGER, value BLOB, PRIMARY KEY (key, number)) WITHOUT ROWID"
        )

    def __len__(self) -> int:
        """Return the number of values."""
        return self._length

    def add(self, key: str, value: str) -> None:
        """Add a value to those of the key."""
        self._execute(_ADD, _encode(key), self._length, _encode(value))
        self._length += 1

    def setdefault(self, key: str, value: str) -> str | None:
        """Return the key's first value; add this one and return None if the key is new."""
        first = self.get(key)
        if first is None:
            self.add(key, value)
        return first

    def get(self, key: str, index: int = 0) -> str | None:
        """Return a value of the key by its index, or None."""
        row = self._execute(_GET, _encode(key), index).fetchone()
        return None if row is None else _decode(row[0])

    def groups(self) -> Iterator[list[str]]:
        """Yield the values of each key, the keys in the order of their code points. Add nothing meanwhile."""
        values: list[str] = []
        last = None
        try:
            for key, value in self._database.execute(_GROUPS):
                if key != last and values:
                    yield values
                    values = []
                values.append(_decode(value))
                last = key
        except sqlite3.OperationalError as error:
            raise _no_room(error) from error
        if values:
            yield values

    def _execute(self, statement: str, *values: bytes | int) -> sqlite3.Cursor:
        try:
            return self._database.execute(statement, values)
        except sqlite3.OperationalError as error:
            raise _no_room(error) from error

    def close(self) -> None:
        """Remove the database."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # SQLite's TEXT takes no lone surrogates, its BLOB takes anything


def _decode(text: bytes) -> str:
    return text.decode("utf-8", "surrogatepass")


def _no_room(error: sqlite3.OperationalError) -> CapivaraError:
    return CapivaraError(f"the temporary folder cannot be written: {error}", "TMPDIR=FOLDER names another one")
