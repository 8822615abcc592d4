"""Conceptual Captions: the TSV of captions and web addresses, and what img2dataset downloaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from capivara_cli.data.captions import Caption
from capivara_cli.data.readers import text_files
from capivara_cli.data.readers.folders import folder, row_of, shards
from capivara_cli.data.readers.options import ReaderOptions
from capivara_cli.data.readers.rows import Row
from capivara_cli.data.readers.source_start import SourceStart
from capivara_cli.data.spill import Spill
from capivara_cli.errors import CapivaraError


def is_cc3m(source: SourceStart) -> bool:
    """Return whether a file is a table of texts and web addresses."""
    return len(source.header) == 2 and source.header[1].startswith("http")


def cc3m(path: Path, options: ReaderOptions) -> Iterator[Row]:
    """Read the TSV (caption, address), with `images` where img2dataset put them; or only img2dataset's output."""
    if path.is_dir() or path.suffix == ".tar" or "{" in path.name:
        yield from _downloads(path, options)
        return
    if options.images is None:
        raise CapivaraError(f"{path} has addresses, no images", "download them by img2dataset, then --images FOLDER")
    with Spill() as images:  # address -> image and the keys of its record
        for row in _downloads(options.images, options):
            url = row.extra.get("url")
            if isinstance(url, str) and row.problem is None:
                data = row.extra | ({"id": row.id} if row.id else {})
                images.setdefault(url, json.dumps([row.image, data]))
        for line, fields in text_files.rows(path, options.encoding, "\t"):
            where = f"{path}:{line}"
            if line == 1 and [field.strip().lower() for field in fields[:2]] == ["caption", "url"]:
                continue
            if len(fields) != 2 or not all(map(text_files.is_decoded, fields)):
                yield Row(where, "", id=where, problem="not a caption, a tab and an address")
                continue
            text, url = (field.strip() for field in fields)
            image = images.get(url)
            if image is None:
                yield Row(where, "", id=where, problem=f"not downloaded: {url}")
                continue
            name, data = json.loads(image)
            captions: list[Caption] = [{"text": text, "lang": options.lang}] if text else []
            data.pop("captions", None)
            yield row_of(where, url, name, data | {"captions": captions})


def _downloads(path: Path, options: ReaderOptions) -> Iterator[Row]:
    """Read what img2dataset wrote: shards, or folders of files."""
    has_shards = not path.is_dir() or SourceStart(path).has(".tar")
    return shards(path, options) if has_shards else folder(path, options)
