"""Tables: CSV and TSV, Parquet, and Hugging Face data sets on disk. Columns are found by their names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from capivara_cli import artifacts
from capivara_cli.data import images
from capivara_cli.data.captions import is_caption
from capivara_cli.data.readers import text_files as texts
from capivara_cli.data.readers.rows import Options, Row, inside
from capivara_cli.errors import CapivaraError, nearest

# What others call it, the commonest first: open_clip, Hugging Face, Flickr8k and 30k, img2dataset, Kaggle.
NAMES = {
    "image": ("filepath", "image", "file_name", "filename", "image_path", "image_name", "path", "file", "img"),
    "caption": ("title", "caption", "text", "captions", "sentence", "sentences", "description", "comment", "raw"),
    "id": ("id", "image_id", "key", "__key__"),
    "label": ("label", "class", "category", "labels"),
    "lang": ("lang", "language"),
}
OWN = ("source", "prefix", "parent", "score")  # of a caption, as `capivara export csv` writes them
MORE = "more"  # and what else there was, as JSON
_LANGUAGE = re.compile(r"(?:(?:caption|text|title|sentence|description)s?[ _.-])?([a-z]{2,3}(?:-[A-Za-z0-9]+)*)", re.I)
_WORDS = frozenset(["am", "as", "be", "is", "it", "my", "no", "or", "so", "to"])  # seldom codes of languages
_NUMBERED = re.compile(r"(.+\.\w+)#\d+")  # Flickr's image.jpg#3


def delimited(path: Path, options: Options) -> Iterator[Row]:
    """A table with a header; or without one, when `columns` gives numbers (1 is the first)."""
    rows = texts.rows(path, options.encoding)
    numbered = bool(options.columns) and all(column.isdecimal() for column in options.columns.values())
    header: list[str] = []
    if not numbered:
        _, header = next(rows, (0, []))
        header = [name.strip() for name in header]
        if not header:
            raise CapivaraError(f"{path}: empty", "a table with a header: filepath,title")
    twice = {name for name in header if header.count(name) > 1 and name}
    if twice:
        raise CapivaraError(
            f"{path}: several columns are called {', '.join(sorted(twice))}", "give each a name of its own"
        )
    columns = find_columns(header, options, path)
    folder = options.images or path.parent
    width = len(header)
    for line, values in rows:
        where = f"{path}:{line}"
        width = width or len(values)
        if len(values) != width:
            yield Row(where, "", id=where, problem=f"{len(values)} fields where there should be {width}")
        elif numbered and (odd := [each for each in columns.values() if not 0 < int(each) <= width]):
            raise CapivaraError(f"{path} has no column {odd[0]}: there are {width}", "1 is the first")
        elif not all(map(texts.is_decoded, values)):
            yield Row(where, "", id=where, problem="not in the file's encoding: --encoding latin-1, or iconv")
        else:
            yield _row(
                where, dict(zip(header or map(str, range(1, width + 1)), values, strict=True)), columns, folder, options
            )


def parquet(path: Path, options: Options) -> Iterator[Row]:
    """A Parquet file, or a folder of them; images inside are written to `extracted`."""
    try:
        import pyarrow
        import pyarrow.parquet as reader
    except ImportError as error:
        raise CapivaraError(
            "Parquet needs pyarrow, which is not installed", "pip install 'capivara[parquet]'"
        ) from error

    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if options.split is not None and path.is_dir():
        part = re.compile(
            rf"(.*/)?{re.escape(options.split)}([-_./].*)?"
        )  # train/0.parquet, train-00000-of-00002.parquet
        files = [file for file in files if part.fullmatch(file.relative_to(path).as_posix())]
    if not files:
        raise CapivaraError(f"{path}: no Parquet files in it", "--split, or a folder above")
    for file in files:
        try:
            table = reader.ParquetFile(file)
            columns = find_columns(table.schema_arrow.names, options, file)
            folder = options.images or file.parent
            classes = _classes(table.schema_arrow.metadata)
            number = 0
            for batch in table.iter_batches(batch_size=32):
                for values in batch.to_pylist():
                    number += 1
                    named = {key: _class_name(value, classes.get(key)) for key, value in values.items()}
                    yield _row(f"{file}: row {number}", named, columns, folder, options)
        except (pyarrow.ArrowException, OSError) as error:
            raise CapivaraError(f"{file} cannot be read as Parquet: {' '.join(str(error).split())}") from error


def _classes(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    """Names of the classes of columns, as Hugging Face's `datasets` leaves them in a Parquet file."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {key: value["names"] for key, value in features.items() if value.get("_type") == "ClassLabel"}
    except (KeyError, TypeError, AttributeError, ValueError):
        return {}


