"""Images with labels, from any source that `import` reads, and what cannot be used of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capivara_cli.data.images import ImageRef, Rejected
from capivara_cli.data.readers import formats
from capivara_cli.data.readers.rows import Options
from capivara_cli.errors import CapivaraError


@dataclass(frozen=True)
class Labelled:
    """An image and the classes that it has, as the data call them."""

    id: str
    image: ImageRef
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Data:
    """What was read.

    Attributes:
        items: the images that have labels.
        rejected: what else there was, with the reason.
        several: whether images may have several labels, or none: the data have lists that are not of one.
        folders: names of class folders that hold no image.
    """

    items: list[Labelled]
    rejected: list[Rejected]
    several: bool
    folders: tuple[str, ...] = ()


def read(sources: Sequence[str], options: Options) -> Data:
    """Images with labels. Raises CapivaraError when there is none, or for an option that a source has no use for."""
    items: list[Labelled] = []
    rejected: list[Rejected] = []
    lists = several = False
    folders: list[str] = []
    for source in sources:
        form = formats.choose([source], None, options) if source != "-" else "jsonl"
        formats.FORMATS[form].refuse(form, {"images": options.images, "split": options.split})
        for row in formats.rows(source, form, options):
            given = row.extra.get("label")
            given = row.extra.get("labels") if given in (None, "") else given
            labels, problem = _labels(given)
            if row.problem or problem or row.image is None:
                rejected.append(Rejected(row.image or row.where, row.problem or problem or "no image"))
                continue
            lists = lists or isinstance(given, list)
            several = several or len(labels) != 1
            items.append(Labelled(row.id or row.key, ImageRef.parse(row.image, Path.cwd()), labels))
        folders += _empty(Path(source), options) if form == "folder" else []
    if not any(item.labels for item in items):
        first = f"; the first: {rejected[0].image}: {rejected[0].reason}" if rejected else ""
        what = f"no image has a `label`{first}" if items or rejected else "no images in it"
        raise CapivaraError(f"{' '.join(sources)}: {what}", "folders of classes, or label in JSONL, .cls, a column")
    return Data(items, rejected, several, tuple(folders))


def _labels(given: Any) -> tuple[tuple[str, ...], str | None]:
    """The labels as texts, or why they are none. A list may be empty: an image of no class."""
    if given in (None, "") and not isinstance(given, list):
        return (), "no label"
    labels = []
    for label in given if isinstance(given, list) else [given]:
        if isinstance(label, float) and label.is_integer():  # as pandas writes numbers of a column with gaps
            label = int(label)
        text = str(label).strip() if isinstance(label, str | int) and not isinstance(label, bool) else ""
        if not text:
            return (), f"{str(label)[:40]!r} is no label"
        labels.append(text)
    return tuple(dict.fromkeys(labels)), None


def _empty(folder: Path, options: Options) -> Iterator[str]:
    """Class folders without anything in them."""
    folder = folder / options.split if options.split else folder
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.is_symlink() and not any(entry.iterdir()):
            yield entry.name
