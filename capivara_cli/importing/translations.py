"""Translations that people made of captions, in a file of their own: line by line, or found by a key."""

from __future__ import annotations

import itertools
import sqlite3
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from capivara_cli import console
from capivara_cli.data.readers import text_files as texts
from capivara_cli.data.readers.rows import Options, Row
from capivara_cli.errors import CapivaraError

KEYS = ("image", "id", "key", "image_id", "file_name", "filename", "filepath", "source", "text", "caption", "title")
TEXTS = ("translation", "translated", "target")
SHEETS = (".xlsx",)
_LINE = "\0line"  # key of a caption, while it waits
TABLES = (".csv", ".tsv", *SHEETS)


class Translations:
    """Adds a file's translations to rows.

    A file of lines (`.txt`, or a table of one column) belongs to the captions line by line, in their order. A table has
    a key and a translation in each row; the key is the caption's text, its image's name or id, or that with `#` and the
    caption's number (Flickr30k's `image.jpg#0`). Rows with one key are of one image's captions in turn.
    """

    def __init__(self, path: Path, to: str, options: Options) -> None:
        self.path = path
        self.to = to
        self.options = options
        table = list(itertools.islice(self._rows(), 2)) if path.suffix.lower() in TABLES else []
        self.by_line = not any(len(row) > 1 for _, row in table)
        self.added = 0
        self.without = 0
        self.unused = 0

    def to_lines(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Rows in the order in which they are read; each caption takes a line, which waits for `expand`.

        Raises CapivaraError when there are more captions than lines, or fewer.
        """
        found = self._lines()
        taken = 0
        for row in rows:
            own = [i for i, caption in enumerate(row.captions) if self._wants(caption)] if not row.problem else []
            values = list(itertools.islice(found, len(own)))
            taken += len(own)
            if len(values) < len(own):
                rest = sum(len(list(filter(self._wants, later.captions))) for later in rows)
                total = taken - len(own) + len(values)
                raise self._unequal(taken + rest, total)
            marked = list(row.captions)
            for i, text in zip(own, values, strict=True):
                marked[i] = {**marked[i], _LINE: text}
            yield replace(row, captions=tuple(marked))
        left = sum(1 for _ in found)
        if left:
            raise self._unequal(taken, taken + left)

    def expand(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Rows of one image each, with what `to_lines` has put aside: behind all captions, so places stay right."""
        for row in rows:
            pairs = [(i, caption[_LINE]) for i, caption in enumerate(row.captions) if _LINE in caption]
            captions = tuple({key: caption[key] for key in caption if key != _LINE} for caption in row.captions)
            yield self._with(replace(row, captions=captions), pairs)

    def by_key(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Rows of one image each; captions find their translations by key."""
        there = self._table()
        with_all = there.execute("SELECT count(*) FROM there").fetchone()[0]
        there.execute("CREATE TEMP TABLE used (place INTEGER PRIMARY KEY)")
        for row in rows:
            own = [i for i, caption in enumerate(row.captions) if self._wants(caption)]
            pairs = []
            for turn, i in enumerate(own):
                found = self._find(there, row, row.captions[i]["text"], turn)
                if found is not None:
                    there.execute("INSERT OR IGNORE INTO used VALUES (?)", (found[0],))
                    pairs.append((i, found[1]))
            self.without += len(own) - len(pairs)
            yield self._with(row, pairs)
        self.unused = with_all - there.execute("SELECT count(*) FROM used").fetchone()[0]
        there.close()

    def _find(self, there: sqlite3.Connection, row: Row, text: str, turn: int) -> tuple[int, str] | None:
        names = [row.key, *([row.id] if row.id else [])]
        names += [Path(name).name for name in names] + [Path(name).stem for name in names]
        for key, number in (
            *((f"{name}#{turn}", 0) for name in names),
            (text, 0),
            *((name, turn) for name in names),
        ):
            query = "SELECT place, text FROM there WHERE key = ? AND turn = ?"
            if found := there.execute(query, (_key(key), number)).fetchone():
                return int(found[0]), str(found[1])
        return None

    def _wants(self, caption: dict[str, object]) -> bool:
        return caption["lang"] == self.options.lang

    def _with(self, row: Row, pairs: list[tuple[int, str]]) -> Row:
        new = [
            {"text": " ".join(text.split()), "lang": self.to, "source": self.path.name, "parent": i}
            for i, text in pairs
            if text.strip()
        ]
        self.added += len(new)
        self.without += len(pairs) - len(new)
        return replace(row, captions=(*row.captions, *new)) if new else row

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        if self.path.suffix.lower() in SHEETS:
            yield from _sheet(self.path)
        else:
            delimiter = "\t" if self.path.suffix.lower() == ".tsv" else None
            yield from texts.rows(self.path, self.options.encoding, delimiter)

    def _lines(self) -> Iterator[str]:
        if self.path.suffix.lower() not in TABLES:
            yield from texts.lines(self.path, self.options.encoding)
            return
        for number, (_, row) in enumerate(self._rows()):
            if not (number == 0 and self._is_head(row)):
                yield row[0]

    def _is_head(self, row: list[str]) -> bool:
        names = {name.strip().lower() for name in row}
        return bool(names & {self.to.lower(), f"caption_{self.to.lower()}", *TEXTS, *KEYS})

    def _table(self) -> sqlite3.Connection:
        """Key, its turn among rows of that key, and translation, in a temporary database."""
        there = sqlite3.connect("")
        columns = "place INTEGER, key TEXT, turn INTEGER, text TEXT, PRIMARY KEY (key, turn)"
        there.execute(f"CREATE TABLE there ({columns}) WITHOUT ROWID")
        there.execute("CREATE TEMP TABLE turns (key TEXT PRIMARY KEY, turn INTEGER) WITHOUT ROWID")
        count = "INSERT INTO turns VALUES (?, 0) ON CONFLICT (key) DO UPDATE SET turn = turn + 1"
        rows = self._rows()
        key, value = 0, -1
        for number, (line, row) in enumerate(rows):
            if not all(map(texts.is_decoded, row)):
                raise CapivaraError(f"{self.path}:{line}: not UTF-8", "--encoding latin-1, or iconv -t UTF-8")
            if number == 0 and self._is_head(row):
                key, value = self._columns(row)
                continue
            if len(row) <= max(key, value, 1):
                raise CapivaraError(f"{self.path}:{line}: {len(row)} fields: no translation", "KEY, tab, TRANSLATION")
            name = _key(row[key])
            there.execute(count, (name,))
            ((turn,),) = there.execute("SELECT turn FROM turns WHERE key = ?", (name,))
            there.execute("INSERT INTO there VALUES (?, ?, ?, ?)", (number, name, turn, row[value]))
        return there

    def _columns(self, head: list[str]) -> tuple[int, int]:
        names = [name.strip().lower() for name in head]
        wanted = (self.to.lower(), f"caption_{self.to.lower()}", f"text_{self.to.lower()}", *TEXTS)
        value = next((names.index(name) for name in wanted if name in names), None)
        keys = (*KEYS, self.options.lang.lower())
        key = next((names.index(name) for name in keys if name in names and names.index(name) != value), None)
        if value is None or key is None:
            raise CapivaraError(
                f"{self.path}: no columns of keys and of {self.to}; columns are: {', '.join(head)}",
                f"a column {self.to}, and one of {', '.join(KEYS[:5])} …",
            )
        return key, value

    def _unequal(self, captions: int, lines: int) -> CapivaraError:
        return CapivaraError(
            f"{self.path} has {lines:,} lines, and there are {captions:,} captions in {self.options.lang}",
            "line belongs to line; a table with keys need not be complete",
        )

    def report(self) -> None:
        """How many there are, and how many found no caption."""
        console.say(f"{self.added:,} translations to {self.to} from {self.path}")
        if self.without:
            console.warn(f"{self.without:,} captions have no translation there")
        if self.unused:
            console.warn(f"{self.unused:,} translations there are of no caption")


def _key(text: str) -> str:
    """In one normal form: file names of macOS are decomposed, what people type is composed."""
    return unicodedata.normalize("NFC", " ".join(text.split())).encode("utf-8", "backslashreplace").decode()


def _sheet(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows of the first sheet of an .xlsx file."""
    try:
        import openpyxl
    except ImportError as error:
        raise CapivaraError(f"{path} needs openpyxl, which is not installed", "pip install 'capivara[xlsx]'") from error
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        rows = enumerate(book.worksheets[0].iter_rows(values_only=True), start=1)
    except Exception as error:  # a broken file makes zipfile and the XML parser raise nearly anything
        raise CapivaraError(f"{path} cannot be read as .xlsx: {error}") from error
    with closing(book):
        while True:
            try:
                number, row = next(rows)
            except StopIteration:
                return
            except Exception as error:
                raise CapivaraError(f"{path} cannot be read as .xlsx: {error}") from error
            if any(value is not None for value in row):
                yield number, ["" if value is None else str(value) for value in row]
