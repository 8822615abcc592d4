"""Languages: their BCP-47 codes, their scripts, and what each translation backend calls them.

The table is configs/languages.tsv. Its codes for googletrans, NLLB (FLORES-200) and M2M100 are those in the libraries;
MADLAD and Marian models carry theirs in their tokenizers, where they are looked for once more.
"""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass
from functools import lru_cache

from capivara_cli.errors import CapivaraError, nearest

BACKENDS = ("google", "nllb", "m2m100", "madlad", "marian")

# Scripts (ISO 15924) that a writing system is made of, as Unicode names them; of any other, itself.
_PARTS = {
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
        code: BCP-47, without the script that is the usual one.
        script: ISO 15924.
        codes: backend -> its own code; a backend that does not know the language is not in it.
    """

    code: str
    name: str
    script: str
    codes: dict[str, str]

    @property
    def scripts(self) -> tuple[str, ...]:
        """The Unicode scripts that it is written in: three for Japanese."""
        return _PARTS.get(self.script, (self.script,))


@lru_cache
def table() -> dict[str, Language]:
    """Lower-cased code -> language, in the order of the codes."""
    text = (importlib.resources.files("capivara_cli.configs") / "languages.tsv").read_text(encoding="utf-8")
    rows = [line.split("\t") for line in text.splitlines()]
    head, rows = rows[0], rows[1:]
    result = {}
    for row in rows:
        values = dict(zip(head, row, strict=True))
        codes = {backend: values[backend] for backend in BACKENDS if values[backend]}
        result[values["code"].lower()] = Language(values["code"], values["name"], values["script"], codes)
    return result


def find(code: str) -> Language | None:
    """The language of a BCP-47 code; of `pt-BR` that of `pt`, as there is no row of its own."""
    parts = code.lower().replace("_", "-").split("-")
    for length in range(len(parts), 0, -1):
        part = "-".join(parts[:length])
        if language := table().get(_ALIASES.get(part, part)):
            return language
    return None


def code_for(code: str, backend: str) -> str:
    """What a backend calls the language.

    Raises CapivaraError when the language is not known, or not to this backend; it names those that know it.
    """
    language = find(code)
    if language is None:
        raise CapivaraError(
            f"the language {code} is not known{nearest(code.lower(), list(table()))}", "capivara translate --languages"
        )
    if backend not in language.codes:
        others = ", ".join(language.codes) or "none"
        raise CapivaraError(
            f"{backend} does not know {language.name} ({code}); those that do: {others}", "--backend, --languages"
        )
    return language.codes[backend]
