"""Formats that may hold labelled images: how to recognise and how to read each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from capivara_cli.data.readers import folders, tables
from capivara_cli.data.readers.options import ReaderOptions
from capivara_cli.data.readers.rows import Row, join
from capivara_cli.data.readers.source_start import SourceStart
from capivara_cli.errors import CapivaraError

FLAGS = ("images", "split", "column", "labels", "encoding")
LISTED = "capivara import --formats lists them"


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        read: yields the rows of a source.
        looks_like: whether a source may be of this format.
        description: for the person.
        options: names of the reader's options that it uses, besides `lang`.
        scattered: whether the captions of an image may stand apart, so that rows have to be joined.
    """

    read: Callable[[Path, ReaderOptions], Iterator[Row]]
    looks_like: Callable[[SourceStart], bool]
    description: str
    options: tuple[str, ...]
    scattered: bool = False


class WrongFormat(CapivaraError):
    """The source does not have the expected format."""

    def __init__(self, path: Path, format: str) -> None:
        super().__init__(f"{path} is not of the format {format}", "docs/importing.md shows the formats")
        self.path = path
        self.format = format


_TABLE = ("images", "column")
_CSV = "a table with a header (open_clip's filepath and title, or --column)"
_FOLDER = "images in folders, classes too; .json .txt .cls beside them, or metadata.jsonl"
_HUGGING_FACE = "a folder of save_to_disk (pip install 'capivara-cli[datasets]')"
_PARQUET = "Parquet, images inside or beside (pip install 'capivara-cli[parquet]')"
_RECORDS = "our own records: to verify, or to add translations"
_TAR = "tar shards: images with .json .txt .cls; the published CAPIVARA shards"

# A source is of the last format that it looks like: special ones stand below general ones.
FORMATS: dict[str, Format] = {
    "folder": Format(folders.folder, folders.is_folder, _FOLDER, ("labels", "encoding", "split")),
    "csv": Format(tables.delimited, tables.is_csv, _CSV, (*_TABLE, "encoding"), scattered=True),
    "tsv": Format(tables.delimited, tables.is_tsv, "the same", (*_TABLE, "encoding"), scattered=True),
    "parquet": Format(tables.parquet, tables.is_parquet, _PARQUET, (*_TABLE, "split"), scattered=True),
    "webdataset": Format(folders.shards, folders.is_webdataset, _TAR, ("encoding", "split")),
    "huggingface": Format(
        tables.hugging_face, tables.is_hugging_face, _HUGGING_FACE, (*_TABLE, "split"), scattered=True
    ),
    "jsonl": Format(folders.jsonl, folders.is_jsonl, _RECORDS, ("encoding",)),
}


def guess(path: Path, formats: Mapping[str, Format] = FORMATS) -> str | None:
    """Return the format that a source looks like, or None."""
    source = SourceStart(path)
    return next((name for name in reversed(list(formats)) if formats[name].looks_like(source)), None)


def choose(sources: Iterable[str], options: ReaderOptions, formats: Mapping[str, Format] = FORMATS) -> str:
    """Return the format that all sources look like. With `--column`, a file of no known form is a table.

    Raises CapivaraError when they look like none, or like several.
    """
    names = set()
    for source in sources:
        path = Path(source)
        if not path.exists() and "{" not in source:
            raise CapivaraError(f"{source}: no such file")
        name = guess(path, formats)
        if name is None and options.column and path.is_file():
            name = "csv"
        if name is None:
            raise CapivaraError(f"{source}: format not recognised", LISTED)
        names.add(name)
    if len(names) > 1:
        raise CapivaraError(f"the sources look like several formats: {', '.join(sorted(names))}", "one at a time")
    return names.pop()


def check_options(name: str, format: Format, options: ReaderOptions, checked: Sequence[str] = FLAGS) -> None:
    """Raise CapivaraError for an option that is given although the format does not use it."""
    for option in checked:
        value = getattr(options, option)
        if value not in (None, {}) and option not in format.options:
            used = ", ".join(f"--{used}" for used in format.options)
            raise CapivaraError(f"--{option} does not apply to the format {name}", f"{name} takes {used}")


def rows(source: str, name: str, options: ReaderOptions) -> Iterator[Row]:
    """Yield the rows of a source, those of one image joined."""
    reader = FORMATS[name]
    rows = tables.write_images(reader.read(Path(source), options), folder=None)  # refuses images inside a table
    return join(rows) if reader.scattered else rows
