"""Find the columns of a table by their names, and make rows of images from its rows."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from capivara_cli import console
from capivara_cli.data.captions import Caption, is_caption, with_keys
from capivara_cli.data.languages import bcp47, find
from capivara_cli.data.readers.options import ReaderOptions
from capivara_cli.data.readers.rows import Row, inside
from capivara_cli.errors import CapivaraError, nearest

# What others call a column, the most frequent name first (open_clip, Hugging Face, Flickr, img2dataset, Kaggle).
NAMES = {
    "image": ("filepath", "image", "file_name", "filename", "image_path", "image_name", "path", "file", "img"),
    "caption": ("title", "caption", "text", "captions", "sentence", "sentences", "description", "comment", "raw"),
    "id": ("id", "image_id", "key", "__key__"),
    "label": ("label", "class", "category", "labels"),
    "lang": ("lang", "language"),
}
# Columns that `capivara export csv` writes: further keys of the caption, and one for all other keys, as JSON.
CAPTION_COLUMNS = ("source", "prefix", "parent", "score")
EXTRA_COLUMN = "more"  # {"caption": {…}, "record": {…}}
_NUMBERS: dict[str, tuple[type, ...]] = {"parent": (int,), "score": (int, float)}
_LANGUAGE = re.compile(r"(?:(?:caption|text|title|sentence|description)s?[ _.-])?([a-z]{2,3}(?:-[A-Za-z0-9]+)*)", re.I)
_WORDS = frozenset(
    ["am", "as", "be", "is", "it", "my", "no", "or", "so", "to"]
)  # English words, rarely meant as language codes
NONE = "none"  # `--column caption=none`: the table has no captions
_NUMBERED = re.compile(r"(.+\.\w+)#\d+")  # Flickr's image.jpg#3


def find_columns(header: Sequence[str], options: ReaderOptions, path: Path, *, first: bool = True) -> dict[str, str]:
    """Return the columns that are known: `image`, `caption`, `id`, `label`, `lang`, or a language -> its name.

    Unless only labels are wanted, one line says which columns are kept as keys of the records.

    Args:
        first: whether this is the first file of its source: the others are alike, and nothing is said of them.

    Raises CapivaraError, naming the columns, when there is none for images, none for captions or labels although there
    are columns that may be one, or one that was asked for is missing.
    """
    without_captions = options.column.get("caption") == NONE and NONE not in header
    columns: dict[str, str] = {}
    for what, column in options.column.items():
        if what == "caption" and without_captions:
            continue
        if what not in NAMES and find(bcp47(what)) is None:
            raise CapivaraError(
                f"--column {what}={column}: {what} is not a language{nearest(what, list(NAMES))}",
                f"{', '.join(NAMES)}, or a language",
            )
        if column not in header:
            raise CapivaraError(f"{path} has no column {column}", f"its columns are: {', '.join(header)}")
        columns[what if what in NAMES else bcp47(what)] = column
    lower = {name.lower(): name for name in header}
    for what, usual_names in NAMES.items():
        free = [lower[name] for name in usual_names if name in lower and lower[name] not in columns.values()]
        if what not in columns and free and not (what == "caption" and without_captions):
            columns[what] = free[0]
    for name in header:
        match = _LANGUAGE.fullmatch(name)
        if match and name.lower() not in _WORDS and name not in columns.values() and find(match[1]) is not None:
            columns.setdefault(bcp47(match[1]), name)
    if "image" not in columns:
        raise CapivaraError(
            f"{path}: no column for images; its columns are: {', '.join(header)}",
            "--column image=NAME --column caption=NAME",
        )
    other = [name for name in header if name not in (*columns.values(), *CAPTION_COLUMNS, EXTRA_COLUMN)]
    if not other or options.labels:  # `classify-eval` keeps no keys, and says where labels come from
        return columns
    if not without_captions and not columns.keys() - {"image", "id", "lang"}:
        raise CapivaraError(
            f"{path}: no column for captions or labels; its columns are: {', '.join(header)}",
            f"--column caption={shlex.quote(other[-1])}, --column label=NAME, or --column caption={NONE}",
        )
    if first:
        console.say(f"{path.name}: kept as keys of the records: {', '.join(other)}")
    return columns


@dataclass(frozen=True)
class Table:
    """How the rows of a table become rows of images.

    Attributes:
        columns: what `find_columns` returned.
        folder: of the images.
        lang: language of captions that do not say theirs.
        classes: column -> names of its classes; its values are numbers.
    """

    columns: Mapping[str, str]
    folder: Path
    lang: str
    classes: Mapping[str, Sequence[str]] | None = None

    def row(self, where: str, values: dict[str, Any]) -> Row:
        """Return the row; `values` has all columns."""
        for column, names in (self.classes or {}).items():
            value = values[column]
            if isinstance(value, int) and 0 <= value < len(names):
                values[column] = names[value]
        caption_keys, exported = _caption_keys(values), _exported(values)
        captions = _structs(values)
        used = {*self.columns.values(), *caption_keys} | ({"captions"} if captions is not None else set())
        if captions is None:
            captions = self._captions(values, caption_keys, exported=exported is not None)
        if exported is not None:
            used |= {EXTRA_COLUMN, *CAPTION_COLUMNS}
            captions[:1] = [with_keys(caption, **exported["caption"]) for caption in captions[:1]]
        extra = {name: value for name, value in values.items() if name not in used and value not in (None, "")}
        label = self._value(values, "label")
        extra |= ({} if label is None else {"label": label}) | ({} if exported is None else exported["record"])
        cell = values[self.columns["image"]]
        key, image, problem = self._image(cell)
        content = cell.get("bytes") if isinstance(cell, dict) else None
        id_ = self._value(values, "id")
        if id_ is not None and (exported is not None or isinstance(cell, dict)):
            key = str(id_)  # rows that we exported, and those with the image inside, belong together by their id
        row = Row(where, key, image, tuple(captions), None if id_ is None else str(id_), extra, problem)
        row.parent_is_local = "parent" not in caption_keys
        row.content = content if isinstance(content, bytes) else None
        return row

    def _value(self, values: dict[str, Any], what: str) -> Any:
        """Return the value of a column; None for an empty one."""
        value = values[self.columns[what]] if what in self.columns else None
        return None if value == "" else value

    def _image(self, cell: Any) -> tuple[str, str, str | None]:
        """Return the image's name, its path, and what is wrong with it; an image inside the table has no name yet."""
        if isinstance(cell, dict):
            name = cell.get("path")
            if isinstance(cell.get("bytes"), bytes):
                return "", "", None
            path = inside(self.folder, name) if isinstance(name, str) else ""
            return path, path, None if path else "no image"
        if not isinstance(cell, str) or not cell.strip():
            return "", inside(self.folder, ""), "no image"
        if re.match(r"https?://", cell):
            problem = "a URL, not a file: download it with img2dataset and name the folder with --images"
            return cell, inside(self.folder, cell), problem
        numbered = _NUMBERED.fullmatch(cell.strip())
        name = numbered[1] if numbered else cell.strip()
        return name, inside(self.folder, name), None

    def _captions(self, values: dict[str, Any], caption_keys: dict[str, Any], *, exported: bool) -> list[Caption]:
        """Return the captions of a row. Those in a language's column are translations of those in the main column.

        Args:
            caption_keys: further keys of the captions in the main column.
            exported: whether we exported the table: it has empty captions too, with their language.
        """
        row_lang = self._value(values, "lang")
        keep_empty = exported and bool(row_lang)
        captions: list[Caption] = []
        originals: list[int] = []  # indices of the captions of the main column
        for what in ("caption", *(what for what in self.columns if what not in NAMES)):
            if what not in self.columns:
                continue
            value = values[self.columns[what]]
            for number, item in enumerate(value if isinstance(value, list) else [value]):
                text = _text_of(item)
                if text is None or not (text.strip() or keep_empty):
                    continue
                if what == "caption":
                    caption: Caption = {"text": text, "lang": str(row_lang or self.lang)}
                    captions.append(with_keys(caption, **caption_keys) if caption_keys else caption)
                    continue
                caption = {"text": text, "lang": what}
                if number < len(originals) and "parent" not in caption_keys:
                    caption["parent"] = originals[number]
                captions.append(caption)
            if what == "caption":
                originals = list(range(len(captions)))
        return captions


