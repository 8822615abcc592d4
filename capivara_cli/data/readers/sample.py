"""The beginning of a source, by which its format is recognised."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from capivara_cli.data.readers import text_files

MOST_NAMES = 10_000  # of a folder that are looked at


@dataclass(frozen=True)
class Sample:
    """A source; each part of it is read once, when the first format asks for it."""

    path: Path

    @cached_property
    def is_folder(self) -> bool:
        """Whether the source is a folder."""
        return self.path.is_dir()

    @cached_property
    def names(self) -> frozenset[str]:
        """Names of the files and folders in a folder; of a file none."""
        entries = self.path.iterdir() if self.is_folder else iter(())
        return frozenset(entry.name for entry in itertools.islice(entries, MOST_NAMES))

    @cached_property
    def text(self) -> str:
        """The first characters of a file; of a folder none."""
        return text_files.beginning(self.path) if self.path.is_file() else ""

    @cached_property
    def header(self) -> list[str]:
        """The fields of the first row, if the file is a table."""
        return [name.strip() for name in text_files.first_row(self.text)]

    def has(self, ending: str) -> bool:
        """Return whether the file ends so, or one in the folder or one folder deeper."""
        if not self.is_folder:
            return self.path.name.endswith(ending)
        return any(name.endswith(ending) for name in self.names) or any(self.path.glob(f"*/*{ending}"))
