"""The beginning of a source, by which its format is recognised."""

from __future__ import annotations

import itertools
from functools import cached_property
from pathlib import Path

from capivara_cli.data.readers import text_files

MAX_NAMES = 10_000  # names of a folder that are looked at


class SourceStart:
    """A source; each part of it is read once, when the first format asks for it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def names(self) -> frozenset[str]:
        """Names of the files and folders in a folder; of a file none."""
        entries = self.path.iterdir() if self.path.is_dir() else iter(())
        return frozenset(entry.name for entry in itertools.islice(entries, MAX_NAMES))

    @cached_property
    def text(self) -> str:
        """The first characters of a file; of a folder none."""
        return text_files.beginning(self.path) if self.path.is_file() else ""

    @cached_property
    def header(self) -> list[str]:
        """The fields of the first row, if the file is a table."""
        return [name.strip() for name in text_files.first_row(self.text)]

    def has(self, ending: str) -> bool:
        """Return whether the file's name ends so; or that of a file in the folder, or one folder deeper."""
        if not self.path.is_dir():
            return self.path.name.endswith(ending)
        return any(name.endswith(ending) for name in self.names) or any(self.path.glob(f"*/*{ending}"))
