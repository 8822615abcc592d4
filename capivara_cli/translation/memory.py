"""The translation memory: a cache in SQLite, so that no text is translated twice.

Several processes may read and write it at once (WAL). Translations are kept apart by backend, model and languages.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from capivara_cli import artifacts
from capivara_cli.errors import CapivaraError

TEXTS_PER_QUERY = 500  # older versions of SQLite allow 999 variables
WAIT = 60.0  # seconds to wait for another process that is writing

# A maker is a backend, a model and a pair of languages.
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
        with self._clear_errors():
            self.connection = sqlite3.connect(path or "", timeout=WAIT, isolation_level=None)
            if path is not None:
                self.connection.execute("PRAGMA journal_mode=WAL")
            # A killed process loses nothing; a power cut may lose the last writes.
            self.connection.execute("PRAGMA synchronous=NORMAL")
            self.connection.executescript(_TABLES)

    def maker_id(self, backend: str, model: str, origin: str, target: str) -> int:
        """Return the id of a backend, model and pair of languages, for the other methods."""
        values = (backend, model, origin, target)
        with self._clear_errors():
            self.connection.execute("INSERT OR IGNORE INTO maker VALUES (NULL, ?, ?, ?, ?)", values)
            ((number,),) = self.connection.execute(
                "SELECT id FROM maker WHERE backend = ? AND model = ? AND origin = ? AND target = ?", values
            )
        return int(number)

    def recall(self, maker: int, texts: Sequence[str]) -> dict[str, str]:
        """Return the translations of those of the texts that are in the memory."""
        translations: dict[str, str] = {}
        with self._clear_errors():
            for start in range(0, len(texts), TEXTS_PER_QUERY):
                part = texts[start : start + TEXTS_PER_QUERY]
                marks = ",".join("?" * len(part))
                query = f"SELECT source, text FROM translation WHERE maker = ? AND source IN ({marks})"  # noqa: S608
                translations.update(self.connection.execute(query, (maker, *part)))
        return translations

    def add(self, maker: int, translations: Mapping[str, str]) -> None:
        """Save translations, at once visible to all processes. A text that is already in the memory stays as it is."""
        with self._clear_errors():
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                self.connection.executemany(
                    "INSERT OR IGNORE INTO translation VALUES (?, ?, ?)",
                    ((maker, source, text) for source, text in translations.items()),
                )
            except BaseException:
                self.connection.execute("ROLLBACK")
                raise
            self.connection.execute("COMMIT")

    def __len__(self) -> int:
        with self._clear_errors():
            ((count,),) = self.connection.execute("SELECT count(*) FROM translation")
        return int(count)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        """Turn SQLite's errors into one clear line."""
        try:
            yield
        except sqlite3.Error as error:
            raise CapivaraError(
                f"the translation memory {self.path or ''} cannot be used: {error}",
                "--memory FILE uses another file, --memory none uses no cache",
            ) from error
