"""Annotations in JSON: COCO captions, Karpathy's splits, PraCegoVer, Crossmodal-3600."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

from capivara_cli.data.captions import Caption
from capivara_cli.data.readers import text_files
from capivara_cli.data.readers.formats import WrongFormat
from capivara_cli.data.readers.options import ReaderOptions
from capivara_cli.data.readers.rows import Row, inside
from capivara_cli.data.readers.source_start import SourceStart
from capivara_cli.errors import CapivaraError, explained, nearest

MAX_DEPTH = 100  # of nested lists and objects

_COCO_KEYS = {"images": ("id", "file_name"), "annotations": ("image_id", "caption")}


def _has(source: SourceStart, *keys: str) -> bool:
    return source.path.suffix == ".json" and all(f'"{key}"' in source.text for key in keys)


def is_coco(source: SourceStart) -> bool:
    """Return whether a file has lists of images or annotations, by the names of their keys."""
    return _has(source, "images", "file_name") or _has(source, "annotations", "image_id")


def is_karpathy(source: SourceStart) -> bool:
    """Return whether a file has images with sentences."""
    return _has(source, "sentences")


def is_pracegover(source: SourceStart) -> bool:
    """Return whether a file has images with one caption each."""
    return _has(source, "filename", "caption")


def is_xm3600(source: SourceStart) -> bool:
    """Return whether a file, or `captions.jsonl` in a folder, has the keys of Crossmodal-3600."""
    if "captions.jsonl" in source.names:
        return is_xm3600(SourceStart(source.path / "captions.jsonl"))
    return source.path.suffix == ".jsonl" and '"image/key"' in source.text


def coco(path: Path, options: ReaderOptions) -> Iterator[Row]:
    """Read `{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}`; either list may be first."""
    folder = options.images or path.parent
    known = False
    for number, (key, element) in enumerate(_elements(path), start=1):
        where = f"{path}: element {number}"
        if key not in _COCO_KEYS:
            continue
        if not isinstance(element, dict):
            raise CapivaraError(f"{where} of {key} is not an object", "leave --format out: the format is recognised")
        if key == "images" and isinstance(element.get("file_name"), str) and "id" in element:
            known = True
            name = element["file_name"]
            yield Row(where, str(element["id"]), inside(folder, name), id=name)
        elif key == "annotations" and isinstance(element.get("caption"), str) and "image_id" in element:
            known = True
            yield Row(where, str(element["image_id"]), captions=_captions([element["caption"]], options.lang))
        elif known:
            yield Row(where, "", id=where, problem=f"of {key}, without {' and '.join(_COCO_KEYS[key])}")
        else:
            break
    if not known:
        raise WrongFormat(path, "coco")


def karpathy(path: Path, options: ReaderOptions) -> Iterator[Row]:
    """Read `{"images": [{"filename", "filepath", "split", "sentences": [{"raw"}]}]}`: Flickr8k, Flickr30k and COCO."""
    folder = options.images or path.parent
    splits: dict[str, None] = {}
    for number, (key, element) in enumerate(_elements(path), start=1):
        if key != "images":
            continue
        if not isinstance(element, dict) or not isinstance(element.get("sentences"), list) or "filename" not in element:
            raise WrongFormat(path, "karpathy")
        split = str(element.get("split"))
        splits[split] = None
        if not _is_wanted(split, options):
            continue
        name, part = str(element["filename"]), str(element.get("filepath") or "")
        image = folder / part / name if part and (folder / part).is_dir() else folder / name
        texts = [sentence.get("raw") for sentence in element["sentences"] if isinstance(sentence, dict)]
        yield Row(f"{path}: image {number}", name, str(image), _captions(texts, options.lang), extra={"split": split})
    _check_splits(path, "karpathy", options, splits)


def pracegover(path: Path, options: ReaderOptions) -> Iterator[Row]:
    """Read `{"train": [{"filename", "caption"}], "validation": …}`."""
    folder = options.images or path.parent
    splits: dict[str, None] = {}
    for number, (split, element) in enumerate(_elements(path), start=1):
        if not isinstance(element, dict) or not isinstance(element.get("filename"), str):
            if split and not splits:
                break
            continue
        splits[split] = None
        if not _is_wanted(split, options):
            continue
        name = element.pop("filename")
        captions = _captions([element.pop("caption", None)], options.lang)
        extra = {"split": split, **element} if split else element
        yield Row(f"{path}: element {number}", name, inside(folder, name), captions, extra=extra)
    _check_splits(path, "pracegover", options, splits)


def _is_wanted(split: str, options: ReaderOptions) -> bool:
    return options.split in (None, split) or (options.split, split) == ("val", "validation")


def _check_splits(path: Path, format: str, options: ReaderOptions, splits: Iterable[str]) -> None:
    """Raise CapivaraError if a file has no splits, or none that was asked for."""
    if not splits:
        raise WrongFormat(path, format)
    if not any(_is_wanted(split, options) for split in splits):
        near = nearest(str(options.split), list(splits))
        raise CapivaraError(f"{path} has no split {options.split}{near}", f"--split: {', '.join(splits)}")


def xm3600(path: Path, options: ReaderOptions) -> Iterator[Row]:
    """Read lines of `{"image/key", "image/locale", LANG: {"caption": […]}}`; images are KEY.jpg in `images/`."""
    if path.is_dir():
        path = path / "captions.jsonl"
    folder = options.images or path.parent / "images"
    for where, data, problem in text_files.objects(path, options.encoding):
        if problem is not None:
            yield Row(where, "", id=where, problem=problem)
            continue
        key = data.get("image/key")
        if not isinstance(key, str):
            raise WrongFormat(path, "xm3600")
        captions: list[Caption] = []
        for lang, value in data.items():
            texts = value.get("caption") if isinstance(value, dict) else None
            for text in texts if isinstance(texts, list) else []:
                if isinstance(text, str) and text.strip():
                    captions.append({"text": text, "lang": lang})
        locale = {"locale": data["image/locale"]} if isinstance(data.get("image/locale"), str) else {}
        yield Row(where, key, inside(folder, f"{key}.jpg"), tuple(captions), extra=locale)


def _captions(texts: Iterable[Any], lang: str) -> tuple[Caption, ...]:
    return tuple(
        {"text": " ".join(text.split()), "lang": lang} for text in texts if isinstance(text, str) and text.strip()
    )


def _elements(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the elements of each list in a JSON object with the list's key, and other values with theirs.

    `{"images": [a, b], "info": c}` gives ("images", a), ("images", b), ("info", c); the elements of a file that is a
    list have the key "". Memory is that of the largest element.

    Raises CapivaraError for what is not JSON in UTF-8.
    """
    import ijson
    from ijson.common import ObjectBuilder

    if text_files.encoding_of(path, None) == "utf-16":
        raise CapivaraError(f"{path} is not UTF-8 text", f"iconv -t UTF-8 {path}")
    key, builder = "", ObjectBuilder()
    parents = builder.containers  # the lists and objects that are open, the outermost first
    with _json_file(path) as file:
        for event, value in ijson.basic_parse(file):
            builder.event(event, float(value) if type(value) is Decimal else value)
            depth = len(parents)
            if 2 < depth <= MAX_DEPTH:
                continue
            if depth > MAX_DEPTH:
                raise CapivaraError(f"{path}: not JSON that can be used: nested too deeply")
            if event == "map_key":
                key = value if depth == 1 else key
            elif depth == 0:
                if not event.startswith("end_"):
                    raise CapivaraError(f"{path}: not JSON with an object or a list, but a {event}")
            elif isinstance(parents[-1], list):
                if parents[-1] and (depth == 1 or isinstance(parents[0], dict)):
                    yield key, parents[-1].pop()  # an element is complete: forget it, so that memory does not grow
            elif depth == 1 and parents[0]:
                value = parents[0].pop(key)
                if event != "end_array":  # the elements of a list have been yielded
                    yield key, value


@contextmanager
def _json_file(path: Path) -> Iterator[BinaryIO]:
    """Open a JSON file. Raises CapivaraError, also inside the block, for what is not JSON in UTF-8."""
    from ijson import JSONError

    try:
        with explained(f"cannot read {path}"), path.open("rb") as file:
            if file.read(3) != codecs.BOM_UTF8:  # some editors leave this mark, which JSON does not allow
                file.seek(0)
            yield file
    except (JSONError, ValueError) as error:
        # yajl says "parse error: premature EOF", as bytes if they are not UTF-8; the next line has the text around.
        message = error.args[0] if error.args and isinstance(error.args[0], bytes) else str(error).encode()
        reason, _, text = message.decode("utf-8", "replace").partition("\n")
        if isinstance(error, UnicodeError) or "UTF8" in reason:
            raise CapivaraError(f"{path} is not UTF-8 text", f"iconv -t UTF-8 {path}") from error
        reason = reason.replace("parse error: premature EOF", "the file is cut short")
        near = " ".join(text.partition("(right here)")[0].split())
        raise CapivaraError(f"{path}: not JSON: {reason.rstrip('.')}" + (f", near `{near}`" if near else "")) from error