def _exported(values: dict[str, Any]) -> dict[str, dict[str, Any]] | None:
    """Return the further keys of the `caption` and the `record` in a table that we exported; None for other tables."""
    if not {EXTRA_COLUMN, *CAPTION_COLUMNS} <= values.keys():
        return None
    keys = _parsed(values[EXTRA_COLUMN] or "{}")
    if not isinstance(keys, dict) or not keys.keys() <= {"caption", "record"}:
        return None
    return {key: keys[key] if isinstance(keys.get(key), dict) else {} for key in ("caption", "record")}


def _caption_keys(values: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of a caption that columns of their names have, without values of the wrong type."""
    keys: dict[str, Any] = {}
    for key in CAPTION_COLUMNS:
        value = values.get(key)
        if key in _NUMBERS:
            value = _parsed(value) if isinstance(value, str) else value
            value = value if type(value) in _NUMBERS[key] else None
        if value not in (None, ""):
            keys[key] = value
    return keys


def _parsed(text: Any) -> Any:
    """Return the value of JSON; None for what is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return None


def _structs(values: dict[str, Any]) -> list[Caption] | None:
    """Return the captions of a column in our own form: a list of structs, where missing keys are null."""
    captions = values.get("captions")
    if not isinstance(captions, list) or not captions or not all(map(is_caption, captions)):
        return None
    return [cast("Caption", {key: value for key, value in item.items() if value is not None}) for item in captions]


def _text_of(value: Any) -> str | None:
    """Return a text, or that of a struct: `{"raw": …}` as in Karpathy's sentences."""
    if isinstance(value, dict):
        value = next((value[key] for key in NAMES["caption"] if isinstance(value.get(key), str)), None)
    return value if isinstance(value, str) else None
