"""Read images with labels, from any source that `import` reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capivara_cli.data.images import ImageRef, Rejected
from capivara_cli.data.readers import formats
from capivara_cli.data.readers.options import ReaderOptions
from capivara_cli.errors import CapivaraError

_LABELS_COME_FROM = "labels come from class folders, `label` in JSONL, .cls files, or a column `label`"


@dataclass(frozen=True)
class LabelledImage:
    """An image and its labels, as the data call its classes."""

    id: str
    image: ImageRef
    labels: tuple[str, ...]


@dataclass(frozen=True)
class LabelledData:
    """The images of a data set.

    Attributes:
        images: those that can be used.
        rejected: the others, with the reason.
        multilabel: whether some image has several labels, or an empty list of them.
        empty_folders: names of class folders without images.
    """

    images: list[LabelledImage]
    rejected: list[Rejected]
    multilabel: bool
    empty_folders: tuple[str, ...] = ()

    @property
    def labels(self) -> Iterator[str]:
        """The labels of all images, repeated as often as they occur."""
        return (label for image in self.images for label in image.labels)


def read(sources: Sequence[str], options: ReaderOptions) -> LabelledData:
    """Read images with labels.

    Raises CapivaraError when no image has a label, and for an option that the format of a source does not take.
    """
    items: list[LabelledImage] = []
    rejected: list[Rejected] = []
    empty_folders: list[str] = []
    for source in sources:
        form = formats.choose([source], options) if source != "-" else "jsonl"
        formats.check_options(form, formats.FORMATS[form], options, ("images", "split"))
        for row in formats.rows(source, form, options):
            value = row.extra.get("label")
            labels, problem = _labels(row.extra.get("labels") if value in (None, "") else value)
            if row.problem or problem or row.image is None:
                rejected.append(Rejected(row.image or row.where, row.problem or problem or "no image"))
            else:
                items.append(LabelledImage(row.id or row.key, ImageRef.parse(row.image, Path.cwd()), labels))
        if form == "folder":
            empty_folders += _empty_folders(Path(source), options)
    if not any(item.labels for item in items):
        first = f"; the first: {rejected[0].image}: {rejected[0].reason}" if rejected else ""
        problem = f"no image has a `label`{first}" if items or rejected else "no images in it"
        raise CapivaraError(f"{' '.join(sources)}: {problem}", _LABELS_COME_FROM)
    return LabelledData(items, rejected, any(len(item.labels) != 1 for item in items), tuple(empty_folders))


def _labels(value: Any) -> tuple[tuple[str, ...], str | None]:
    """Return the labels as texts, or why they cannot be used. A list may be empty: an image of no class."""
    if value in (None, ""):
        return (), "no label"
    labels = []
    for label in value if isinstance(value, list) else [value]:
        if isinstance(label, float) and label.is_integer():  # pandas writes 1.0 for 1 in a column with gaps
            label = int(label)
        text = str(label).strip() if isinstance(label, str | int) and not isinstance(label, bool) else ""
        if not text:
            return (), f"{str(label)[:40]!r} is not a label"
        labels.append(text)
    return tuple(dict.fromkeys(labels)), None


def _empty_folders(folder: Path, options: ReaderOptions) -> Iterator[str]:
    """Return the names of class folders that hold nothing."""
    folder = folder / options.split if options.split else folder
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.is_symlink() and not any(entry.iterdir()):
            yield entry.name
