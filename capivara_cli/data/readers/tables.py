"""Tables: CSV and TSV, Parquet, and Hugging Face data sets on disk."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from capivara_cli import artifacts
from capivara_cli.data import images
from capivara_cli.data.readers import text_files
from capivara_cli.data.readers.columns import NAMES, Table, find_columns
from capivara_cli.data.readers.options import ReaderOptions
from capivara_cli.data.readers.rows import Row
from capivara_cli.data.readers.source_start import SourceStart
from capivara_cli.errors import CapivaraError, explained


def is_csv(source: SourceStart) -> bool:
    """Return whether a file is a table with a column for images."""
    return any(name.lower() in NAMES["image"] for name in source.header)


def is_tsv(source: SourceStart) -> bool:
    """Return whether a file is such a table, and its name ends in .tsv."""
    return source.path.suffix == ".tsv" and is_csv(source)


def is_parquet(source: SourceStart) -> bool:
    """Return whether a source is a Parquet file, or a folder with some."""
    return source.has(".parquet")


def is_hugging_face(source: SourceStart) -> bool:
    """Return whether a folder was written by `save_to_disk`."""
    return bool(source.names & {"dataset_dict.json", "state.json"})


def delimited(path: Path, options: ReaderOptions) -> Iterator[Row]:
    """Read a table with a header; or one without, if `column` has numbers (1 is the first)."""
    rows = text_files.rows(path, options.encoding)
    numbered = bool(options.column) and all(name.isdecimal() for name in options.column.values())
    first = next(rows, (0, []))
    header = [name.strip() for name in first[1]]
    if not header:
        raise CapivaraError(f"{path}: empty", "a table with a header: filepath,title")
    if numbered:
        header = [str(number) for number in range(1, len(header) + 1)]
        rows = itertools.chain([first], rows)
    repeated = {name for name in header if header.count(name) > 1 and name}
    if repeated:
        raise CapivaraError(f"{path}: several columns are called {', '.join(sorted(repeated))}", "rename all but one")
    table = Table(find_columns(header, options, path), options.images or path.parent, options.lang)
    for line, fields in rows:
        where = f"{path}:{line}"
        if len(fields) != len(header):
            yield Row(where, "", id=where, problem=f"{len(fields)} fields where there should be {len(header)}")
        elif not all(map(text_files.is_decoded, fields)):
            yield Row(where, "", id=where, problem="not in the file's encoding: --encoding latin-1, or iconv")
        else:
            yield table.row(where, dict(zip(header, fields, strict=True)))


def parquet(path: Path, options: ReaderOptions) -> Iterator[Row]:
    """Read a Parquet file, or a folder of them."""
    with explained("Parquet needs pyarrow", ImportError, hint="pip install 'capivara-cli[parquet]'"):
        import pyarrow
        import pyarrow.parquet as reader

    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if options.split is not None and path.is_dir():
        # train/0.parquet, train-00000-of-00002.parquet
        of_split = re.compile(rf"(.*/)?{re.escape(options.split)}([-_./].*)?")
        files = [file for file in files if of_split.fullmatch(file.relative_to(path).as_posix())]
    if not files:
        raise CapivaraError(f"{path}: no Parquet files in it", "check --split, or name the parent folder")
    for file in files:
        with explained(f"{file} cannot be read as Parquet", (pyarrow.ArrowException, OSError, UnicodeDecodeError)):
            content = reader.ParquetFile(file)
            columns = find_columns(content.schema_arrow.names, options, file, first=file == files[0])
            classes = _classes(content.schema_arrow.metadata)
            table = Table(columns, options.images or file.parent, options.lang, classes)
            rows = itertools.chain.from_iterable(batch.to_pylist() for batch in content.iter_batches(batch_size=32))
            for number, values in enumerate(rows, start=1):
                yield table.row(f"{file}: row {number}", values)


def _classes(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    """Return the class names of columns, as Hugging Face's `datasets` leaves them in a Parquet file."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {key: value["names"] for key, value in features.items() if value.get("_type") == "ClassLabel"}
    except (KeyError, TypeError, AttributeError, ValueError):
        return {}


def hugging_face(path: Path, options: ReaderOptions) -> Iterator[Row]:
    """Read a data set that `save_to_disk` of Hugging Face's `datasets` wrote; images are inside, or files."""
    with explained(
        "reading this folder needs the package datasets", ImportError, hint="pip install 'capivara-cli[datasets]'"
    ):
        import datasets

    # A folder that only looks like one makes it raise nearly anything.
    with explained(f"{path} is not a data set that save_to_disk wrote", Exception):
        data = datasets.load_from_disk(str(path))
    if isinstance(data, datasets.DatasetDict):
        if options.split is None and len(data) > 1:
            raise CapivaraError(f"{path} has several splits", f"--split: {', '.join(data)}")
        split = options.split or next(iter(data))
        if split not in data:
            raise CapivaraError(f"{path} has no split {split}", f"--split: {', '.join(data)}")
        data = data[split]
    classes: dict[str, list[str]] = {}
    for name, feature in data.features.items():
        if isinstance(feature, datasets.Image):
            data = data.cast_column(name, datasets.Image(decode=False))
        elif isinstance(feature, datasets.ClassLabel):
            classes[name] = feature.names
    table = Table(find_columns(data.column_names, options, path), options.images or path, options.lang, classes)
    for number, values in enumerate(data, start=1):
        yield table.row(f"{path}: row {number}", values)


def write_images(rows: Iterable[Row], folder: Path | None) -> Iterator[Row]:
    """Write the images that are inside a table to files, named by their content, and point the rows to them.

    Raises CapivaraError for the first one if there is no folder.
    """
    for row in rows:
        if row.content is None:
            yield row
            continue
        if folder is None:
            raise CapivaraError(
                f"{row.where}: the images are inside the table", "write them with -o FILE (beside it) or --images DIR"
            )
        ending = images.extension_of(row.content)
        if ending is None:
            yield replace(row, image="", problem="not an image that can be read", content=None)
            continue
        digest = hashlib.blake2b(row.content, digest_size=12).hexdigest()
        file = folder / digest[:2] / f"{digest}{ending}"
        if not file.is_file() or file.stat().st_size != len(row.content):
            with artifacts.writing(file) as temporary:
                temporary.write_bytes(row.content)
        yield replace(row, key=row.key or str(file), image=str(file), content=None)
