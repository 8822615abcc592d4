"""What stands beside an image in a shard or a folder: `.json`, `.txt`, `.cls`; in whose form it may be.

The `.json` may be one of our records, img2dataset's (`caption`, `url`, `status`), or one of the published CAPIVARA
shards (`captions-pt`, `generated-captions-hi`, `similarities-pt`).
"""

from __future__ import annotations

import json
import re
from typing import Any

from capivara_cli.errors import CapivaraError

EXTENSIONS = ("json", "txt", "cls")
MOST_BYTES = 64 << 20  # of one of them
_CAPTIONS = re.compile(r"(generated-)?captions-([A-Za-z]{2,3}(?:-[A-Za-z0-9]+)*)")


def read(parts: dict[str, bytes], where: str, lang: str = "en", encoding: str | None = None) -> dict[str, Any]:
    """The keys of a record, without `image`.

    Args:
        parts: extension -> content.
        where: of the sample, for messages.
        lang: language of captions that do not say theirs.
        encoding: of `.txt` and `.cls`; None is UTF-8.

    Raises:
        CapivaraError: a `.json` that is none, or is none of an object; text in another encoding.
    """
    data: dict[str, Any] = {}
    large = next((name for name, content in parts.items() if len(content) > MOST_BYTES), None)
    if large is not None:
        raise CapivaraError(f"{where}.{large}: more than {MOST_BYTES >> 20} MB")
    if "json" in parts:
        try:
            found = json.loads(parts["json"])
        except (ValueError, RecursionError) as error:
            raise CapivaraError(f"{where}.json: not JSON: {error}") from error
        if not isinstance(found, dict):
            raise CapivaraError(f"{where}.json: a {type(found).__name__}, not an object")
        data = from_json(found, lang)
    if "txt" in parts and not data.get("captions"):
        text = _text(parts, "txt", where, encoding)
        data["captions"] = [{"text": text, "lang": lang}] if text else []
    if "cls" in parts and "label" not in data:
        data["label"] = _text(parts, "cls", where, encoding)
    return data


def _text(parts: dict[str, bytes], extension: str, where: str, encoding: str | None) -> str:
    try:
        return parts[extension].decode(encoding or "utf-8-sig").strip()
    except UnicodeError as error:
        raise CapivaraError(f"{where}.{extension}: not {encoding or 'UTF-8'}", "--encoding latin-1") from error


def from_json(found: dict[str, Any], lang: str) -> dict[str, Any]:
    """The keys of a record from those of any of the forms; what is not known is kept as it came."""
    captions = found.get("captions")
    if isinstance(captions, list) and all(isinstance(each, dict) for each in captions):
        return dict(found)  # our own
    if any(_CAPTIONS.fullmatch(key) for key in found):
        return _capivara(found)
    caption = found.get("caption")
    if isinstance(caption, str) and "captions" not in found:
        rest = {key: value for key, value in found.items() if key != "caption"}
        return rest | {"captions": [{"text": caption, "lang": lang}] if caption.strip() else []}
    return dict(found)


def _capivara(found: dict[str, Any]) -> dict[str, Any]:
    """The published shards' lists by language.

    Their scoring script made one list of human and generated captions, in place, before it wrote `similarities-…`; so
    the first may hold both. Of lists in two languages that are as long, or one a multiple of the other, the English
    one is what the other was translated from.
    """
    lists: dict[tuple[str, bool], list[str]] = {}
    for key, value in found.items():
        match = _CAPTIONS.fullmatch(key)
        if match and isinstance(value, list) and all(isinstance(text, str) for text in value):
            lists[match[2], match[1] is not None] = value
    for (lang, generated), texts in list(lists.items()):
        made = lists.get((lang, True), [])
        if not generated and made and texts[-len(made) :] == made:
            lists[lang, False] = texts[: -len(made)]
    captions: list[dict[str, Any]] = []
    start: dict[tuple[str, bool], int] = {}
    for lang, generated in sorted(lists, key=lambda key: (key[0] != "en", key[0], key[1])):
        texts = lists[lang, generated]
        start[lang, generated] = len(captions)
        english = lists.get(("en", generated), []) if lang != "en" else []
        times = len(texts) // len(english) if english and len(texts) % len(english) == 0 else 0
        for i, text in enumerate(texts):
            source = {"parent": start["en", generated] + i // times} if times else {}
            name = "translation" if times else "generated" if generated else "human"
            captions.append({"text": text, "lang": lang, "source": name, **source})
    used = {f"{'generated-' if generated else ''}captions-{lang}" for lang, generated in lists}
    for lang in {lang for lang, _ in lists}:
        own = [caption for caption in captions if caption["lang"] == lang]
        scores = found.get(f"similarities-{lang}")
        if isinstance(scores, list) and len(scores) == len(own) and all(isinstance(s, int | float) for s in scores):
            used.add(f"similarities-{lang}")
            for caption, score in zip(own, scores, strict=True):
                caption["score"] = score
    return {key: value for key, value in found.items() if key not in used} | {"captions": captions}