def _class_name(value: Any, names: list[str] | None) -> Any:
    return names[value] if names and isinstance(value, int) and 0 <= value < len(names) else value


def hugging_face(path: Path, options: Options) -> Iterator[Row]:
    """A data set that `save_to_disk` of Hugging Face's `datasets` wrote; images are inside, or files."""
    try:
        import datasets
    except ImportError as error:
        raise CapivaraError(
            "this needs datasets, which is not installed", "pip install 'capivara[datasets]'"
        ) from error

    try:
        found = datasets.load_from_disk(str(path))
    except Exception as error:  # of a folder that only looks like one
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CapivaraError(f"{path} is no data set that save_to_disk wrote: {reason}") from error
    if isinstance(found, datasets.DatasetDict):
        if options.split is None and len(found) > 1:
            raise CapivaraError(f"{path} has several splits", f"--split: {', '.join(found)}")
        split = options.split or next(iter(found))
        if split not in found:
            raise CapivaraError(f"{path} has no split {split}", f"--split: {', '.join(found)}")
        found = found[split]
    classes: dict[str, list[str]] = {}
    for name, feature in found.features.items():
        if isinstance(feature, datasets.Image):
            found = found.cast_column(name, datasets.Image(decode=False))
        elif isinstance(feature, datasets.ClassLabel):
            classes[name] = feature.names
    columns = find_columns(found.column_names, options, path)
    folder = options.images or path
    for number, values in enumerate(found, start=1):
        named = {key: _class_name(value, classes.get(key)) for key, value in values.items()}
        yield _row(f"{path}: row {number}", named, columns, folder, options)


def find_columns(header: Sequence[str], options: Options, path: Path) -> dict[str, str]:
    """What each column that is known is: `image`, `caption`, `id`, `label`, `lang`, or a language -> its name.

    Raises CapivaraError, naming the columns, when there is none for images, or one that was asked for is missing.
    """
    columns: dict[str, str] = {}
    for what, column in options.columns.items():
        if what not in NAMES and not _is_language(what):
            raise CapivaraError(
                f"--column {what}={column}: {what} is no language{nearest(what, list(NAMES))}",
                f"{', '.join(NAMES)}, or a language",
            )
        if header and column not in header:
            raise CapivaraError(f"{path} has no column {column}", f"columns there are: {', '.join(header)}")
        columns[what] = column
    lower = {name.lower(): name for name in header}
    for what, names in NAMES.items():
        free = [lower[name] for name in names if name in lower and lower[name] not in columns.values()]
        if what not in columns and free and header:
            columns[what] = free[0]
    for name in header:
        match = _LANGUAGE.fullmatch(name)
        if match and name.lower() not in _WORDS and name not in columns.values() and _is_language(match[1]):
            columns.setdefault(match[1].lower(), name)
    if "image" not in columns:
        there = ", ".join(header) or "not named"
        raise CapivaraError(
            f"{path}: no column for images; columns are: {there}", "--column image=NAME --column caption=NAME"
        )
    return columns


def _is_language(code: str) -> bool:
    from capivara_cli.data.languages import find

    return find(code) is not None


