"""A row: what one line, object or sample of a foreign file says of an image; and the rows of one image joined."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, time
from pathlib import Path
from typing import Any

from capivara_cli.data.captions import Caption, with_keys
from capivara_cli.data.spill import Spill


@dataclass(slots=True)  # a frozen one would take twice as long to make
class Row:
    """What a file says of an image in one place.

    Attributes:
        where: `file.csv:17`, for messages.
        key: what the file calls the image; rows with the same key are of one image.
        image: where the image is, as in a record; relative to the working folder. None if this row does not say.
        captions: as in a record.
        id: the record's id; None takes the key.
        extra: `label` and other keys of the record.
        problem: why no record can be made of it.
        parent_is_local: whether a caption's `parent` is an index into this row's captions, and not into all of the
            image.
        content: the bytes of an image that is inside the file; `tables.write_images` makes a file of it.
    """

    where: str
    key: str
    image: str | None = None
    captions: tuple[Caption, ...] = ()
    id: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None
    parent_is_local: bool = True
    content: bytes | None = None


def inside(folder: Path, name: str) -> str:
    """Return a name, which is relative to the folder, as a path. `folder / name` would take five times as long."""
    parent = str(folder)
    return name if parent == "." or name.startswith("/") else f"{parent}/{name}"


def join(rows: Iterable[Row], *, scattered: bool = True) -> Iterator[Row]:
    """Join the rows of each key to one row with all their captions, in the order in which the keys came first.

    The rows of an image need not stand together, and memory does not grow with their number. A row with a problem is
    joined with no other.

    Args:
        scattered: whether rows of one key may stand apart. If not, none are joined, but all are read before the first
            one is yielded.
    """
    with Spill() as spill:
        for i, row in enumerate(rows):
            alone = row.problem is not None or not scattered
            spill.add(i if alone else row.key, _dump(row))
        for group in spill.groups():
            yield _joined([Row(*json.loads(text)) for text in group])


def _plain(value: object) -> object:
    """Return a table's value for which JSON has no form: times as ISO 8601, exact numbers as text, no bytes."""
    if isinstance(value, date | time):
        return value.isoformat()
    return None if isinstance(value, bytes) else str(value)


_encode = json.JSONEncoder(separators=(",", ":"), default=_plain).encode


def _dump(row: Row) -> str:
    return _encode([row.where, row.key, row.image, row.captions, row.id, row.extra, row.problem, row.parent_is_local])


def _joined(rows: list[Row]) -> Row:
    captions: list[Caption] = []
    extra: dict[str, Any] = {}
    for row in rows:
        start = len(captions)
        for caption in row.captions:
            parent = caption.get("parent")
            if start and row.parent_is_local and type(parent) is int:
                caption = with_keys(caption, parent=parent + start)
            captions.append(caption)
        extra = row.extra | extra  # where rows disagree, the first wins
    if len(rows) > 1:
        extra |= _labels(rows)
    first = next((row for row in rows if row.image is not None), rows[0])
    problem = rows[0].problem
    if problem is None and first.image is None:
        problem = "a caption of an image that the file does not have"
    for row in rows:
        if problem is None and row.image not in (None, first.image):
            problem = f"{row.where} has another image of this name: {row.image}"
    ids = [row.id for row in rows if row.id is not None]
    return Row(first.where, first.key, first.image, tuple(captions), ids[0] if ids else None, extra, problem)


def _labels(rows: list[Row]) -> dict[str, Any]:
    """Return the list of all labels if rows have different ones, as in a multi-label table of a row per label."""
    labels = [row.extra["label"] for row in rows if row.extra.get("label") not in (None, "")]
    if all(str(label) == str(labels[0]) for label in labels):
        return {}
    flat = [value for label in labels for value in (label if isinstance(label, list) else [label])]
    return {"label": [value for i, value in enumerate(flat) if value not in flat[:i]]}
