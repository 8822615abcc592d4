"""`export`: records in the forms that other tools read."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from capivara_cli import artifacts, console
from capivara_cli.data import images, records
from capivara_cli.data.images import ImageRejected
from capivara_cli.data.records import Record
from capivara_cli.data.output import SHOWN, report
from capivara_cli.data.captions import REJECTED
from capivara_cli.errors import CapivaraError, nearest
from capivara_cli.exporting import imagefolder as folder
from capivara_cli.exporting import tables
from capivara_cli.exporting import webdataset as shards

SHARD_SIZE = 10_000  # images in a shard, as img2dataset's and the recipe's shards have


@dataclass
class Export:
    """One run.

    Attributes:
        lang: language of the one caption that readers of one caption take; None takes any.
        seen, images, captions: how many came, and how many were written.
        rejected: records that could not be written, and
        first: the first of them, with the reason.
    """

    source: str
    output: Path
    lang: str | None
    shard_size: int
    prefix: str
    overwrite: bool
    strict: bool
    seen: int = 0
    images: int = 0
    captions: int = 0
    rejected: int = 0
    first: list[str] = field(default_factory=list)
    total: int | None = None

    def look(self) -> None:
        """Check all records and count them, before anything is changed. Raises CapivaraError."""
        self.total = records.validate([self.source], [self.lang] if self.lang else [], self._check)

    def _check(self, record: Record) -> None:
        if record.image.path.startswith(f"{self.output.absolute()}{os.sep}"):
            raise CapivaraError(f"{record.where}: its image is in {self.output}, which is written", "-o another folder")

    def records(self) -> Iterator[Record]:
        """The records, with a bar."""
        found = records.stream([self.source]) if self.total is None else records.read(self.source)
        with console.progress() as bar:
            task = bar.add_task("exporting", total=self.total)
            for record in found:
                self._check(record)
                self.seen += 1
                yield record
                bar.update(task, advance=1)

    def content(self, record: Record) -> tuple[bytes, str] | None:
        """The image's bytes as they are, and the ending that fits them; None when it cannot be used, which is told."""
        try:
            content = images.content(record.image)
            if ending := images.ending(content):
                return content, ending
            reason = "not an image that can be read"
        except ImageRejected as error:
            reason = error.message
        if self.strict:
            raise CapivaraError(f"{record.where}: {record.image}: {reason}", "without --strict it is left out")
        self.rejected += 1
        if len(self.first) < SHOWN:
            self.first.append(f"{record.id}: {reason}")
        return None

    def text(self, record: Record) -> str | None:
        """The first caption, in the language if one is asked for."""
        texts = (caption for caption in record.captions if REJECTED not in caption)
        return next((each["text"] for each in texts if self.lang in (None, each["lang"])), None)

    @contextmanager
    def writing(self) -> Iterator[TextIO]:
        """The file to write, which appears whole; standard output for `-`."""
        settings = {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
        if str(self.output) == "-":
            with open(sys.stdout.fileno(), "w", closefd=False, **settings) as stream:  # type: ignore[call-overload]
                yield stream
            self.check_written(self.captions or self.seen)
            return
        with artifacts.writing(self.output) as temporary:
            with temporary.open("w", **settings) as file:  # type: ignore[call-overload]
                yield file
            self.check_written(self.captions or self.seen)

    def check_written(self, count: int) -> None:
        """Raise CapivaraError when nothing was written: what was there before then stays."""
        if not self.seen:
            raise CapivaraError("no records came in", "one line is one image: docs/data.md")
        if not count:
            raise CapivaraError(f"nothing was left: {self._names()}")

    def _names(self) -> str:
        more = self.rejected - len(self.first)
        names = "".join(f"\n  {line}" for line in self.first) + (f"\n  and {more:,} more" if more else "")
        return f"{self.rejected:,} images left out{names}"

    def report(self, *, pictures: bool) -> None:
        """What was written, and what could not be."""
        if self.rejected:
            console.warn(self._names())
        count = f"{self.images:,} images" if pictures else f"{self.captions:,} captions"
        console.say(f"wrote {'them' if str(self.output) == '-' else self.output}: {count}")


@dataclass(frozen=True)
class Form:
    """A form that records are written in.

    Attributes:
        owns: pattern of the names that an export leaves in its folder; None of what is one file.
    """

    write: Callable[[Export], None]
    owns: str | None = None


FORMATS = {
    "webdataset": Form(shards.write, shards.OWN),
    "imagefolder": Form(folder.write, folder.OWN),
    "csv": Form(tables.write),
    "captions.txt": Form(tables.write_lines),
}


def export(
    format: str,
    source: str,
    output: Path,
    *,
    lang: str | None = None,
    shard_size: int = SHARD_SIZE,
    prefix: str = "",
    overwrite: bool = False,
    strict: bool = False,
) -> None:
    """Write records in another form. Arguments as `capivara export`.

    Raises:
        CapivaraError: no such format, a place that holds something else, no caption in the language, nothing left, or
            with `strict` an image that cannot be read.
    """
    if format not in FORMATS:
        raise CapivaraError(
            f"the format {format} is not known{nearest(format, list(FORMATS))}", f"one of {', '.join(FORMATS)}"
        )
    if shard_size < 1:
        raise CapivaraError(f"--shard-size {shard_size}: at least 1")
    if "/" in prefix or "\\" in prefix or prefix.startswith("."):
        raise CapivaraError(f"--prefix {prefix}: the beginning of a file's name", "--prefix train-")
    if format == "captions.txt" and lang is None:
        raise CapivaraError("captions.txt is of one language", "--lang en")
    form = FORMATS[format]
    _check_not_read(source, output)
    if form.owns is None:
        _check_file(output, overwrite=overwrite)
    else:
        _check_folder(output, form.owns.format(prefix=re.escape(prefix)), overwrite=overwrite)
    job = Export(source, output, lang, shard_size, prefix, overwrite, strict)
    job.look()
    form.write(job)
    job.report(pictures=form.owns is not None)


def _check_not_read(source: str, output: Path) -> None:
    for path in records.expand(source) if source != "-" and output.exists() else []:
        if output.resolve() in (path.resolve(), *path.resolve().parents):
            raise CapivaraError(f"{output} is read and cannot be written too", "-o another place")


def _check_file(output: Path, *, overwrite: bool) -> None:
    if str(output) == "-":
        return
    if output.is_dir():
        raise CapivaraError(f"{output} is a folder", f"-o {output}/FILE")
    if images.is_image_name(output.name) or output.suffix in (".tar", ".jsonl", ".parquet"):
        raise CapivaraError(f"{output} is not the name of a table or a text", "-o FILE.csv")
    if output.exists() and not output.is_file():
        raise CapivaraError(f"{output} is no file", "-o - writes to standard output")
    if output.exists() and not overwrite:
        raise CapivaraError(f"{output} is there already", "--overwrite replaces it")


def _check_folder(output: Path, own: str, *, overwrite: bool) -> None:
    """Raise CapivaraError for a folder that holds anything but an export of this form."""
    if str(output) == "-":
        raise CapivaraError("a folder cannot be written to standard output", "-o FOLDER")
    if not output.exists():
        return
    if not output.is_dir():
        raise CapivaraError(f"{output} is no folder", "-o another place")
    inside = sorted(path.relative_to(output).as_posix() for path in output.rglob("*"))
    odd = next((name for name in inside if not re.fullmatch(own, name)), None)
    if odd is not None:
        raise CapivaraError(f"{output} holds something else: {odd}", "-o another folder")
    if inside and not overwrite and not (output / shards.PROGRESS).is_file():
        raise CapivaraError(f"{output} is there already", "--overwrite replaces it")