def _row(where: str, values: dict[str, Any], columns: dict[str, str], folder: Path, options: Options) -> Row:
    given = values[columns["image"]]
    more, own = _more(values), _own(values)
    key = values.get(columns.get("id", ""))
    if isinstance(given, dict):
        name, problem = _extract(given, where, folder, options)
    elif not isinstance(given, str) or not given.strip():
        name, problem = "", "no image"
    elif re.match(r"https?://", given):
        name, problem = given, "an address and no file: img2dataset downloads it, and --images says where to"
    else:
        name, problem = (match[1] if (match := _NUMBERED.fullmatch(given.strip())) else given.strip()), None
    ours = more is not None
    used = {*columns.values(), *((MORE, *OWN) if ours else own)}
    extra = {name: value for name, value in values.items() if name not in used and value not in (None, "")}
    label = values.get(columns.get("label", ""))
    if label not in (None, ""):
        extra["label"] = label
    lang = str(values.get(columns.get("lang", "")) or options.lang)
    structs = _structs(values)
    if structs is not None:
        captions = structs
        extra.pop("captions", None)
    else:
        keep_empty = ours and bool(values.get(columns.get("lang", "")))  # an empty caption of our own has a language
        captions = _captions(values, columns, lang, own, keep_empty=keep_empty)
    odd, record = ((more or {}).get(what) for what in ("caption", "record"))
    if captions and isinstance(odd, dict):
        captions[0] |= odd
    id_ = str(key) if key not in (None, "") else None
    return Row(
        where,
        (id_ or name) if isinstance(given, dict) or ours else name,  # what we wrote ourselves is apart by its id
        inside(folder, name) if not isinstance(given, dict) else name,
        tuple(captions),
        id_,
        extra | (record if isinstance(record, dict) else {}),
        problem,
        apart="parent" not in own,
    )


def _more(values: dict[str, Any]) -> dict[str, Any] | None:
    """What our own tables have in a column of JSON; None in those of others."""
    if MORE not in values or not set(OWN) <= values.keys():
        return None
    try:
        found = json.loads(values[MORE] or "{}")
    except (ValueError, TypeError, RecursionError):
        return None
    return found if isinstance(found, dict) and found.keys() <= {"caption", "record"} else None


def _own(values: dict[str, Any]) -> dict[str, Any]:
    """Keys of a caption, as our own tables have them; what is not what it should be is left out."""
    own: dict[str, Any] = {}
    for key in OWN:
        given = values.get(key)
        if given in (None, ""):
            continue
        if key in ("parent", "score"):
            try:
                given = json.loads(given) if isinstance(given, str) else given
            except (ValueError, RecursionError):
                continue
            if not isinstance(given, int if key == "parent" else int | float) or isinstance(given, bool):
                continue
        own[key] = given
    return own


def _structs(values: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Captions of a column in our own form: a list of structs, where what a caption lacks is null."""
    given = values.get("captions")
    if not isinstance(given, list) or not given or not all(map(is_caption, given)):
        return None
    return [{key: value for key, value in each.items() if value is not None} for each in given]


def _captions(
    values: dict[str, Any], columns: dict[str, str], lang: str, own: dict[str, Any], *, keep_empty: bool
) -> list[dict[str, Any]]:
    """The captions of a row; those in a column of another language are translations of the one beside them."""
    captions: list[dict[str, Any]] = []
    first: list[int] = []
    for what in ("caption", *(each for each in columns if each not in NAMES)):
        if what not in columns:
            continue
        value = values[columns[what]]
        place = []
        for number, each in enumerate(value if isinstance(value, list) else [value]):
            text = _text_of(each)
            if text is not None and (text.strip() or keep_empty):
                parent = {"parent": first[number]} if number < len(first) and "parent" not in own else {}
                place.append(len(captions))
                captions.append({"text": text, "lang": lang if what == "caption" else what, **parent})
        if what == "caption":
            first = place
            for i in place:
                captions[i] |= own
    return captions


def _text_of(value: Any) -> str | None:
    """A text, or that of a struct: `{"raw": …}` as Karpathy's sentences have it."""
    if isinstance(value, dict):
        value = next((value[key] for key in NAMES["caption"] if isinstance(value.get(key), str)), None)
    return value if isinstance(value, str) else None


def _extract(given: dict[str, Any], where: str, folder: Path, options: Options) -> tuple[str, str | None]:
    """Write an image that is inside a table, and give its file's name; named by what it holds, so never twice."""
    import hashlib

    content, path = given.get("bytes"), given.get("path")
    if not isinstance(content, bytes):
        return (inside(folder, path), None) if isinstance(path, str) else ("", "no image")
    if options.extracted is None:
        raise CapivaraError(
            f"{where}: the images are inside the table", "-o FILE puts them beside it, --images DIR there"
        )
    ending = images.ending(content)
    if ending is None:
        return "", "not an image that can be read"
    digest = hashlib.blake2b(content, digest_size=12).hexdigest()
    file = options.extracted / digest[:2] / f"{digest}{ending}"
    if not file.is_file() or file.stat().st_size != len(content):
        with artifacts.writing(file) as temporary:
            temporary.write_bytes(content)
    return str(file), None
