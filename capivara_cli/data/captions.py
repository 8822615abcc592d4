"""Captions of a record: text, language, and the caption that each was translated from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict, TypeGuard, cast

from capivara_cli.yaml_files import SURROGATE

MAX_LENGTH = 64 << 10  # characters of a caption; models read some hundreds
REJECTED = "rejected"  # key that holds the reason for rejecting a record or a caption


class Caption(TypedDict):
    """A caption of a record; other keys are kept too.

    `lang` is BCP-47. `source` names who or what wrote it (`human`, a model). `prefix` is the prefix that the captioner
    was given. `parent` is the index of the caption that it was translated from. `score` is the cosine similarity of the
    CLIP embeddings of caption and image. `rejected` is the reason why `score` would drop it; `--keep-all` writes it
    instead of dropping.
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


def problem_of(captions: object) -> str | None:
    """Return why a value cannot be the captions of a record; None if it can."""
    if not isinstance(captions, list | tuple) or not all(map(is_caption, captions)):
        return '`captions` is not a list of {"text": …, "lang": …}'
    for caption in captions:
        if len(caption["text"]) > MAX_LENGTH:
            return f"a caption of {len(caption['text']):,} characters: more than {MAX_LENGTH:,}"
        # JSON can write half of a character, "\ud83d"; UTF-8 cannot, nor can tokenizers and services read it.
        if any(not text.isascii() and SURROGATE.search(text) for text in (caption["text"], caption["lang"])):
            return f"a caption with half of a character (a lone surrogate): {caption['text'][:40]!r}"
    return None


def with_keys(caption: Caption, **keys: Any) -> Caption:
    """Return the caption with these keys added or replaced."""
    return cast("Caption", {**caption, **keys})


def lineage(captions: Sequence[Caption], i: int) -> list[int]:
    """Return the indices of a caption, of its parent, of the parent's parent, and so on.

    Stops at a parent that is missing, invalid or repeated.
    """
    indices = [i]
    while True:
        # `parent` comes from the user's file: it may be of any type, out of range, or lead in a circle. `type(…) is`,
        # because `True` is an int for isinstance.
        parent = captions[indices[-1]].get("parent")
        if type(parent) is not int or not 0 <= parent < len(captions) or parent in indices:
            return indices
        indices.append(parent)


def select(captions: Sequence[Caption], indices: Sequence[int]) -> list[Caption]:
    """Return the captions with these indices; `parent` is updated, or removed if the parent is not among them."""
    index = {old: new for new, old in enumerate(indices)}
    selected = []
    for i in indices:
        caption = captions[i].copy()
        parent = caption.pop("parent", None)
        if type(parent) is int and parent in index:
            caption["parent"] = index[parent]
        selected.append(caption)
    return selected
