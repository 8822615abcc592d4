"""Files beside an image: `.json`, `.txt`, `.cls`.

The `.json` may be one of our records, img2dataset's (`caption`, `url`, `status`), or one of the published CAPIVARA
shards (`captions-pt`, `generated-captions-hi`, `similarities-pt`).
"""

from __future__ import annotations

import json
import re
from typing import Any

from capivara_cli.data.captions import Caption
from capivara_cli.errors import CapivaraError, explained

EXTENSIONS = ("json", "txt", "cls")
MAX_BYTES = 64 << 20  # of one of them
_CAPTIONS = re.compile(r"(generated-)?captions-([A-Za-z]{2,3}(?:-[A-Za-z0-9]+)*)")


def read(parts: dict[str, bytes], where: str, lang: str = "en", encoding: str | None = None) -> dict[str, Any]:
    """Return the keys of a record, without `image`.

    Args:
        parts: extension -> content.
        where: name of the sample, for messages.
        lang: language of captions that do not say theirs.
        encoding: of `.txt` and `.cls`; None is UTF-8.

    Raises:
        CapivaraError: a `.json` that is not JSON, or not an object; text in another encoding.
    """
    data: dict[str, Any] = {}
    for extension, content in parts.items():
        if len(content) > MAX_BYTES:
            raise CapivaraError(f"{where}.{extension}: more than {MAX_BYTES >> 20} MB")
    if "json" in parts:
        with explained(f"{where}.json: not JSON", (ValueError, RecursionError)):
            value = json.loads(parts["json"])
        if not isinstance(value, dict):
            raise CapivaraError(f"{where}.json: a {type(value).__name__}, not an object")
        data = from_json(value, lang)
    if "txt" in parts and not data.get("captions"):
        data["captions"] = _captions(_text(parts, "txt", where, encoding), lang)
    if "cls" in parts and "label" not in data:
        data["label"] = _text(parts, "cls", where, encoding)
    return data


def _text(parts: dict[str, bytes], extension: str, where: str, encoding: str | None) -> str:
    try:
        return parts[extension].decode(encoding or "utf-8-sig").strip()
    except UnicodeError as error:  # which byte it is says nothing to a person
        raise CapivaraError(f"{where}.{extension}: not {encoding or 'UTF-8'}", "--encoding latin-1") from error


def _captions(text: str, lang: str) -> list[Caption]:
    return [{"text": text, "lang": lang}] if text.strip() else []


def from_json(data: dict[str, Any], lang: str) -> dict[str, Any]:
    """Convert any of the forms to the keys of a record; keep unknown keys."""
    captions = data.get("captions")
    if isinstance(captions, list) and all(isinstance(caption, dict) for caption in captions):
        return dict(data)  # our own form
    if any(map(_CAPTIONS.fullmatch, data)):
        return _from_published(data)
    caption = data.get("caption")
    if not isinstance(caption, str) or "captions" in data:
        return dict(data)
    return {key: value for key, value in data.items() if key != "caption"} | {"captions": _captions(caption, lang)}


def _from_published(data: dict[str, Any]) -> dict[str, Any]:
    """Convert the caption lists of the published shards.

    Their scoring script appended the generated captions to the list of human ones before it wrote `similarities-…`; so
    that list may hold both. If a list is as long as the English one, or a multiple of it, the English captions are what
    its captions were translated from.
    """
    rest = dict(data)
    lists: dict[tuple[str, bool], list[str]] = {}  # language, whether they were generated -> texts
    for key, value in data.items():
        match = _CAPTIONS.fullmatch(key)
        if match and isinstance(value, list) and all(isinstance(text, str) for text in value):
            lists[match[2], match[1] is not None] = rest.pop(key)
    for (lang, generated), texts in list(lists.items()):
        made = lists.get((lang, True))
        if not generated and made and texts[-len(made) :] == made:
            lists[lang, False] = texts[: -len(made)]
    captions: list[Caption] = []
    starts: dict[bool, int] = {}  # whether they were generated -> index of the first English caption
    for lang, generated in sorted(lists, key=lambda key: (key[0] != "en", *key)):
        texts = lists[lang, generated]
        if lang == "en":
            starts[generated] = len(captions)
        english = lists.get(("en", generated), []) if lang != "en" else []
        per_original = len(texts) // len(english) if english and len(texts) % len(english) == 0 else 0
        for i, text in enumerate(texts):
            caption: Caption = {"text": text, "lang": lang, "source": "generated" if generated else "human"}
            if per_original:
                caption |= {"source": "translation", "parent": starts[generated] + i // per_original}
            captions.append(caption)
    for lang in {lang for lang, _ in lists}:
        scored = [caption for caption in captions if caption["lang"] == lang]
        scores = data.get(f"similarities-{lang}")
        if isinstance(scores, list) and len(scores) == len(scored) and all(isinstance(s, int | float) for s in scores):
            del rest[f"similarities-{lang}"]
            for caption, score in zip(scored, scores, strict=True):
                caption["score"] = score
    return rest | {"captions": captions}
