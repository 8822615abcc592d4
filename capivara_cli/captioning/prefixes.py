"""Prefixes: the words that captions begin with."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

from capivara_cli.errors import CapivaraError
from capivara_cli.yaml_files import parse_yaml

NO_PREFIXES_HINT = "--prefixes none uses no prefixes"


def read_prefixes(file: str | Path | None, lang: str) -> tuple[str, ...]:
    """Read the prefixes in a YAML list or a text file. Blank lines and repeated prefixes are dropped.

    Args:
        file: a path; None for the built-in prefixes; the word `none` for one empty prefix.
        lang: language of the built-in prefixes; used only if `file` is None.

    Raises:
        CapivaraError: the file is not a list of texts, or there are no built-in prefixes in the language.
    """
    if str(file) == "none":
        return ("",)
    text, name = _packaged(lang) if file is None else (_content(Path(file)), str(file))
    lines = text.splitlines() if name.endswith(".txt") else parse_yaml(text, f"{name} is not YAML")
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise CapivaraError(f"{name}: not a list of texts", "one per line in a .txt, or a YAML list: - a photo of")
    # Runs of spaces become one, as in the captions (`caption._new_captions`).
    prefixes = dict.fromkeys(" ".join(line.split()) for line in lines if line.strip())
    if not prefixes:
        raise CapivaraError(f"{name}: no prefixes in it", NO_PREFIXES_HINT)
    return tuple(prefixes)


def _packaged(lang: str) -> tuple[str, str]:
    """Return the content of the file of built-in prefixes, and its name."""
    file = importlib.resources.files("capivara_cli.configs") / "prefixes" / f"{lang}.yaml"
    # `lang` is what the user typed: it must not name a file outside the folder.
    if "/" in lang or not file.is_file():
        raise CapivaraError(f"no prefixes for {lang} come with capivara", "--prefixes FILE, or --prefixes none")
    return file.read_text(encoding="utf-8"), file.name


def _content(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise CapivaraError(f"cannot read {file}: {reason}", NO_PREFIXES_HINT) from error
