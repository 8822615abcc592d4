"""All records of some sources in memory, one per image: what training and evaluation draw from."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path

from capivara_cli import console
from capivara_cli.data import records
from capivara_cli.data.captions import Caption, with_keys
from capivara_cli.data.images import ImageRef
from capivara_cli.data.records import Record, repeated_id
from capivara_cli.errors import CapivaraError

MAX_SHARE = 0.1  # of all captions that one image may have without a warning
ENOUGH_IMAGES = 20  # of fewer, one may well have such a share


def read_all(sources: Iterable[str | Path]) -> list[Record]:
    """Read all records of several sources into memory, and merge those of one image; say how many were merged.

    Each image is in the list once, where it came first, so who draws records draws images: none is twice in a batch or
    among the candidates of a retrieval, and none is both trained on and held out. Two records are of one image if they
    name the same file, or the same member of the same shard. The first record is kept, with the captions that it did
    not have.

    Ids may repeat between sources, as the keys of shards do between data sets; within a source they may not.

    Raises CapivaraError for an id that is repeated within a source, and when there is no record.
    """
    sources = list(sources)
    by_image: dict[ImageRef, Record] = {}
    merged = 0
    for source in sources:
        first_of: dict[str, str] = {}  # id -> where it came first
        for record in records.read(source):
            if record.id in first_of:
                raise repeated_id(record, first_of[record.id])
            first_of[record.id] = record.where
            first = by_image.get(record.image)
            merged += first is not None
            by_image[record.image] = record if first is None else merge(first, record)
    if not by_image:
        raise CapivaraError(
            f"{' '.join(map(str, sources))}: no records in it", "each line is one image: see docs/data.md"
        )
    if merged:
        console.say(
            f"{console.counted(merged, 'record')} of an image that came before: merged into one record per image"
        )
    _warn_of_piled_captions(by_image.values())
    return list(by_image.values())


def _warn_of_piled_captions(images: Collection[Record]) -> None:
    """Warn where one image has a large share of all captions: mostly a wrong path, or a column that was mixed up."""
    most = max(images, key=lambda record: len(record.captions))
    total = sum(len(record.captions) for record in images)
    if len(images) >= ENOUGH_IMAGES and len(most.captions) > MAX_SHARE * total:
        console.warn(f"{most.where}: one image, {most.id}, has {len(most.captions):,} of {total:,} captions")


def merge(first: Record, other: Record) -> Record:
    """Return the first of two records of one image, with the captions that only the other one has."""
    captions: list[Caption] = list(first.captions)
    index_of = {(caption["text"], caption["lang"]): i for i, caption in enumerate(captions)}
    new_index: list[int] = []  # index of a caption of the other record -> its index in the merged one
    for caption in other.captions:
        new_index.append(index_of.setdefault((caption["text"], caption["lang"]), len(captions)))
        if new_index[-1] == len(captions):
            captions.append(caption)
    for i in range(len(first.captions), len(captions)):
        parent = captions[i].get("parent")
        if type(parent) is int and 0 <= parent < len(new_index):
            captions[i] = with_keys(captions[i], parent=new_index[parent])
    return replace(first, data={**first.data, "captions": captions})
