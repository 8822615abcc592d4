"""Human translations of captions, in a file of their own: line by line, or found by a key."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from capivara_cli import console
from capivara_cli.data.captions import Caption, with_keys
from capivara_cli.data.readers import text_files
from capivara_cli.data.readers.rows import Row
from capivara_cli.data.spill import Spill
from capivara_cli.errors import CapivaraError, explained

KEYS = ("image", "id", "key", "image_id", "file_name", "filename", "filepath", "source", "text", "caption", "title")
TEXTS = ("translation", "translated", "target")
TABLES = (".csv", ".tsv", ".xlsx")
_LINE = "\0line"  # key of a caption, while it waits for its translation


class Translations:
    """Add a file's translations to rows.

    A file of lines (`.txt`, or a table of one column) belongs to the captions line by line, in their order. A table has
    a key and a translation per row; the key is the caption's text, its image's name or id, or that with `#` and the
    caption's number (Flickr30k's `image.jpg#0`). Rows with the same key belong to the image's captions in turn.

    Args:
        path: the file.
        lang: language of the captions that are translated.
        to: language of the translations.
        encoding: of the file.
    """

    def __init__(self, path: Path, lang: str, to: str, encoding: str | None) -> None:
        self.path = path
        self.lang = lang
        self.to = to
        self.encoding = encoding
        self.suffix = path.suffix.lower()
        first_rows = itertools.islice(self._rows(), 2) if self.suffix in TABLES else ()
        self.by_line = all(len(row) == 1 for _, row in first_rows)
        self.added = 0
        self.without = 0  # captions without a translation
        self.unused = 0  # translations that match no caption

    def to_lines(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Give each caption its line, before rows are joined; `add_lines` makes captions of them.

        Raises CapivaraError when there are more captions than lines, or fewer.
        """
        lines, rows = self._lines(), iter(rows)
        captions = 0
        for row in rows:
            originals = [] if row.problem else self._originals(row)
            texts = list(itertools.islice(lines, len(originals)))
            if len(texts) < len(originals):
                all_lines = captions + len(texts)
                captions += len(originals) + sum(len(self._originals(later)) for later in rows)
                raise self._unequal(captions, all_lines)
            captions += len(originals)
            waiting = list(row.captions)
            for i, text in zip(originals, texts, strict=True):
                waiting[i] = with_keys(waiting[i], **{_LINE: text})
            yield replace(row, captions=tuple(waiting))
        rest = sum(1 for _ in lines)
        if rest:
            raise self._unequal(captions, captions + rest)

    def add_lines(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Add what `to_lines` has given to the captions, behind all of an image, so that their indices stay right."""
        for row in rows:
            texts: dict[int, str] = {}
            captions = []
            for i, caption in enumerate(row.captions):
                keys: dict[str, Any] = {**caption}
                if _LINE in keys:
                    texts[i] = keys.pop(_LINE)
                captions.append(cast("Caption", keys))
            yield self._with(replace(row, captions=tuple(captions)), texts)

    def by_key(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Add translations to rows of one image each; captions find theirs by key."""
        with self._table() as table, Spill() as used:
            for row in rows:
                originals = self._originals(row)
                texts: dict[int, str] = {}
                for turn, i in enumerate(originals):
                    for key, index in _keys(row, row.captions[i]["text"], turn):
                        text = table.get(key, index)
                        if text is not None:
                            texts[i] = text
                            used.setdefault(f"{index} {key}", "")
                            break
                self.without += len(originals) - len(texts)
                yield self._with(row, texts)
            self.unused = len(table) - len(used)

    def _originals(self, row: Row) -> list[int]:
        return [i for i, caption in enumerate(row.captions) if caption["lang"] == self.lang]

    def _with(self, row: Row, texts: dict[int, str]) -> Row:
        """Return the row with translations: index of a caption -> its translation, which may be blank."""
        captions = list(row.captions)
        for i, text in texts.items():
            if text.strip():
                clean = " ".join(text.split())
                captions.append({"text": clean, "lang": self.to, "source": self.path.name, "parent": i})
        added = len(captions) - len(row.captions)
        self.added += added
        self.without += len(texts) - added
        return replace(row, captions=tuple(captions)) if added else row

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        if self.suffix == ".xlsx":
            return _sheet(self.path)
        return text_files.rows(self.path, self.encoding, "\t" if self.suffix == ".tsv" else None)

    def _lines(self) -> Iterator[str]:
        if self.suffix not in TABLES:
            yield from text_files.lines(self.path, self.encoding)
            return
        for number, (_, row) in enumerate(self._rows()):
            if number or not self._is_header(row):
                yield row[0]

    def _is_header(self, row: list[str]) -> bool:
        names = {name.strip().lower() for name in row}
        return bool(names & {self.to.lower(), f"caption_{self.to.lower()}", *TEXTS, *KEYS})

    def _table(self) -> Spill:
        """Read the table: key -> its translations."""
        table = Spill()
        key, value = 0, -1  # without a header: the first and the last column
        for number, (line, row) in enumerate(self._rows()):
            if not all(map(text_files.is_decoded, row)):
                raise CapivaraError(f"{self.path}:{line}: not UTF-8", "--encoding latin-1, or iconv -t UTF-8")
            if number == 0 and self._is_header(row):
                key, value = self._columns(row)
                continue
            if len(row) <= max(key, value, 1):
                raise CapivaraError(f"{self.path}:{line}: {len(row)} fields: no translation", "KEY, tab, TRANSLATION")
            table.add(_normal(row[key]), row[value])
        return table

    def _columns(self, header: list[str]) -> tuple[int, int]:
        """Return the indices of the columns of keys and of translations."""
        names = [name.strip().lower() for name in header]
        to = self.to.lower()
        value = next((names.index(name) for name in (to, f"caption_{to}", f"text_{to}", *TEXTS) if name in names), None)
        keys = (name for name in (*KEYS, self.lang.lower()) if name in names)
        key = next((index for index in map(names.index, keys) if index != value), None)
        if value is None or key is None:
            raise CapivaraError(
                f"{self.path}: no columns of keys and of {self.to}; its columns are: {', '.join(header)}",
                f"a column {self.to}, and one of {', '.join(KEYS[:5])} …",
            )
        return key, value

    def _unequal(self, captions: int, lines: int) -> CapivaraError:
        return CapivaraError(
            f"{self.path} has {lines:,} lines, and there are {captions:,} captions in {self.lang}",
            "there must be one line per caption; a table with keys may leave captions out",
        )

    def report(self) -> None:
        """Say how many translations were added, and how many match no caption."""
        console.say(f"{console.counted(self.added, 'translation')} to {self.to} from {self.path}")
        if self.without:
            console.warn(f"{console.counted(self.without, 'caption')} without a translation in {self.path}")
        if self.unused:
            console.warn(f"{console.counted(self.unused, 'translation')} of no caption")


def _keys(row: Row, text: str, turn: int) -> Iterator[tuple[str, int]]:
    """Yield keys by which a caption may be found, and its index among the translations of the key.

    Args:
        turn: the caption's number among those of its image.
    """
    names = [row.key, *([row.id] if row.id else [])]
    names += [Path(name).name for name in names] + [Path(name).stem for name in names]
    for name in names:
        yield _normal(f"{name}#{turn}"), 0
    yield _normal(text), 0
    for name in names:
        yield _normal(name), turn


def _normal(text: str) -> str:
    """Return a key in one normal form: file names of macOS are decomposed, what people type is composed."""
    return unicodedata.normalize("NFC", " ".join(text.split()))


def _sheet(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of the first sheet of an .xlsx file, with their numbers."""
    with explained(f"{path} needs openpyxl", ImportError, hint="pip install 'capivara-cli[xlsx]'"):
        import openpyxl

    with (
        explained(f"{path} cannot be read as .xlsx", Exception),  # zipfile and the XML parser raise nearly anything
        closing(openpyxl.load_workbook(path, read_only=True, data_only=True)) as book,
    ):
        for number, row in enumerate(book.worksheets[0].iter_rows(values_only=True), start=1):
            if any(value is not None for value in row):
                yield number, ["" if value is None else str(value) for value in row]
