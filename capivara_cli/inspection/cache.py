"""`cache`: what is kept to be faster the next time, by model, and how to empty it."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from capivara_cli import artifacts, console
from capivara_cli.errors import CapivaraError
from capivara_cli.models import segments
from capivara_cli.models.embedding_store import ABOUT

KEY = "[0-9a-f]{32}"  # see artifacts.fingerprint
# Names of our own files in the folders of the cache. Nothing else is counted or removed.
EMBEDDINGS = re.compile(rf"\d{{20}}-[0-9a-f]{{8}}\.safetensors|lock|{re.escape(ABOUT)}")
SHARDS = re.compile(rf"{KEY}\.npy")
CONVERTED = re.compile(r"(model\.bin|config\.json|\w*vocabulary\.(json|txt))")
TRANSLATIONS = "translations.sqlite"
FOLDERS = ("embeddings", "shards", "ctranslate2")


class Entry(NamedTuple):
    """Something in the cache.

    Attributes:
        kind: what it is.
        name: whose it is: a model.
        content: how many of what it holds.
        files: its files.
    """

    kind: str
    name: str
    content: str
    files: list[Path]

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(path.lstat().st_size for path in self.files)

    def __str__(self) -> str:
        return f"{self.kind:22} {self.name:48} {self.content:>18} {self.size / 2**20:10,.1f} MiB"


def cache(*, clear: bool = False, as_json: bool = False) -> list[Entry]:
    """Show what is in the cache, and return it; with `clear`, remove it after that.

    Args:
        as_json: print one JSON object instead of lines.
    """
    folder = artifacts.cache_folder()
    entries = [*_embeddings(folder), *_shards(folder), *_translations(folder), *_converted(folder)]
    if as_json:
        rows = [
            {"kind": entry.kind, "name": entry.name, "content": entry.content, "bytes": entry.size} for entry in entries
        ]
        console.answer(json.dumps({"folder": str(folder), "entries": rows}, indent=2, ensure_ascii=False))
    else:
        console.answer("\n".join([str(folder), *map(str, entries)]))
    if not entries:
        console.say("the cache is empty")
    elif clear:
        _remove(folder, entries)
    return entries


def _remove(folder: Path, entries: list[Entry]) -> None:
    size = sum(entry.size for entry in entries)
    for entry in entries:
        for path in entry.files:
            path.unlink(missing_ok=True)
    for name in FOLDERS:
        for path in [folder / name, *(folder / name).glob("*")]:
            artifacts.remove_stale_in(path)
        below = sorted((folder / name).rglob("*"), reverse=True)
        for path in [*below, folder / name]:
            with suppress(OSError):  # something else is in it
                path.rmdir()
        if left := [path for path in below if path.is_symlink() or path.is_file()]:
            console.say(f"note: {left[-1]} and whatever else is in {folder / name} is not ours, and stays")
    console.say(f"removed {size / 2**20:,.1f} MiB")


def _files(folder: Path, names: re.Pattern[str]) -> list[Path]:
    """Return a folder's files of these names; links are not ours."""
    paths = sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []
    return [path for path in paths if names.fullmatch(path.name) and path.is_file() and not path.is_symlink()]


def _by_key(folder: Path, names: re.Pattern[str]) -> Iterator[tuple[Path, list[Path]]]:
    """Yield the folders that are named by a key, and their files."""
    for path in sorted(folder.glob("*")):
        if re.fullmatch(KEY, path.name) and (files := _files(path, names)):
            yield path, files


def _embeddings(folder: Path) -> Iterator[Entry]:
    for store, files in _by_key(folder / "embeddings", EMBEDDINGS):
        name = f"unknown, key {store.name[:8]}"  # older versions did not write it down
        with suppress(CapivaraError, TypeError, KeyError):
            about = artifacts.read_json(store / ABOUT)
            name = f"{about['model']}, {about['precision']}, views: {about['views']}"
        images = sum(segments.count(path) for path in files if path.suffix == ".safetensors")
        yield Entry("image embeddings", name, console.counted(images, "image"), files)


def _shards(folder: Path) -> Iterator[Entry]:
    if files := _files(folder / "shards", SHARDS):
        yield Entry("indexes of shards", "", console.counted(len(files), "shard"), files)


def _translations(folder: Path) -> Iterator[Entry]:
    files = _files(folder, re.compile(rf"{re.escape(TRANSLATIONS)}(-wal|-shm)?"))
    if not files:
        return
    query = (
        "SELECT backend, model, count(*) FROM maker JOIN translation ON translation.maker = maker.id"
        " GROUP BY backend, model ORDER BY backend, model"
    )
    rows = [("unknown", "", 0)]
    with suppress(sqlite3.Error), closing(sqlite3.connect(folder / TRANSLATIONS, timeout=1)) as connection:
        rows = connection.execute(query).fetchall()
    for backend, model, count in rows:
        yield Entry("translations", f"{backend} {model}".strip(), console.counted(count, "text"), [])
    yield Entry("translations", "all", "", files)


def _converted(folder: Path) -> Iterator[Entry]:
    for path, files in _by_key(folder / "ctranslate2", CONVERTED):
        yield Entry("translation model", f"for CTranslate2, key {path.name[:8]}", "", files)
