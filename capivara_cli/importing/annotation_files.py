"""Annotations in JSON: COCO captions, Karpathy's splits, PraCegoVer, Crossmodal-3600."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from capivara_cli.data.readers import text_files as texts
from capivara_cli.data.readers.rows import Options, Row, inside
from capivara_cli.errors import CapivaraError, nearest
from capivara_cli.importing.json_stream import elements


def coco(path: Path, options: Options) -> Iterator[Row]:
    """`{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}`; either list may come first."""
    folder = options.images or path.parent
    known = False
    for number, (key, found) in enumerate(elements(path), start=1):
        where = f"{path}: element {number}"
        if key not in ("images", "annotations"):
            continue
        if not isinstance(found, dict):
            raise CapivaraError(f"{where} of {key} is no object", "capivara import finds the format by itself")
        if key == "images" and isinstance(found.get("file_name"), str) and "id" in found:
            known = True
            name = found["file_name"]
            yield Row(where, str(found["id"]), inside(folder, name), id=name)
        elif key == "annotations" and isinstance(found.get("caption"), str) and "image_id" in found:
            known = True
            yield Row(where, str(found["image_id"]), captions=_captions([found["caption"]], options.lang))
        elif not known:
            raise other_format(path, "coco")
        else:
            yield Row(where, "", id=where, problem=f"of {key}, without {_wanted(key)}")
    if not known:
        raise other_format(path, "coco")


def _wanted(key: str) -> str:
    return "id and file_name" if key == "images" else "image_id and caption"


def karpathy(path: Path, options: Options) -> Iterator[Row]:
    """`{"images": [{"filename", "filepath", "split", "sentences": [{"raw"}]}]}`: Flickr8k, Flickr30k and COCO."""
    folder = options.images or path.parent
    splits: dict[str, None] = {}
    taken = False
    for number, (key, found) in enumerate(elements(path), start=1):
        if key != "images":
            continue
        if not isinstance(found, dict) or not isinstance(found.get("sentences"), list) or "filename" not in found:
            raise other_format(path, "karpathy")
        split = str(found.get("split"))
        splits[split] = None
        if options.split is not None and split != options.split:
            continue
        taken = True
        sentences = [each.get("raw") for each in found["sentences"] if isinstance(each, dict)]
        name = str(found["filename"])
        inside = str(found.get("filepath") or "")
        place = folder / inside / name if inside and (folder / inside).is_dir() else folder / name
        captions = _captions(sentences, options.lang)
        yield Row(f"{path}: image {number}", name, str(place), captions, extra={"split": split})
    if not splits:
        raise other_format(path, "karpathy")
    if not taken:
        raise no_split(path, options.split, splits)


def pracegover(path: Path, options: Options) -> Iterator[Row]:
    """`{"train": [{"filename", "caption"}], "validation": …}`."""
    folder = options.images or path.parent
    splits: dict[str, None] = {}
    taken = False
    for number, (key, found) in enumerate(elements(path), start=1):
        if not isinstance(found, dict) or not isinstance(found.get("filename"), str):
            if key and not splits:
                raise other_format(path, "pracegover")
            continue
        splits[key] = None
        if options.split is not None and key not in (options.split, {"val": "validation"}.get(options.split)):
            continue
        taken = True
        extra = {name: value for name, value in found.items() if name not in ("filename", "caption")}
        yield Row(
            f"{path}: element {number}",
            found["filename"],
            inside(folder, found["filename"]),
            _captions([found.get("caption")], options.lang),
            extra={"split": key, **extra} if key else extra,
        )
    if not splits:
        raise other_format(path, "pracegover")
    if not taken:
        raise no_split(path, options.split, splits)


def xm3600(path: Path, options: Options) -> Iterator[Row]:
    """Lines of `{"image/key", "image/locale", LANG: {"caption": […]}}`; images are KEY.jpg in `images/`."""
    if path.is_dir():
        path = path / "captions.jsonl"
    folder = options.images or path.parent / "images"
    for where, found, problem in texts.objects(path, options.encoding):
        if problem is not None:
            yield Row(where, "", id=where, problem=problem)
            continue
        key = found.get("image/key")
        if not isinstance(key, str):
            raise other_format(path, "xm3600")
        captions = [
            {"text": text, "lang": lang}
            for lang, value in found.items()
            if isinstance(value, dict)
            for text in _list(value.get("caption"))
            if isinstance(text, str) and text.strip()
        ]
        locale = {"locale": found["image/locale"]} if isinstance(found.get("image/locale"), str) else {}
        yield Row(where, key, inside(folder, f"{key}.jpg"), tuple(captions), extra=locale)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _captions(found: list[Any], lang: str) -> tuple[dict[str, Any], ...]:
    return tuple(
        {"text": " ".join(text.split()), "lang": lang} for text in found if isinstance(text, str) and text.strip()
    )


def no_split(path: Path, split: str | None, splits: dict[str, None]) -> CapivaraError:
    """There is no such part of the data."""
    return CapivaraError(
        f"{path} has no split {split}{nearest(str(split), list(splits))}", f"--split: {', '.join(splits)}"
    )


def other_format(path: Path, asked: str) -> CapivaraError:
    """It is not what it was said to be; what it looks like."""
    from capivara_cli.importing.formats import guess

    found = guess(path)
    looks = f": it looks like {found}" if found and found != asked else ""
    hint = f"capivara import {found} {path}" if looks else "docs/importing.md shows the formats"
    return CapivaraError(f"{path} is not of the format {asked}{looks}", hint)
