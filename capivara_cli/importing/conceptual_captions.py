"""Conceptual Captions: the TSV of captions and addresses, and what img2dataset downloaded."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from capivara_cli.data.readers import text_files as texts
from capivara_cli.data.readers.folders import folder, row_of, shards
from capivara_cli.data.readers.rows import Options, Row
from capivara_cli.errors import CapivaraError


def cc3m(path: Path, options: Options) -> Iterator[Row]:
    """Conceptual Captions: its TSV (caption, address) with `images` where img2dataset put them; or only its output."""
    if path.is_dir() or path.suffix == ".tar" or "{" in path.name:
        yield from shards(path, options) if _has_shards(path) else folder(path, options)
        return
    if options.images is None:
        raise CapivaraError(f"{path} has addresses, no images", "img2dataset downloads them; then --images ITS_FOLDER")
    with closing(sqlite3.connect("")) as there:
        there.execute("CREATE TABLE there (url TEXT PRIMARY KEY, image TEXT, data TEXT) WITHOUT ROWID")
        _downloaded(there, options)
        for line, fields in texts.rows(path, options.encoding, "\t"):
            where = f"{path}:{line}"
            if line == 1 and [field.strip().lower() for field in fields[:2]] == ["caption", "url"]:
                continue
            if len(fields) != 2 or not all(map(texts.is_decoded, fields)):
                yield Row(where, "", id=where, problem="not a caption, a tab and an address")
                continue
            caption, url = (field.strip() for field in fields)
            found = there.execute("SELECT image, data FROM there WHERE url = ?", (json.dumps(url),)).fetchone()
            if found is None:
                yield Row(where, "", id=where, problem=f"not downloaded: {url}")
                continue
            captions = ({"text": caption, "lang": options.lang},) if caption else ()
            data = {key: value for key, value in json.loads(found[1]).items() if key != "captions"}
            yield row_of(where, url, json.loads(found[0]), data | {"captions": list(captions)})


def _downloaded(there: sqlite3.Connection, options: Options) -> None:
    """Which address img2dataset put where."""
    place = options.images or Path()
    for row in shards(place, options) if _has_shards(place) else folder(place, options):
        if isinstance(row.extra.get("url"), str) and row.problem is None:
            data = row.extra | ({"id": row.id} if row.id else {})
            there.execute(
                "INSERT OR IGNORE INTO there VALUES (?, ?, ?)",
                (json.dumps(row.extra["url"]), json.dumps(row.image), json.dumps(data)),
            )


def _has_shards(path: Path) -> bool:
    return not path.is_dir() or next(itertools.chain(path.glob("*.tar"), path.glob("*/*.tar")), None) is not None
