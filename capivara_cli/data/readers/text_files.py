"""Text files in any encoding, with any line ends: lines, JSON lines, and rows of CSV and TSV tables."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from capivara_cli.data.lines import bounded
from capivara_cli.errors import CapivaraError, explained

SAMPLE = 1 << 18  # characters of a file's start, by which its form is judged
DELIMITERS = "\t,;|"  # open_clip's .csv files are separated by tabs
_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

csv.field_size_limit(16 << 20)  # the default, 128 kB, is too little for some captions of web pages


def encoding_of(path: Path, encoding: str | None) -> str:
    """Return the encoding that is asked for, UTF-16 if the file starts with its mark, or UTF-8 with or without mark.

    Raises CapivaraError for an encoding that Python does not know, or a file that cannot be read.
    """
    if encoding is not None:
        try:
            "text".encode(encoding).decode(encoding)
        except (LookupError, UnicodeError) as error:
            raise CapivaraError(f"--encoding {encoding} is not known", "utf-8, utf-16, latin-1, cp1252 …") from error
        return encoding
    with explained(f"cannot read {path}"), path.open("rb") as file:
        start = file.read(2)
    return "utf-16" if start in _MARKS else "utf-8-sig"


@contextmanager
def opened(path: Path, encoding: str | None = None, newline: str | None = None) -> Iterator[TextIO]:
    """Open a text file. Bytes that are not in the encoding become lone surrogates, where the encoding allows that.

    Raises CapivaraError, also inside the block, for a file that cannot be read or decoded.
    """
    name = encoding_of(path, encoding)
    hint = f"--encoding, or iconv -t UTF-8 {path}"
    with (
        explained(f"cannot read {path}"),
        explained(f"{path}: not {_shown(name)}", UnicodeError, hint=hint),
        path.open(encoding=name, errors="surrogateescape", newline=newline) as file,
    ):
        yield file


def beginning(path: Path) -> str:
    """Return the first characters of a file, enough to judge its form."""
    with opened(path, newline="") as file:
        return file.read(SAMPLE)


def lines(path: Path, encoding: str | None = None) -> Iterator[str]:
    """Yield lines without their ends. Raises CapivaraError with the line that is not in the encoding."""
    with opened(path, encoding) as file:
        for number, line in enumerate(bounded(file, str(path)), start=1):
            if not is_decoded(line):
                name = _shown(encoding_of(path, encoding))
                raise CapivaraError(f"{path}:{number}: not {name}", f"--encoding latin-1, or iconv -t UTF-8 {path}")
            yield line.rstrip("\n")


def objects(path: Path, encoding: str | None = None) -> Iterator[tuple[str, dict[str, Any], str | None]]:
    """Yield, per line of JSON, `file:17`, the object, and what is wrong with the line. Blank lines are skipped."""
    with opened(path, encoding) as file:
        for number, line in enumerate(bounded(file, str(path)), start=1):
            if not line.strip():
                continue
            value: Any = {}
            problem = None
            try:
                value = json.loads(line)
                if not isinstance(value, dict):
                    problem = f"a {type(value).__name__}, not an object"
            except (ValueError, RecursionError) as error:
                problem = f"not JSON: {error}"
            if not is_decoded(line):
                problem = f"not {_shown(encoding_of(path, encoding))}"
            yield f"{path}:{number}", value if problem is None else {}, problem


def rows(path: Path, encoding: str | None = None, delimiter: str | None = None) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a table, each with the number of its last line. Undecodable bytes are lone surrogates.

    Raises CapivaraError, with the row's first line, for a quote that is not closed.
    """
    with opened(path, encoding, newline="") as file:
        form = _form(file.read(SAMPLE), delimiter)
        file.seek(0)
        row_lines: list[str] = []  # of the row that is being read

        def feed() -> Iterator[str]:
            for line in bounded(file, str(path)):
                row_lines.append(line)
                yield line
            if row_lines:  # The reader wants another line for the row: its last field is still open.
                raise _open_quote(path, reader.line_num, row_lines)

        reader = csv.reader(feed(), **form)
        try:
            for row in reader:
                if len(row_lines) > 1 and not _is_strict(row_lines, form):
                    raise _open_quote(path, reader.line_num, row_lines)
                row_lines.clear()
                if row:
                    yield reader.line_num, row
        except csv.Error as error:
            if len(row_lines) > 1:  # it swallowed lines until the field was too large
                raise _open_quote(path, reader.line_num, row_lines) from error
            raise CapivaraError(f"{path}:{reader.line_num}: not a table: {error}") from error


def first_row(start: str) -> list[str]:
    """Return the first row of a table, from the beginning of its file; empty for what is not a table."""
    try:
        return next(csv.reader(io.StringIO(start, newline=""), **_form(start)), [])
    except csv.Error:
        return []


def _form(start: str, delimiter: str | None = None) -> dict[str, Any]:
    """Return how the csv module should read a table: the delimiter that is most frequent in the header, the quoting."""
    header = start.replace("\r", "\n").partition("\n")[0]
    if delimiter is None:
        delimiter = max(DELIMITERS, key=header.count)
        delimiter = delimiter if delimiter in header else ","
    # Where a TSV does not quote, an inch sign or an open quote in a field would swallow all that follows.
    plain = delimiter == "\t" and not _has_quoted_fields(start)
    return {"delimiter": delimiter, "quoting": csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL}


def _has_quoted_fields(start: str) -> bool:
    """Return whether a TSV quotes: a field has quotes around it, or its rows have one width only if quotes count."""
    start_lines = list(io.StringIO(start, newline=""))
    start_lines = start_lines[:-1] or start_lines  # the last line may be cut
    plain = list(csv.reader(start_lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    if any(len(field) > 1 and field[0] == field[-1] == '"' for row in plain for field in row):
        return True
    quoted = csv.reader(start_lines, delimiter="\t")
    return len({len(row) for row in plain if row}) > 1 and len({len(row) for row in quoted if row}) == 1


def _is_strict(row_lines: list[str], form: dict[str, Any]) -> bool:
    """Return whether all quotes of a row are where they belong; by default, Python's reader accepts any text."""
    try:
        list(csv.reader(row_lines, strict=True, **form))
    except csv.Error:
        return False
    return True


def _open_quote(path: Path, last_line: int, row_lines: list[str]) -> CapivaraError:
    return CapivaraError(
        f"{path}:{last_line - len(row_lines) + 1}: a quote is opened and not closed",
        'write a quote in a field twice, "", and put quotes around the field',
    )


def is_decoded(text: str) -> bool:
    """Return whether all bytes of a text were in its file's encoding: those that were not are lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(encoding: str) -> str:
    return "UTF-8" if encoding == "utf-8-sig" else encoding
