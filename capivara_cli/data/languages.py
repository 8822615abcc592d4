"""Languages: their BCP-47 codes, their names and scripts, and what each translation backend calls them.

A language may be typed as a code in any spelling (`HI`, `pt_BR`), by three letters (`hin`), or by its name (`Hindi`);
options and records hold its code as BCP-47 writes it.

The table is configs/languages.tsv. Its codes for googletrans, NLLB (FLORES-200) and M2M100 are those of the libraries.
When a MADLAD or Marian model is loaded, the code is checked against the model's tokenizer.
"""

from __future__ import annotations

import csv
import importlib.resources
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

from capivara_cli import console
from capivara_cli.errors import CapivaraError, nearest
from capivara_cli.values import Syntax

LIST_HINT = "capivara translate --languages lists them"
BACKENDS = ("google", "nllb", "m2m100", "madlad", "marian")

# Writing systems (ISO 15924) that Unicode splits into several scripts.
_UNICODE_SCRIPTS = {
    "Jpan": ("Hira", "Kana", "Hani"),
    "Kore": ("Hang", "Hani"),
    "Hans": ("Hani",),
    "Hant": ("Hani",),
}
_ALIASES = {
    "zh-tw": "zh-hant",
    "zh-hk": "zh-hant",
    "zh-mo": "zh-hant",
    "zh-cn": "zh",
    "zh-hans": "zh",
    "no": "nb",
    "iw": "he",
    "jw": "jv",
    "fil": "tl",
    "in": "id",
    "ji": "yi",
    "mo": "ro",
}
# Names that the table has otherwise, and the codes of ISO 639-2 that come from English names.
_OTHER_SPELLINGS = {
    "norwegian": "no",
    "farsi": "fa",
    "mandarin": "zh",
    "ara": "ar",
    "chi": "zh",
    "cze": "cs",
    "dut": "nl",
    "fas": "fa",
    "fre": "fr",
    "ger": "de",
    "gre": "el",
    "per": "fa",
    "rum": "ro",
    "wel": "cy",
}


@dataclass(frozen=True)
class Language:
    """A row of the table.

    Attributes:
        code: BCP-47, without the script if it is the usual one.
        name: in English.
        script: ISO 15924.
        codes: backend -> its code; only backends that know the language.
    """

    code: str
    name: str
    script: str
    codes: dict[str, str]

    @property
    def scripts(self) -> tuple[str, ...]:
        """The Unicode scripts that the language is written in: three for Japanese."""
        return _UNICODE_SCRIPTS.get(self.script, (self.script,))


@lru_cache
def table() -> dict[str, Language]:
    """Return lower-cased code -> language, in the order of the codes."""
    path = importlib.resources.files("capivara_cli.configs") / "languages.tsv"
    languages = {}
    for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines(), delimiter="\t"):
        codes = {backend: row[backend] for backend in BACKENDS if row[backend]}
        languages[row["code"].lower()] = Language(row["code"], row["name"], row["script"], codes)
    return languages


@lru_cache
def find(code: str) -> Language | None:
    """Find the language of a BCP-47 code. A variant without its own row, such as `pt-BR`, is its language, `pt`."""
    parts = code.lower().replace("_", "-").split("-")
    for length in range(len(parts), 0, -1):
        prefix = "-".join(parts[:length])
        if language := table().get(_ALIASES.get(prefix, prefix)):
            return language
    return None


@lru_cache
def _spellings() -> dict[str, str]:
    """Return name or code of three letters -> code of the table."""
    spellings = _OTHER_SPELLINGS | {_folded(language.name): language.code for language in table().values()}
    # NLLB has ISO 639-3, of the variety where a language has several (pes for fa), Marian mostly of the whole.
    for backend in ("nllb", "marian"):
        for language in sorted(table().values(), key=lambda language: len(language.code)):  # fas is fa, not fa-AF
            code = language.codes.get(backend, "").partition("_")[0]
            if len(code) == 3 and code not in table():
                spellings.setdefault(code, language.code)
    return spellings


