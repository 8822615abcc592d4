"""What cannot be a translation is not recorded as one, whatever made it.

The checks look at form alone and are generous: each must let pass what a person would write.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from functools import lru_cache

import regex

from capivara_cli.data.languages import Language

SHARE_OF_SCRIPT = 0.5  # of a text's letters; names and units stay in their own script
NAMES = 3  # words: `New York City` is the same in Portuguese, a longer text is not
LONGER = 4.0  # times, and some letters more
SHORTER = 8.0  # times; Chinese takes a quarter of English
REPEATS = 4  # of one token in a row

_PLACEHOLDER = re.compile(r"\{[^{}\s]*\}")
_STUTTER = re.compile(r"(.{1,12}?)\1{5,}")  # for scripts without spaces
_LETTER = regex.compile(r"\p{L}")
_WORD = regex.compile(r"[\p{L}\p{M}\p{N}]+")


def problem(source: str, text: str, origin: Language, target: Language) -> str | None:
    """Why the text cannot be the translation of the source; None when it can.

    Args:
        source: what was translated.
        text: what came back.
        origin, target: the languages.
    """
    if not text.strip():
        return "empty"
    if "\ufffd" in text or any(ord(c) < 32 and c not in "\t\n" for c in text):
        return "broken characters"
    if placeholders(text) != placeholders(source):
        return f"placeholders are not those of the source: {text}"
    return (
        _echo(source, text, origin, target)
        or _wrong_script(source, text, target)
        or _wrong_length(source, text)
        or _repeated(source, text)
    )


def placeholders(text: str) -> Counter[str]:
    """`{}` and `{c}`, and how often."""
    return Counter(_PLACEHOLDER.findall(text))


def hide(text: str) -> str:
    """Placeholders as numbers that occur nowhere else: `{c}` -> `70001`."""
    numbers = itertools.count(70001)
    return _PLACEHOLDER.sub(lambda _: str(next(numbers)), text)


def unhide(text: str, result: str) -> str:
    """The placeholders of the text, put back into what was made of it hidden."""
    for number, placeholder in enumerate(_PLACEHOLDER.findall(text), start=70001):
        result = result.replace(str(number), placeholder)
    return result


def _words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(_PLACEHOLDER.sub(" ", text))]


def _echo(source: str, text: str, origin: Language, target: Language) -> str | None:
    words = _words(source)
    if origin.code == target.code or _words(text) != words or not _LETTER.search(source):
        return None
    if len(words) > NAMES:
        return "not translated: it is the source"
    return None


def _wrong_script(source: str, text: str, target: Language) -> str | None:
    text = _PLACEHOLDER.sub("", text)
    names = {word for word in _WORD.findall(source) if word.lower() != word}  # iPhone, BMW: they stay as they are
    letters = _LETTER.findall(" ".join(word for word in _WORD.findall(text) if word not in names))
    letters = letters or _LETTER.findall(text)
    if not letters:  # digits and signs alone, where the source has letters
        return "no letters" if _LETTER.search(_PLACEHOLDER.sub("", source)) else None
    share = len(_in_script(target.scripts).findall("".join(letters))) / len(letters)
    return f"{share:.0%} of its letters are of {target.name}'s script" if share < SHARE_OF_SCRIPT else None


def _wrong_length(source: str, text: str) -> str | None:
    if len(text) > LONGER * len(source) + 20:
        return f"{len(text)} characters for {len(source)}"
    if len(source) >= 3 * SHORTER and len(text) * SHORTER < len(source):
        return f"{len(text)} characters for {len(source)}"
    return None


def _repeated(source: str, text: str) -> str | None:
    if _runs(text) >= REPEATS > _runs(source):
        return "one word again and again"
    return "one sound again and again" if _STUTTER.search(text) and not _STUTTER.search(source) else None


def _runs(text: str) -> int:
    """The most times that a word, or two or three words, come in a row."""
    words = _words(text)
    most = 0
    for length in (1, 2, 3):
        run = 1
        for i in range(length, len(words) - length + 1, 1 if length == 1 else length):
            run = run + 1 if words[i : i + length] == words[i - length : i] else 1
            most = max(most, run)
    return most


@lru_cache
def _in_script(scripts: tuple[str, ...]) -> regex.Pattern[str]:
    return regex.compile("[" + "".join(rf"\p{{Script={script}}}" for script in scripts) + "]")
