"""Folders of images and tar shards, with what stands beside each image; and records of our own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from capivara_cli.data import images, records, shard_samples, sidecars
from capivara_cli.data.captions import problem_of
from capivara_cli.data.readers import text_files
from capivara_cli.data.readers.options import ReaderOptions
from capivara_cli.data.readers.rows import Row
from capivara_cli.data.readers.source_start import SourceStart
from capivara_cli.errors import CapivaraError, explained

_SPLITS = {"train", "val", "valid", "validation", "dev", "test"}
_NOT_CLASSES = _SPLITS | {"images", "annotations"}


def is_folder(source: SourceStart) -> bool:
    """Return whether a source may be a folder of images: any folder may."""
    return source.path.is_dir()


def is_webdataset(source: SourceStart) -> bool:
    """Return whether a source is a tar shard, a pattern of them, or a folder with some."""
    return source.has(".tar")


def is_jsonl(source: SourceStart) -> bool:
    """Return whether a source is a file of our records, by its name."""
    return source.path.suffix == ".jsonl" and not source.path.is_dir()


def folder(path: Path, options: ReaderOptions) -> Iterator[Row]:
    """Read the images below a folder, with `.json`, `.txt` or `.cls` beside them, or Hugging Face's `metadata.jsonl`.

    If all images are in sub-folders one deep, the sub-folders' names are the labels, unless `labels` says otherwise.
    """
    if not path.is_dir():
        raise CapivaraError(f"{path} is not a folder")
    path = _split_folder(path, options)
    if (path / records.METADATA).is_file():
        yield from _metadata(path / records.METADATA, options)
        return
    labelled = _has_class_folders(path) if options.labels is None else options.labels
    if options.labels:
        _refuse_splits(path)
    for file in images.find(path):
        where = file.as_posix()
        parts = {}
        for extension in sidecars.EXTENSIONS:
            beside = file.with_suffix(f".{extension}")
            if beside.is_file():
                with explained(f"cannot read {beside}"), beside.open("rb") as opened:
                    parts[extension] = opened.read(sidecars.MAX_BYTES + 1)
        try:
            data = sidecars.read(parts, where, options.lang, options.encoding)
        except CapivaraError as error:
            yield Row(where, where, where, problem=error.message)
            continue
        if labelled and file.parent != path:
            data.setdefault("label", file.relative_to(path).parts[0])
        yield row_of(where, where, where, data)


def _split_folder(path: Path, options: ReaderOptions) -> Path:
    """Return the folder of the split that is asked for. Raises CapivaraError, naming the folders, if there is none."""
    if options.split is None or not path.is_dir():
        return path
    if not (path / options.split).is_dir():
        names = ", ".join(sorted(entry.name for entry in path.iterdir() if entry.is_dir())) or "none"
        raise CapivaraError(f"{path} has no folder {options.split}", f"folders in it: {names}")
    return path / options.split


def _refuse_splits(path: Path) -> None:
    """Raise CapivaraError if the folders that should be classes are splits of the data."""
    names = {entry.name.lower() for entry in path.iterdir() if entry.is_dir()}
    if names and names <= _SPLITS:
        raise CapivaraError(f"{path} has splits and no classes: {', '.join(sorted(names))}", "--split test")


def _has_class_folders(path: Path) -> bool:
    """Return whether images are in several folders, one deep, and nowhere else. Links to folders are not followed."""
    entries = [entry for entry in sorted(path.iterdir()) if not entry.is_symlink()]
    class_folders = [entry for entry in entries if entry.is_dir()]
    if len(class_folders) < 2 or {entry.name.lower() for entry in class_folders} <= _NOT_CLASSES:
        return False
    if any(images.is_image_name(entry.name) for entry in entries if entry.is_file()):
        return False
    return not any(child.is_dir() for entry in class_folders for child in entry.iterdir())


def _metadata(path: Path, options: ReaderOptions) -> Iterator[Row]:
    """Read Hugging Face's ImageFolder: `file_name`, and captions in our form or as a text of a usual name."""
    for where, data, problem in text_files.objects(path, options.encoding):
        name = data.get("file_name")
        if problem is not None or not isinstance(name, str):
            yield Row(where, "", id=where, problem=problem or "no JSON object with file_name")
            continue
        captions = data.get("captions")
        if isinstance(captions, list):
            # `export imagefolder` repeats a caption as `text`, for readers of one text.
            if data.get("text") in [caption.get("text") for caption in captions if isinstance(caption, dict)]:
                data.pop("text")
        else:
            data = {key: value for key, value in data.items() if value is not None}
            key = next((key for key in ("text", "caption") if isinstance(data.get(key), str)), None)
            if key is not None:
                data = sidecars.from_json({**data, "caption": data.pop(key)}, options.lang)
        data.pop("file_name")
        yield row_of(where, name, str(path.parent / name), data)


def shards(path: Path, options: ReaderOptions) -> Iterator[Row]:
    """Read a tar shard, a brace pattern of them, or a folder with some."""
    path = _split_folder(path, options)
    paths = sorted(path.rglob("*.tar")) if path.is_dir() else records.expand(str(path))
    if not paths:
        raise CapivaraError(f"{path}: no .tar in it")
    for shard in paths:
        for where, image, data in shard_samples.read(shard, options.lang, options.encoding):
            if isinstance(data, CapivaraError):
                yield Row(where, where, image, id=where, problem=data.message)
            else:
                yield _checked(data, where, Path.cwd())


def jsonl(path: Path, options: ReaderOptions) -> Iterator[Row]:
    """Read our own records."""
    if path.suffix != ".jsonl" or path.is_dir() or not path.exists():
        yield from map(_from_record, records.read(path))
        return
    for where, data, problem in text_files.objects(path, options.encoding):
        yield Row(where, where, id=where, problem=problem) if problem else _checked(data, where, path.parent)


def _checked(data: dict[str, Any], where: str, folder: Path) -> Row:
    try:
        return _from_record(records.make_record(data, where, folder))
    except CapivaraError as error:
        return Row(where, where, id=where, problem=error.message.removeprefix(f"{where}: "))


def _from_record(record: records.Record) -> Row:
    extra = {key: value for key, value in record.data.items() if key not in ("image", "file_name", "captions", "id")}
    image = record.data.get("image") or record.data["file_name"]
    if not os.path.isabs(image):
        image = str(record.image._replace(path=os.path.relpath(record.image.path)))
    return Row(record.where, record.id, image, tuple(record.captions), record.id, extra)


def row_of(where: str, key: str, image: str, data: dict[str, Any]) -> Row:
    """Return a row with the keys of a record, or with the problem that they have."""
    captions = data.get("captions", [])
    if (problem := problem_of(captions)) is not None:
        return Row(where, key, image, problem=problem)
    extra = {name: value for name, value in data.items() if name not in ("id", "image", "captions")}
    id_ = data.get("id")
    return Row(where, key, image, tuple(captions), str(id_) if id_ not in (None, "") else None, extra)