def _folded(name: str) -> str:
    """Return the name in lower case, without accents: `Māori` -> `maori`."""
    return "".join(c for c in unicodedata.normalize("NFD", name.lower()) if not unicodedata.combining(c))


@lru_cache(1 << 16)  # records are read with it, caption by caption
def bcp47(text: str) -> str:
    """Return the language's code as BCP-47 writes it: `HI` -> `hi`, `pt_br` -> `pt-BR`, `Hindi` and `hin` -> `hi`.

    What is no language that we know stays as it is: records may have codes of their own.
    """
    first, *rest = text.strip().lower().replace("_", "-").split("-")
    is_code = first in table() or first in _ALIASES  # Irish has the code ga, and another language the name Ga
    if (not is_code or rest) and (code := _spellings().get(_folded(text.strip()))):
        return code
    long = first
    if not is_code:
        first = _spellings().get(first, first)
    language = find(first)
    if language is None or not all(re.fullmatch("[a-z0-9]{2,8}", part) for part in rest):
        return text
    if long != first and rest[:1] == [language.script.lower()]:
        rest = rest[1:]  # NLLB's hin_Deva: the usual script is not named
    sizes = {2: str.upper, 4: str.title}  # a region and a script; the others are in lower case
    return "-".join([first, *(sizes.get(len(part), str.lower)(part) for part in rest)])


def variant(lang: str, counts: Mapping[str, int]) -> str | None:
    """Return the most frequent language that can stand for another one: `pt-BR` for `pt`. None if there is none."""
    language = find(lang)
    alike = [code for code in counts if counts[code] and language is not None and find(code) == language]
    return max(alike, key=lambda code: counts[code], default=None) if language and lang == language.code else None


@lru_cache  # each interpretation is said once
def read_lang(text: str) -> str:
    """Return the code of a language that was typed, and say how it was understood if it is not a code."""
    code = bcp47(text)
    language = find(code)
    if code != text and language is not None:
        console.say(f"language {text}: {code} ({language.name})")
    return code


def _parse_one(value: Any) -> Any:
    return read_lang(value.strip()) if isinstance(value, str) and value.strip() else value


def _parse_many(value: Any) -> tuple[str, ...]:
    """`["hi,xh", "pt"]` -> `("hi", "xh", "pt")`; a language that comes twice is named once."""
    parts = [value] if isinstance(value, str) else value or []
    codes = [read_lang(code.strip()) for part in parts for code in part.split(",") if code.strip()]
    if parts and not codes:
        raise ValueError("no language in it")
    return tuple(dict.fromkeys(codes))


Lang = Annotated[str, Syntax(_parse_one, noun="language")]
"""A language: `--from pt`."""

LangOrNone = Annotated[str | None, Syntax(_parse_one, noun="language")]
"""A language, or none."""

Langs = Annotated[Sequence[str], Syntax(_parse_many, many=True, noun="language")]
"""Languages: `--lang hi,xh --lang pt`."""


def suggestion(text: str) -> str:
    """Return what may have been meant instead of a language that is not known, as the end of a message."""
    names = {_folded(language.name): language.name for language in table().values()}
    close = nearest(text.lower(), [*table(), *names])
    return close if len(text) > 3 else ""


def known(code: str) -> Language:
    """Return the language of a code. Raises CapivaraError if it is not known."""
    language = find(code)
    if language is None:
        raise CapivaraError(f"the language {code} is not known{suggestion(code)}", LIST_HINT)
    return language


def code_for(code: str, backend: str) -> str:
    """Return a backend's code for a language.

    Raises CapivaraError if the language is not known, or not to this backend; the message names backends that know it.
    """
    language = known(code)
    if backend not in language.codes:
        others = ", ".join(language.codes) or "none"
        raise CapivaraError(
            f"{backend} does not know {language.name} ({code}); backends that do: {others}",
            f"--backend {next(iter(language.codes))}" if language.codes else LIST_HINT,
        )
    return language.codes[backend]
