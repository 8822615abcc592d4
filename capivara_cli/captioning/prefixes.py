"""Prefixes: what captions begin with."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

from capivara_cli.errors import CapivaraError
from capivara_cli.yaml_files import parse_yaml

WITHOUT = "--prefixes none uses no prefixes"


def read_prefixes(file: str | Path | None, lang: str) -> tuple[str, ...]:
    """Read the prefixes in a YAML list or a text file.

    Args:
        file: None reads the recipe's prefixes, `none` returns one empty prefix.
        lang: of the recipe's prefixes.

    Raises:
        CapivaraError: the file is not such a list, or the recipe has none in the language.
    """
    if str(file) == "none":
        return ("",)
    text, name = _packaged(lang) if file is None else (_content(Path(file)), str(file))
    lines = text.splitlines() if name.endswith(".txt") else parse_yaml(text, f"{name} is not YAML")
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise CapivaraError(f"{name}: not a list of texts", "one per line in a .txt, or a YAML list: - a photo of")
    prefixes = dict.fromkeys(" ".join(line.split()) for line in lines if line.strip())
    if not prefixes:
        raise CapivaraError(f"{name}: no prefixes in it", WITHOUT)
    return tuple(prefixes)


def _packaged(lang: str) -> tuple[str, str]:
    """Return the text of the recipe's prefixes, and its file's name."""
    file = importlib.resources.files("capivara_cli.configs") / "prefixes" / f"{lang}.yaml"
    if "/" in lang or not file.is_file():
        raise CapivaraError(f"no prefixes for {lang} come with capivara", "--prefixes FILE, or --prefixes none")
    return file.read_text(encoding="utf-8"), file.name


def _content(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise CapivaraError(f"cannot read {file}: {reason}", WITHOUT) from error
