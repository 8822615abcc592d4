"""Text files of others: lines and rows, whatever their encoding, ends of lines and delimiter."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from capivara_cli.errors import CapivaraError

FIELD_BYTES = 16 << 20  # a field of a table may have
MOST_LINES = 10_000  # of one row: a quote that is not closed would swallow all that follows
SAMPLE = 1 << 18  # characters that a table is judged by
_MARKS = ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def encoding_of(path: Path, given: str | None) -> str:
    """The encoding: the given one, UTF-16 by its mark, or UTF-8, with or without its mark.

    Raises CapivaraError for an encoding that Python does not know, or a file that cannot be read.
    """
    if given is not None:
        try:
            "text".encode(given).decode(given)
        except (LookupError, UnicodeError) as error:
            raise CapivaraError(f"--encoding {given} is not known", "utf-8, utf-16, latin-1, cp1252 …") from error
        return given
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise CapivaraError(f"cannot read {path}: {error.strerror}") from error
    return next((name for mark, name in _MARKS if start.startswith(mark)), "utf-8-sig")


def lines(path: Path, encoding: str | None = None) -> Iterator[str]:
    """Lines without their ends. Raises CapivaraError with the line that is not in the encoding."""
    name = encoding_of(path, encoding)
    for number, line in enumerate(_open(path, name), start=1):  # "\\r\\n" and "\\r" become "\\n"
        if not is_clean(line):
            raise CapivaraError(f"{path}:{number}: not {_shown(name)}", f"--encoding latin-1, or iconv -t UTF-8 {path}")
        yield line.rstrip("\n")


def objects(path: Path, encoding: str | None = None) -> Iterator[tuple[str, dict[str, Any], str | None]]:
    """Lines of JSON: `file:17`, the object, and what is wrong with the line. Blank ones are passed over."""
    name = encoding_of(path, encoding)
    for number, line in enumerate(_open(path, name), start=1):
        problem, found = None, {}
        if not line.strip():
            continue
        try:
            found = json.loads(line)
            if not isinstance(found, dict):
                problem = f"a {type(found).__name__}, not an object"
        except (ValueError, RecursionError) as error:
            problem = f"not JSON: {error}"
        if not is_clean(line):
            problem = f"not {_shown(name)}"
        yield f"{path}:{number}", found if problem is None else {}, problem


def _open(path: Path, name: str, newline: str | None = None) -> Iterator[str]:
    """Lines of a file, bytes that are not in the encoding as lone surrogates, where the encoding has room for them."""
    with _readable(path, name), path.open(encoding=name, errors="surrogateescape", newline=newline) as file:
        yield from file


def _start(path: Path, name: str) -> str:
    with _readable(path, name), path.open(encoding=name, errors="surrogateescape", newline="") as file:
        return file.read(SAMPLE)


@contextmanager
def _readable(path: Path, name: str) -> Iterator[None]:
    try:
        yield
    except UnicodeError as error:
        raise CapivaraError(f"{path}: not {_shown(name)}", f"--encoding, or iconv -t UTF-8 {path}") from error
    except OSError as error:
        raise CapivaraError(f"cannot read {path}: {error.strerror}") from error


def rows(path: Path, encoding: str | None = None, delimiter: str | None = None) -> Iterator[tuple[int, list[str]]]:
    """Rows of a table with the number of their line. Bytes that are not in the encoding come as lone surrogates.

    Raises CapivaraError when the table's quotes cannot be made out.
    """
    csv.field_size_limit(FIELD_BYTES)
    name = encoding_of(path, encoding)
    delimiter = delimiter or delimiter_of(path, name)
    # Where fields are not quoted, an inch or an open quote in one would swallow all that follows.
    plain = delimiter == "\t" and not _has_quotes(path, name)
    own: list[str] = []  # lines of the row that is being read

    def lines_of(file: Iterable[str]) -> Iterator[str]:
        for number, line in enumerate(file, start=1):
            own.append(line)
            if len(own) > MOST_LINES:
                raise _open_quote(path, number - MOST_LINES)
            yield line

    reader = csv.reader(
        lines_of(_open(path, name, "")),
        delimiter=delimiter,
        quoting=csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL,
    )
    last: list[str] = []
    try:
        for row in reader:
            last = own.copy()
            own.clear()
            if len(last) > 1 and not plain and not _is_strict(last, delimiter):
                raise _open_quote(path, reader.line_num - len(last) + 1)
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise CapivaraError(f"{path}:{reader.line_num}: not a table: {error}") from error
    if not plain and not _is_strict(last, delimiter, "end of data"):
        raise _open_quote(path, reader.line_num - len(last) + 1)


def _is_strict(lines: list[str], delimiter: str, wrong: str = "") -> bool:
    """Whether a row that goes over several lines has its quotes where they belong: Python's reader takes any."""
    try:
        list(csv.reader(lines, delimiter=delimiter, strict=True))
    except csv.Error as error:
        return wrong not in str(error)
    return True


def _open_quote(path: Path, line: int) -> CapivaraError:
    return CapivaraError(
        f"{path}:{line}: a quote is opened and not closed",
        'a quote in a field is written twice, "", and the field quoted',
    )


def delimiter_of(path: Path, encoding: str) -> str:
    """What stands most often in the first line: tab, comma, semicolon or bar. open_clip's .csv files have tabs."""
    first = _start(path, encoding).replace("\r", "\n").split("\n")[0]
    counts = {each: first.count(each) for each in "\t,;|"}
    return max(counts, key=lambda each: counts[each]) if any(counts.values()) else ","


def _has_quotes(path: Path, encoding: str) -> bool:
    """Whether a TSV quotes its fields, by its beginning: some are quoted whole, or only so all rows are as wide."""
    start = list(io.StringIO(_start(path, encoding), newline=""))
    start = start[:-1] or start  # the last line may be cut
    plain, quoted = (
        list(csv.reader(start, delimiter="\t", quoting=quoting)) for quoting in (csv.QUOTE_NONE, csv.QUOTE_MINIMAL)
    )
    if any(len(field) > 1 and field[0] == field[-1] == '"' for row in plain for field in row):
        return True
    widths = [{len(row) for row in rows if row} for rows in (plain, quoted)]
    return len(widths[0]) > 1 and len(widths[1]) == 1


def is_clean(text: str) -> bool:
    """Whether all of it was in the file's encoding."""
    try:
        text.encode()
    except UnicodeEncodeError:  # what was not is a lone surrogate
        return False
    return True


def _shown(name: str) -> str:
    return "UTF-8" if name == "utf-8-sig" else name
