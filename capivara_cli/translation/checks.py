"""Detect texts that cannot be translations, whichever backend made them.

The checks look at form only and are generous: each must accept whatever a person would write.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from functools import lru_cache

import regex

from capivara_cli.data.languages import Language

MIN_SHARE_OF_SCRIPT = 0.5  # of a text's letters; names and units keep their own script
MAX_WORDS_OF_NAME = 3  # `New York City` is the same in Portuguese; a longer text is not
MAX_GROWTH = 4.0  # times the source's length, and 20 characters more
MAX_SHRINKAGE = 8.0  # times; Chinese needs a quarter of the characters of English
MIN_REPEATS = 4  # of the same word, or the same two or three words, in a row

SURROGATE = re.compile("[\ud800-\udfff]")  # half a UTF-16 pair, which no file can hold as UTF-8
_PLACEHOLDER = re.compile(r"\{[^{}\s]*\}")
_REPEATED_SOUND = re.compile(r"(.{1,12}?)\1{5,}")  # for scripts without spaces
_LETTER = regex.compile(r"\p{L}")
_WORD = regex.compile(r"[\p{L}\p{M}\p{N}]+")


def problem(source: str, text: str, origin: Language, target: Language) -> str | None:
    """Return why the text cannot be the translation of the source; None if it can.

    Args:
        source: the text that was translated.
        text: what the backend returned.
        origin: language of the source.
        target: language of the translation.
    """
    if not text.strip():
        return "empty"
    if "\ufffd" in text or SURROGATE.search(text) or any(ord(c) < 32 and c not in "\t\n" for c in text):
        return "broken characters"
    if placeholders(text) != placeholders(source):
        return f"placeholders are not those of the source: {text}"
    return (
        _untranslated(source, text, origin, target)
        or _wrong_script(source, text, target)
        or _wrong_length(source, text)
        or _repetitive(source, text)
    )


def placeholders(text: str) -> Counter[str]:
    """Count the placeholders: `{}` and `{c}`."""
    return Counter(_PLACEHOLDER.findall(text))


def hide(text: str) -> str:
    """Replace placeholders by numbers that are unlikely to occur otherwise: `{c}` -> `70001`."""
    numbers = itertools.count(70001)
    return _PLACEHOLDER.sub(lambda _: str(next(numbers)), text)


def unhide(text: str, translation: str) -> str:
    """Put the placeholders of the text back into the translation of the text with hidden placeholders."""
    for number, placeholder in enumerate(_PLACEHOLDER.findall(text), start=70001):
        translation = translation.replace(str(number), placeholder)
    return translation


def _words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(_PLACEHOLDER.sub(" ", text))]


def _untranslated(source: str, text: str, origin: Language, target: Language) -> str | None:
    words = _words(source)
    if origin.code == target.code or _words(text) != words or not _LETTER.search(source):
        return None
    return "not translated: it is the source" if len(words) > MAX_WORDS_OF_NAME else None


def _wrong_script(source: str, text: str, target: Language) -> str | None:
    text = _PLACEHOLDER.sub("", text)
    names = {word for word in _WORD.findall(source) if word.lower() != word}  # iPhone, BMW: not translated
    letters = _LETTER.findall(" ".join(word for word in _WORD.findall(text) if word not in names))
    letters = letters or _LETTER.findall(text)
    if not letters:  # only digits and signs, although the source has letters
        return "no letters" if _LETTER.search(_PLACEHOLDER.sub("", source)) else None
    share = len(_in_script(target.scripts).findall("".join(letters))) / len(letters)
    return f"{share:.0%} of its letters are of {target.name}'s script" if share < MIN_SHARE_OF_SCRIPT else None


def _wrong_length(source: str, text: str) -> str | None:
    too_long = len(text) > MAX_GROWTH * len(source) + 20
    too_short = len(source) >= 3 * MAX_SHRINKAGE and len(text) * MAX_SHRINKAGE < len(source)
    return f"{len(text)} characters for {len(source)}" if too_long or too_short else None


def _repetitive(source: str, text: str) -> str | None:
    if _longest_run(text) >= MIN_REPEATS > _longest_run(source):
        return "one word again and again"
    repeats_sound = _REPEATED_SOUND.search(text) and not _REPEATED_SOUND.search(source)
    return "one sound again and again" if repeats_sound else None


def _longest_run(text: str) -> int:
    """Return how often one word, or the same two or three words, are repeated in a row at most."""
    words = _words(text)
    longest = 0
    for length in (1, 2, 3):
        run = 1
        for i in range(length, len(words) - length + 1, length):
            run = run + 1 if words[i : i + length] == words[i - length : i] else 1
            longest = max(longest, run)
    return longest


@lru_cache
def _in_script(scripts: tuple[str, ...]) -> regex.Pattern[str]:
    return regex.compile("[" + "".join(rf"\p{{Script={script}}}" for script in scripts) + "]")
