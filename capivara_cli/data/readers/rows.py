"""A row: what one line, object or sample of a foreign file says of an image; and rows of one image put together."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date, time
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """What is said of an image at one place.

    Attributes:
        where: `file.csv:17`, for messages.
        key: what the file calls the image: rows of one key are of one image.
        image: where it is, as a record has it; relative to the working folder. None when this row does not say.
        captions: as in a record.
        apart: whether `parent` is the place in this row, and not among all captions of the image.
        id: the record's; None takes the key.
        extra: `label` and other keys of the record.
        problem: why no record can be made of it.
    """

    where: str
    key: str
    image: str | None = None
    captions: tuple[dict[str, Any], ...] = ()
    id: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None
    apart: bool = True


@dataclass(frozen=True)
class Options:
    """What a reader may be told.

    Attributes:
        images: folder of the images; None is the annotations' own.
        split: part of the data to take.
        lang: of captions that do not say theirs.
        columns: what a table's columns are: `image`, `caption`, `id`, `label`, a language … -> column's name or number.
        labels: whether folders are classes; None finds out.
        encoding: of text files; None is UTF-8, or UTF-16 with its mark.
        extracted: folder for images that are inside a table; None when there is no place for them.
    """

    images: Path | None = None
    split: str | None = None
    lang: str = "en"
    columns: dict[str, str] = field(default_factory=dict)
    labels: bool | None = None
    encoding: str | None = None
    extracted: Path | None = None


def inside(folder: Path, name: str) -> str:
    """The name, which is relative to the folder. `folder / name` costs five times as much, a million times."""
    place = str(folder)
    return name if place == "." or name.startswith("/") else f"{place}/{name}"


def join(rows: Iterable[Row], *, scattered: bool = True) -> Iterator[Row]:
    """One row for each key, in the order in which the keys came first, with the captions of all its rows.

    Rows of one image need not stand together: they wait in a temporary database, which is on disk as soon as it is
    large, so memory does not grow. A row with a problem stays by itself; all do when they are not `scattered`.
    """
    with closing(sqlite3.connect("")) as spool:
        spool.execute("PRAGMA journal_mode=OFF")
        spool.execute("PRAGMA synchronous=OFF")
        spool.execute("CREATE TABLE image (number INTEGER PRIMARY KEY, key TEXT UNIQUE)")
        spool.execute(
            "CREATE TABLE part (number INTEGER, turn INTEGER, row TEXT, PRIMARY KEY (number, turn)) WITHOUT ROWID"
        )
        last, number = None, 0
        for turn, row in enumerate(rows):
            if row.problem is not None or not scattered:
                number, last = spool.execute("INSERT INTO image (key) VALUES (NULL)").lastrowid or 0, None
            elif row.key != last:
                found = spool.execute("SELECT number FROM image WHERE key = ?", (_text(row.key),)).fetchone()
                number = found[0] if found else _insert(spool, row.key)
                last = row.key
            spool.execute("INSERT INTO part VALUES (?, ?, ?)", (number, turn, _dump(row)))
        own: list[Row] = []
        before = None
        for number, dumped in spool.execute("SELECT number, row FROM part ORDER BY number, turn"):
            if number != before and own:
                yield _joined(own)
                own = []
            own.append(Row(*json.loads(dumped)))
            before = number
        if own:
            yield _joined(own)


def _insert(spool: sqlite3.Connection, key: str) -> int:
    return spool.execute("INSERT INTO image (key) VALUES (?)", (_text(key),)).lastrowid or 0


def _text(key: str) -> str:
    return key.encode("utf-8", "backslashreplace").decode()  # a database takes no halves of surrogates


def _plain(value: object) -> object:
    """What JSON has no form for, of tables' columns: times as ISO 8601, exact numbers as text, bytes left out."""
    if isinstance(value, date | time):
        return value.isoformat()
    return None if isinstance(value, bytes) else str(value)


_encode = json.JSONEncoder(separators=(",", ":"), default=_plain).encode


def _dump(row: Row) -> str:
    return _encode([row.where, row.key, row.image, row.captions, row.id, row.extra, row.problem, row.apart])


def _joined(own: list[Row]) -> Row:
    captions: list[dict[str, Any]] = []
    extra: dict[str, Any] = {}
    for row in own:
        start = len(captions)
        captions += [
            {**caption, "parent": caption["parent"] + start}
            if row.apart and type(caption.get("parent")) is int
            else caption
            for caption in row.captions
        ]
        extra = row.extra | extra
    labels = [row.extra["label"] for row in own if row.extra.get("label") not in (None, "")]
    if any(str(label) != str(labels[0]) for label in labels):  # a row for each label, as multi-label tables have
        several = [each for label in labels for each in (label if isinstance(label, list) else [label])]
        extra["label"] = [each for number, each in enumerate(several) if each not in several[:number]]
    first = next((row for row in own if row.image is not None), own[0])
    ids = [row.id for row in own if row.id is not None]
    problem = own[0].problem
    other = next((row for row in own if row.image not in (None, first.image)), None)
    if problem is None and first.image is None:
        problem = "a caption of an image that the file does not have"
    if problem is None and other is not None:
        problem = f"{other.where} has another image of this name: {other.image}"
    return Row(first.where, first.key, first.image, tuple(captions), ids[0] if ids else None, extra, problem)
