"""Formats that may hold labelled images: how each is read, and how to tell them apart."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from capivara_cli.data import images
from capivara_cli.data.readers import folders, tables, text_files
from capivara_cli.data.readers.rows import Options, Row, join
from capivara_cli.errors import CapivaraError


@dataclass(frozen=True)
class Format:
    """How a format is read.

    Attributes:
        what: it is, for the person.
        takes: options that it has a use for.
        scattered: whether an image's captions may stand apart, and have to be put together.
    """

    read: Callable[[Path, Options], Iterator[Row]]
    what: str
    takes: str = ""
    scattered: bool = False

    def refuse(self, name: str, given: Mapping[str, object]) -> None:
        """Raise CapivaraError for an option that was given, and that it has no use for."""
        for option, value in given.items():
            if value and option not in self.takes.split():
                takes = self.takes.replace(" ", ", --")
                raise CapivaraError(
                    f"--{option}: {name} has no use for it", f"it takes --{takes}" if takes else "leave it out"
                )


FORMATS: dict[str, Format] = {
    "folder": Format(
        folders.folder,
        "images in folders, classes too; .json .txt .cls beside them, or metadata.jsonl",
        "labels encoding split",
    ),
    "webdataset": Format(
        folders.shards, "tar shards: images with .json .txt .cls; the published CAPIVARA shards", "encoding split"
    ),
    "csv": Format(
        tables.delimited,
        "a table with a header, its columns by their names (open_clip's filepath, title)",
        "images column encoding",
        True,
    ),
    "tsv": Format(tables.delimited, "the same", "images column encoding", True),
    "parquet": Format(
        tables.parquet,
        "Parquet files, images inside or beside (pip install 'capivara[parquet]')",
        "images column split",
        True,
    ),
    "huggingface": Format(
        tables.hugging_face,
        "a folder of datasets' save_to_disk (pip install 'capivara[datasets]')",
        "images column split",
        True,
    ),
    "jsonl": Format(folders.jsonl, "records of our own: to verify, or to add translations", "encoding"),
}


def guess(path: Path) -> str | None:
    """The format that a source looks like; None when it looks like none."""
    if path.is_dir():
        return _guess_folder(path)
    if path.suffix == ".tar" or "{" in path.name:
        return "webdataset"
    if path.suffix in (".parquet", ".jsonl"):
        return path.suffix.removeprefix(".")
    if images.is_image_name(path.name) or path.suffix == ".json":
        return None
    header = next(text_files.rows(path), (0, []))[1]
    if any(name.strip().lower() in tables.NAMES["image"] for name in header):
        return "tsv" if path.suffix == ".tsv" else "csv"
    return None


def _guess_folder(path: Path) -> str:
    names = {entry.name for entry in itertools.islice(path.iterdir(), 10_000)}
    if names & {"dataset_dict.json", "state.json"}:
        return "huggingface"
    for ending, format_ in ((".tar", "webdataset"), (".parquet", "parquet")):
        if any(name.endswith(ending) for name in names) or next(path.glob(f"*/*{ending}"), None) is not None:
            return format_
    return "folder"


def choose(sources: list[str], asked: str | None, options: Options, guess: Callable[[Path], str | None] = guess) -> str:
    """The format of the sources: the one that was asked for, or the one that all of them look like.

    Whoever names columns has a table.

    Raises CapivaraError when they look like none, or like several.
    """
    if asked is not None:
        return asked
    found = {}
    for source in sources:
        path = Path(source)
        if not path.exists() and "{" not in source:
            raise CapivaraError(f"{source}: no such file")
        try:
            found[source] = guess(path) or ("csv" if options.columns and path.is_file() else None)
        except (UnicodeError, json.JSONDecodeError) as error:
            raise CapivaraError(f"{source}: {error}", "capivara import --formats lists what can be read") from error
    kinds = set(found.values())
    if len(kinds) == 1 and None not in kinds:
        return str(kinds.pop())
    if None in kinds:
        odd = next(source for source, kind in found.items() if kind is None)
        raise CapivaraError(f"{odd} looks like no format that is known", "capivara import --formats lists them")
    raise CapivaraError(
        f"the sources look like several formats: {', '.join(map(str, sorted(map(str, kinds))))}", "one at a time"
    )


def rows(source: str, format: str, options: Options) -> Iterator[Row]:
    """The rows of a source, those of one image put together."""
    found = FORMATS[format].read(Path(source), options)
    return join(found) if FORMATS[format].scattered else found
