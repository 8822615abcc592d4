"""Languages: their BCP-47 codes, their scripts, and what each translation backend calls them.

The table is configs/languages.tsv. Its codes for googletrans, NLLB (FLORES-200) and M2M100 are those of the libraries.
When a MADLAD or Marian model is loaded, the code is checked against the model's tokenizer.
"""

from __future__ import annotations

import csv
import importlib.resources
from dataclasses import dataclass
from functools import lru_cache

from capivara_cli.errors import CapivaraError, nearest

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


def find(code: str) -> Language | None:
    """Find the language of a BCP-47 code. A variant without its own row, such as `pt-BR`, is its language, `pt`."""
    parts = code.lower().replace("_", "-").split("-")
    for length in range(len(parts), 0, -1):
        prefix = "-".join(parts[:length])
        if language := table().get(_ALIASES.get(prefix, prefix)):
            return language
    return None


def code_for(code: str, backend: str) -> str:
    """Return a backend's code for a language.

    Raises CapivaraError if the language is not known, or not to this backend; the message names backends that know it.
    """
    language = find(code)
    if language is None:
        raise CapivaraError(
            f"the language {code} is not known{nearest(code.lower(), list(table()))}", "capivara translate --languages"
        )
    if backend not in language.codes:
        others = ", ".join(language.codes) or "none"
        raise CapivaraError(
            f"{backend} does not know {language.name} ({code}); backends that do: {others}",
            "--backend, or capivara translate --languages",
        )
    return language.codes[backend]
