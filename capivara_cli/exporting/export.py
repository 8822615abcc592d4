"""`export`: write records in the formats of other tools."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from capivara_cli import artifacts, console, files, folders
from capivara_cli.data import images, records
from capivara_cli.data.output import check_not_a_source, report
from capivara_cli.errors import BadOption, CapivaraError, nearest
from capivara_cli.exporting import imagefolder, tables, webdataset
from capivara_cli.exporting.job import ExportJob
from capivara_cli.exporting.options import ExportOptions, Format
from capivara_cli.folders import FolderKind


class Writer(NamedTuple):
    """What writes a format.

    Attributes:
        kind: prefix -> the kind of its folder; None for a format that is one file.
    """

    write: Callable[[ExportJob], None]
    kind: Callable[[str], FolderKind] | None = None


WRITERS: dict[Format, Writer] = {
    "webdataset": Writer(webdataset.write, webdataset.kind),
    "imagefolder": Writer(imagefolder.write, imagefolder.kind),
    "csv": Writer(tables.write),
    "captions.txt": Writer(tables.write_lines),
}


def export(format: Format, source: str | Path, output: str | Path, options: ExportOptions) -> None:
    """Write records in the format of another tool.

    Args:
        source: a JSONL file, a folder, a shard, a brace pattern of shards, or `-`.
        output: folder or file to write; `-` is standard output, for the formats that are one file.
        options: see `ExportOptions`.

    Raises:
        CapivaraError: no such format, an output that holds something else, no caption in the language, nothing left,
            or with `strict` an image that cannot be read.
    """
    source, path = str(source), Path(output)
    if format not in WRITERS:
        raise BadOption(f"unknown format {format}{nearest(format, list(WRITERS))}", f"one of {', '.join(WRITERS)}")
    if "/" in options.prefix or "\\" in options.prefix or options.prefix.startswith("."):
        raise BadOption(f"--prefix {options.prefix}: not the start of a file name", "--prefix train-")
    if format == "captions.txt" and options.lang is None:
        raise BadOption("captions.txt holds one language", "--lang en")
    writer = WRITERS[format]
    if writer.kind is None:
        _check_file(source, path, files.NEVER if format == "captions.txt" else files.TABLE, overwrite=options.overwrite)
    else:
        _check_folder(source, path, writer.kind(options.prefix), overwrite=options.overwrite)
    total, captions = records.validate([source])
    if total is not None and options.lang is not None:
        options = options.replace(lang=records.resolve_languages(captions, [options.lang], [source])[0])
    job = ExportJob(source, path, options, total)
    writer.write(job)
    report(job.tally, None)
    count = console.counted(*((job.captions, "caption") if writer.kind is None else (job.tally.kept, "image")))
    console.say(f"wrote {count}" if str(path) == "-" else f"wrote {path}: {count}")


def _check_file(source: str, output: Path, kind: files.Kind, *, overwrite: bool) -> None:
    if str(output) == "-":
        return
    check_not_a_source([source], output)
    if images.is_image_name(output.name) or output.suffix in (".tar", ".jsonl", ".parquet"):
        raise CapivaraError(f"{output} is not the name of a table or a text", "-o FILE.csv")
    files.check_writable(output, kind, overwrite=overwrite)


def _check_folder(source: str, output: Path, kind: FolderKind, *, overwrite: bool) -> None:
    """Raise CapivaraError for a folder that contains anything but an export in this format."""
    if str(output) == "-":
        raise CapivaraError("a folder cannot be written to standard output", "-o FOLDER")
    artifacts.remove_stale(output)
    folders.check_replaceable(output, kind, [] if source == "-" else records.expand(source))
    partial = webdataset.partial_folder(output)
    folders.check_files(partial, kind)
    if output.exists() and any(output.iterdir()) and not overwrite and not partial.exists():
        raise CapivaraError(f"{output} already exists", "--overwrite replaces it")
