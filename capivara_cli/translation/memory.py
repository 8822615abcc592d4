"""What was translated once is never translated again: a translation memory in SQLite.

It may be read and written by several processes at once (WAL). A translation belongs to what made it: backend, model and
languages.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

from capivara_cli import artifacts
from capivara_cli.errors import CapivaraError

AT_ONCE = 500  # texts in a query; SQLite's limit of variables was 999 once
WAIT = 60.0  # seconds for another process that is writing

_TABLES = """
CREATE TABLE IF NOT EXISTS maker (
    id INTEGER PRIMARY KEY, backend TEXT, model TEXT, origin TEXT, target TEXT,
    UNIQUE (backend, model, origin, target));
CREATE TABLE IF NOT EXISTS translation (
    maker INTEGER, source TEXT, text TEXT, PRIMARY KEY (maker, source)) WITHOUT ROWID;
"""


def default_path() -> Path:
    """In the user's cache folder."""
    return artifacts.cache_folder() / "translations.sqlite"


class Memory:
    """An open memory. Every method raises CapivaraError when the file is no memory, or cannot be read or written."""

    def __init__(self, path: Path | None) -> None:
        """Open or make the file; None is a memory of this run alone, on disk as soon as it is large."""
        self.path = path
        if path is not None:
            artifacts.make_folder(path.parent)
        with self._told():
            self.connection = sqlite3.connect(path or "", timeout=WAIT, isolation_level=None)
            if path is not None:
                self.connection.execute("PRAGMA journal_mode=WAL")
            self.connection.execute("PRAGMA synchronous=NORMAL")  # a killed process loses nothing; a power cut the last
            self.connection.executescript(_TABLES)

    def maker(self, backend: str, model: str, origin: str, target: str) -> int:
        """The number of what makes translations, for the other methods."""
        values = (backend, model, origin, target)
        with self._told():
            self.connection.execute("INSERT OR IGNORE INTO maker VALUES (NULL, ?, ?, ?, ?)", values)
            ((number,),) = self.connection.execute(
                "SELECT id FROM maker WHERE backend = ? AND model = ? AND origin = ? AND target = ?", values
            )
        return int(number)

    def recall(self, maker: int, texts: Sequence[str]) -> dict[str, str]:
        """The translations that are known of these texts."""
        known: dict[str, str] = {}
        with self._told():
            for start in range(0, len(texts), AT_ONCE):
                part = texts[start : start + AT_ONCE]
                marks = ",".join("?" * len(part))
                query = f"SELECT source, text FROM translation WHERE maker = ? AND source IN ({marks})"  # noqa: S608
                known.update(self.connection.execute(query, (maker, *part)))
        return known

    def add(self, maker: int, translations: Mapping[str, str] | Iterable[tuple[str, str]]) -> None:
        """Remember translations, at once for all other processes. What is known already stays as it is."""
        pairs = translations.items() if isinstance(translations, Mapping) else translations
        with self._told():
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                self.connection.executemany(
                    "INSERT OR IGNORE INTO translation VALUES (?, ?, ?)", ((maker, *pair) for pair in pairs)
                )
            except BaseException:
                self.connection.execute("ROLLBACK")
                raise
            self.connection.execute("COMMIT")

    def __len__(self) -> int:
        with self._told():
            ((count,),) = self.connection.execute("SELECT count(*) FROM translation")
        return int(count)

    def close(self) -> None:
        """Let go of the file."""
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _told(self) -> _Told:
        return _Told(self.path)


class _Told:
    """SQLite's errors as one clear line."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, sqlite3.Error):
            raise CapivaraError(
                f"the translation memory {self.path or ''} cannot be used: {error}",
                "--memory FILE takes another one, --memory none goes without",
            ) from error
