"""The translation memory: a cache in SQLite, so that no text is translated twice.

Several processes may read and write it at once (WAL). Translations are kept apart by backend, model and languages. A
file that is damaged is set aside, and a new one is begun: what is lost can be translated again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self, TypeVar

from capivara_cli import artifacts, console
from capivara_cli.errors import CapivaraError

TEXTS_PER_QUERY = 500  # older versions of SQLite allow 999 variables
WAIT = 60.0  # seconds to wait for another process that is writing

DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
HEADER = b"SQLite format 3\0"  # the first bytes of every database

T = TypeVar("T")


class Maker(NamedTuple):
    """What translations are kept apart by."""

    backend: str
    model: str
    origin: str
    target: str


_TABLES = """
CREATE TABLE IF NOT EXISTS maker (
    id INTEGER PRIMARY KEY, backend TEXT, model TEXT, origin TEXT, target TEXT,
    UNIQUE (backend, model, origin, target));
CREATE TABLE IF NOT EXISTS translation (
    maker INTEGER, source TEXT, text TEXT, PRIMARY KEY (maker, source)) WITHOUT ROWID;
"""


def default_path() -> Path:
    """Return the memory's file in the user's cache folder."""
    return artifacts.cache_folder() / "translations.sqlite"


class Memory:
    """An open memory. Every method raises CapivaraError when the file is not a memory, or cannot be read or written."""

    def __init__(self, path: Path | None) -> None:
        """Open or make the file; None is a memory for this run alone, which SQLite moves to disk when it is large."""
        self.path = path
        if path is not None:
            artifacts.make_folder(path.parent)
        self._connection: sqlite3.Connection | None = None
        self._inode: int | None = None  # of the open file, which another process may have set aside
        self._run(lambda _: None)  # opens the file

    def recall(self, maker: Maker, texts: Sequence[str]) -> dict[str, str]:
        """Return the translations of those of the texts that are in the memory."""

        def recall(connection: sqlite3.Connection) -> dict[str, str]:
            number = _maker_id(connection, maker)
            translations: dict[str, str] = {}
            for start in range(0, len(texts), TEXTS_PER_QUERY):
                part = texts[start : start + TEXTS_PER_QUERY]
                marks = ",".join("?" * len(part))
                query = f"SELECT source, text FROM translation WHERE maker = ? AND source IN ({marks})"  # noqa: S608
                translations.update(connection.execute(query, (number, *part)))
            return translations

        return self._run(recall)

    def add(self, maker: Maker, translations: Mapping[str, str]) -> None:
        """Save translations, at once visible to all processes. A text that is already in the memory stays as it is."""

        def add(connection: sqlite3.Connection) -> None:
            number = _maker_id(connection, maker)
            rows = ((number, source, text) for source, text in translations.items())
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.executemany("INSERT OR IGNORE INTO translation VALUES (?, ?, ?)", rows)
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

        if translations:
            self._run(add)

    def __len__(self) -> int:
        return self._run(lambda connection: int(connection.execute("SELECT count(*) FROM translation").fetchone()[0]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do something with the open file. If the file is damaged, set it aside and do it with a new one."""
        try:
            try:
                return work(self._open())
            except sqlite3.DatabaseError as error:
                if not self._set_aside(error):
                    raise
            return work(self._open())
        except sqlite3.Error as error:
            self._close()
            raise CapivaraError(
                f"the translation memory {self.path or ''} cannot be used: {error}",
                "--memory FILE uses another file, --memory none uses no cache",
            ) from error

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._inode = _inode_of(self.path)
            self._connection = sqlite3.connect(self.path or "", timeout=WAIT, isolation_level=None)
            if self.path is not None:
                self._connection.execute("PRAGMA journal_mode=WAL")
                self._inode = _inode_of(self.path)
            # A killed process loses nothing; a power cut may lose the last writes.
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.executescript(_TABLES)
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _set_aside(self, error: sqlite3.DatabaseError) -> bool:
        """Rename a damaged file, so that a new one is begun; return False if it is not ours or not damaged."""
        code = getattr(error, "sqlite_errorcode", None)
        is_damaged = (code is not None and code & 0xFF in DAMAGED) or "decode" in str(error)  # not UTF-8
        if self.path is None or not is_damaged:
            return False
        inode = self._inode
        self._close()
        if _inode_of(self.path) != inode:
            return True  # another process has just set it aside
        with self.path.open("rb") as file:
            # In the cache folder all is ours. Elsewhere `--memory` may name any file by mistake.
            if file.read(len(HEADER)) != HEADER and self.path != default_path():
                return False
        damaged = self.path.with_name(f"{self.path.name}.damaged")
        for suffix in ("-wal", "-shm"):  # SQLite's own files: a new database must not be mended with an old log
            self.path.with_name(f"{self.path.name}{suffix}").unlink(missing_ok=True)
        self.path.replace(damaged)
        console.warn(f"the translation memory {self.path} is damaged ({error}): a new one is begun, it is {damaged}")
        return True


def _inode_of(path: Path | None) -> int | None:
    return path.stat().st_ino if path is not None and path.exists() else None


def _maker_id(connection: sqlite3.Connection, maker: Maker) -> int:
    connection.execute("INSERT OR IGNORE INTO maker VALUES (NULL, ?, ?, ?, ?)", maker)
    query = "SELECT id FROM maker WHERE backend = ? AND model = ? AND origin = ? AND target = ?"
    return int(connection.execute(query, maker).fetchone()[0])
