"""Tables of captions, and texts with one caption per line."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from capivara_cli import artifacts
from capivara_cli.data.captions import Caption, select
from capivara_cli.data.output import raise_if_empty
from capivara_cli.data.readers.columns import CAPTION_COLUMNS, EXTRA_COLUMN
from capivara_cli.data.records import Record, to_json
from capivara_cli.exporting.job import ExportJob
from capivara_cli.files import is_stream


def write(job: ExportJob) -> None:
    """Write a row per caption; open_clip's trainer reads `filepath` and `title`."""
    columns = ["filepath", "title", "lang", "id", "label", *CAPTION_COLUMNS, EXTRA_COLUMN]
    delimiter = "\t" if job.output.suffix == ".tsv" else ","
    folder = Path.cwd() if str(job.output) == "-" else job.output.absolute().parent
    with _open(job) as file:
        writer, quoting_writer = (
            csv.DictWriter(file, columns, delimiter=delimiter, lineterminator="\n", quoting=quoting)
            for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)
        )
        writer.writeheader()
        for record in job.records():
            job.tally.kept += 1
            for row in _rows(record, job.options.lang, folder):
                # QUOTE_MINIMAL leaves a lone "\r" unquoted, which readers take for the end of the row.
                has_return = any("\r" in value for value in row.values() if isinstance(value, str))
                (quoting_writer if has_return else writer).writerow(row)
                job.captions += "title" in row


def write_lines(job: ExportJob) -> None:
    """Write a line per caption, for people or services that translate; `import --translations` reads them back."""
    with _open(job) as file:
        for record in job.records():
            job.tally.kept += 1
            for caption in record.captions:
                if caption["lang"] == job.options.lang:
                    file.write(" ".join(caption["text"].split()) + "\n")
                    job.captions += 1


@contextmanager
def _open(job: ExportJob) -> Iterator[TextIO]:
    """Open the file to write, which appears whole; `-` is standard output."""
    settings = {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
    if str(job.output) == "-":
        with open(sys.stdout.fileno(), "w", closefd=False, **settings) as stream:  # type: ignore[call-overload]
            yield stream
        return
    if is_stream(job.output):  # at once, not when it is complete: a table may be large
        with job.output.open("a", **settings) as stream:  # type: ignore[call-overload]
            yield stream
        return
    with artifacts.writing(job.output) as temporary:
        with temporary.open("w", **settings) as file:  # type: ignore[call-overload]
            yield file
        raise_if_empty(job.tally, None)


def _rows(record: Record, lang: str | None, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield a row per caption; one without a caption if there is none, so that the record is not lost."""
    data = record.for_folder(folder)
    head = {"filepath": data.get("image") or data["file_name"], "id": data["id"], "label": data.get("label")}
    written = {"image", "file_name", "id", "captions"} | ({"label"} if isinstance(data.get("label"), str) else set())
    rest = {key: value for key, value in data.items() if key not in written}
    captions = record.captions
    if lang is not None:
        captions = select(captions, [i for i, caption in enumerate(captions) if caption["lang"] == lang])
    for i, caption in enumerate(captions or [None]):
        row: dict[str, Any] = dict(head)
        more: dict[str, Any] = {"record": rest} if rest and i == 0 else {}
        if caption is not None:
            columns, others = _caption_columns(caption)
            row |= columns
            more |= {"caption": others} if others else {}
        row[EXTRA_COLUMN] = to_json(more) if more else None
        yield row


def _caption_columns(caption: Caption) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the columns of a caption, and its other keys: those that a column would not give back as they are."""
    columns: dict[str, Any] = {"title": caption["text"], "lang": caption["lang"]}
    others: dict[str, Any] = {}
    for key, value in caption.items():
        if key in CAPTION_COLUMNS and _is_plain(key, value):
            columns[key] = value
        elif key not in ("text", "lang"):
            others[key] = value
    return columns, others


def _is_plain(key: str, value: object) -> bool:
    """Return whether a value of a caption is read back from a table as it was."""
    if key in ("parent", "score"):
        return isinstance(value, int | float) and not isinstance(value, bool) and value - value == 0  # is finite
    return isinstance(value, str) and bool(value)
