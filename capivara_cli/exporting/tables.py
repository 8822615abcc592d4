"""Tables of captions, and captions line by line."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capivara_cli.data.captions import select
from capivara_cli.data import records
from capivara_cli.data.readers.tables import MORE, OWN
from capivara_cli.data.records import Record, to_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from capivara_cli.exporting.export import Export


def write(job: Export) -> None:
    """A row for each caption; open_clip's trainer reads `filepath` and `title`."""
    columns = ["filepath", "title", "lang", "id", "label", *OWN, MORE]
    delimiter = "\t" if job.output.suffix == ".tsv" else ","
    folder = Path.cwd() if str(job.output) == "-" else job.output.absolute().parent
    with job.writing() as file:
        writer, careful = (
            csv.DictWriter(file, columns, delimiter=delimiter, lineterminator="\n", quoting=quoting)
            for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)
        )
        writer.writeheader()
        for record in job.records():
            for row in _rows(record, job.lang, folder):
                odd_end = any("\r" in value for value in row.values() if isinstance(value, str))
                (careful if odd_end else writer).writerow(row)  # the csv module does not see that "\r" wants quotes
                job.captions += "title" in row


def _rows(record: Record, lang: str | None, folder: Path) -> Iterator[dict[str, Any]]:
    data = record.for_folder(folder)
    head = {"filepath": data.get("image") or data["file_name"], "id": data["id"], "label": data.get("label")}
    known = ("image", "file_name", "id", "captions") + (("label",) if isinstance(data.get("label"), str) else ())
    rest = {key: value for key, value in data.items() if key not in known}
    own: list[dict[str, Any] | None] = [*_in_language(record.captions, lang)] or [None]
    for number, caption in enumerate(own):
        row: dict[str, Any] = dict(head)
        more = {"record": rest} if rest and number == 0 else {}
        if caption is not None:
            row |= {"title": caption["text"], "lang": caption["lang"]}
            # What is written as it is must be read back as it was.
            plain = {key: caption[key] for key in OWN if _is_plain(key, caption.get(key))}
            row |= plain
            odd = {key: value for key, value in caption.items() if key not in ("text", "lang", *plain)}
            more |= {"caption": odd} if odd else {}
        row[MORE] = to_json(more) if more else None
        yield row


def _in_language(captions: list[dict[str, Any]], lang: str | None) -> list[dict[str, Any]]:
    if lang is None:
        return captions
    return select(captions, [i for i, caption in enumerate(captions) if caption["lang"] == lang])


def _is_plain(key: str, value: Any) -> bool:
    if key in ("parent", "score"):
        return isinstance(value, int | float) and not isinstance(value, bool) and value - value == 0
    return isinstance(value, str) and bool(value)


def write_lines(job: Export) -> None:
    """A caption a line, for people or services that translate; `capivara import --translations` takes them back."""
    with job.writing() as file:
        for record in job.records():
            for caption in record.captions:
                if caption["lang"] == job.lang:
                    file.write(" ".join(caption["text"].split()) + "\n")
                    job.captions += 1
