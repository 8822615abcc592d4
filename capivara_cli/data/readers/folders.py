"""Folders of images, and shards: what stands beside an image belongs to it. Our own records too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from capivara_cli.data import images, records, sidecars
from capivara_cli.data.captions import is_caption
from capivara_cli.data.readers import text_files as texts
from capivara_cli.data.readers.rows import Options, Row
from capivara_cli.errors import CapivaraError

_SPLITS = {"train", "val", "valid", "validation", "dev", "test"}
_PARTS = _SPLITS | {"images", "annotations"}  # folders that are no classes


def part_of(path: Path, options: Options) -> Path:
    """The folder of the split that is asked for. Raises CapivaraError, naming the folders, when there is none."""
    if options.split is None or not path.is_dir():
        return path
    if not (path / options.split).is_dir():
        there = ", ".join(sorted(entry.name for entry in path.iterdir() if entry.is_dir())) or "none"
        raise CapivaraError(f"{path} has no folder {options.split}", f"folders there are: {there}")
    return path / options.split


def _refuse_parts(path: Path, options: Options) -> None:
    """Raise CapivaraError where folders are to be classes, and are splits."""
    names = {entry.name.lower() for entry in path.iterdir() if entry.is_dir()}
    if options.labels and names and names <= _SPLITS:
        raise CapivaraError(f"{path} has parts and no classes: {', '.join(sorted(names))}", "--split test")


def folder(path: Path, options: Options) -> Iterator[Row]:
    """Images below a folder, with `.json`, `.txt` or `.cls` beside them, or Hugging Face's `metadata.jsonl`.

    A folder whose images are all in folders of their own, one deep, is one of classes: `label` is the folder's name,
    unless `labels` says otherwise.
    """
    if not path.is_dir():
        raise CapivaraError(f"{path} is no folder")
    path = part_of(path, options)
    if (path / "metadata.jsonl").is_file():
        yield from _metadata(path / "metadata.jsonl", options)
        return
    _refuse_parts(path, options)
    labelled = _are_classes(path) if options.labels is None else options.labels
    for file in images.find(path):
        where = file.as_posix()
        parts = {}
        for extension in sidecars.EXTENSIONS:
            beside = file.with_suffix(f".{extension}")
            if beside.is_file():
                parts[extension] = beside.read_bytes()
        try:
            data = sidecars.read(parts, where, options.lang, options.encoding)
        except CapivaraError as error:
            yield Row(where, where, where, problem=error.message)
            continue
        if labelled and file.parent != path:
            data.setdefault("label", file.relative_to(path).parts[0])
        yield row_of(where, where, where, data)


def _are_classes(path: Path) -> bool:
    """Whether there are images in several folders one deep, and none elsewhere. Links to folders are not followed."""
    inside = [entry for entry in sorted(path.iterdir()) if not entry.is_symlink()]
    deep = [entry for entry in inside if entry.is_dir()]
    if len(deep) < 2 or {entry.name.lower() for entry in deep} <= _PARTS:
        return False
    if any(images.is_image_name(entry.name) for entry in inside if entry.is_file()) or not deep:
        return False
    return all(not any(child.is_dir() for child in entry.iterdir()) for entry in deep)


def _metadata(path: Path, options: Options) -> Iterator[Row]:
    """Hugging Face's ImageFolder: `file_name`, and captions in our form or as a text of a usual name."""
    for where, found, problem in texts.objects(path, options.encoding):
        name = found.get("file_name")
        if problem is not None or not isinstance(name, str):
            yield Row(where, "", id=where, problem=problem or "no JSON object with file_name")
            continue
        ours = isinstance(found.get("captions"), list)
        data = {key: value for key, value in found.items() if key != "file_name" and (ours or value is not None)}
        for key in ("text", "caption") if not ours else ():
            if isinstance(data.get(key), str):
                data = sidecars.from_json({**data, "caption": data.pop(key)}, options.lang)
                break
        if ours and data.get("text") in [each.get("text") for each in data["captions"] if isinstance(each, dict)]:
            data.pop("text")  # of the captions, for readers that take one: see exporters
        yield row_of(where, name, str(path.parent / name), data)


def shards(path: Path, options: Options) -> Iterator[Row]:
    """A tar shard, a brace pattern of them, or a folder with some."""
    path = part_of(path, options)
    paths = sorted(path.rglob("*.tar")) if path.is_dir() else records.expand(str(path))
    if not paths:
        raise CapivaraError(f"{path}: no .tar in it")
    for shard in paths:
        for where, image, data in records.shard_samples(shard, options.lang, options.encoding):
            if isinstance(data, CapivaraError):
                yield Row(where, where, image, id=where, problem=data.message)
            else:
                yield _checked(data, where, Path.cwd())


def jsonl(path: Path, options: Options) -> Iterator[Row]:
    """Our own records."""
    if path.suffix != ".jsonl" or path.is_dir() or not path.exists():
        yield from map(_from_record, records.read(path))
        return
    for where, found, problem in texts.objects(path, options.encoding):
        yield Row(where, where, id=where, problem=problem) if problem else _checked(found, where, path.parent)


def _checked(data: dict[str, Any], where: str, folder: Path) -> Row:
    try:
        return _from_record(records.checked(data, where, folder))
    except CapivaraError as error:
        return Row(where, where, id=where, problem=error.message.removeprefix(f"{where}: "))


def _from_record(record: records.Record) -> Row:
    rest = {key: value for key, value in record.data.items() if key not in ("image", "file_name", "captions", "id")}
    given = record.data.get("image") or record.data["file_name"]
    image = given if os.path.isabs(given) else str(record.image._replace(path=os.path.relpath(record.image.path)))
    return Row(record.where, record.id, image, tuple(record.captions), record.id, rest)


def row_of(where: str, key: str, image: str, data: dict[str, Any]) -> Row:
    """A row from the keys of a record, or the problem that they have."""
    captions = data.get("captions", [])
    if not isinstance(captions, list) or not all(map(is_caption, captions)):
        return Row(where, key, image, problem="`captions` is not a list of texts and languages")
    rest = {name: value for name, value in data.items() if name not in ("id", "image", "captions")}
    id_ = data.get("id")
    return Row(where, key, image, tuple(captions), str(id_) if id_ not in (None, "") else None, rest)
