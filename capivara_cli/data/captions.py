"""Captions: what a record says of its image, in which language, and what was translated from what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict, TypeGuard, cast

REJECTED = "rejected"  # key of the reason why a record or a caption is rejected


class Caption(TypedDict):
    """A caption of a record; other keys are kept too.

    `lang` is BCP-47. `parent` is the index of the caption that it was translated from. `score` is the cosine of its
    and the image's CLIP embeddings. `rejected` is the reason why `score --keep-all` would drop it.
    """

    text: str
    lang: str
    source: NotRequired[str]
    prefix: NotRequired[str]
    parent: NotRequired[int]
    score: NotRequired[float]
    rejected: NotRequired[str]


def is_caption(value: object) -> TypeGuard[Caption]:
    """Return whether a value has a text and a language."""
    return isinstance(value, dict) and isinstance(value.get("text"), str) and isinstance(value.get("lang"), str)


def with_keys(caption: Caption, **keys: Any) -> Caption:
    """Return the caption with these keys added or replaced."""
    return cast("Caption", {**caption, **keys})


def lineage(captions: Sequence[Caption], i: int) -> list[int]:
    """Return the indices of a caption, of its parent, of the parent's parent, and so on."""
    indices = [i]
    while True:
        parent = captions[indices[-1]].get("parent")
        if type(parent) is not int or not 0 <= parent < len(captions) or parent in indices:
            return indices
        indices.append(parent)


def select(captions: Sequence[Caption], kept: Sequence[int]) -> list[Caption]:
    """Return the kept captions; `parent` is updated, or removed if the parent is not kept."""
    index = {old: new for new, old in enumerate(kept)}
    selected = []
    for i in kept:
        caption = with_keys(captions[i])
        parent = caption.pop("parent", None)
        if type(parent) is int and parent in index:
            caption["parent"] = index[parent]
        selected.append(caption)
    return selected
