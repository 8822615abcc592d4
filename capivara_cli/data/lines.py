"""Lines of a text file, none of which can fill the memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TextIO

from capivara_cli.errors import CapivaraError

MAX_LINE = 16 << 20  # characters


def bounded(file: TextIO, name: str) -> Iterator[str]:
    """Yield lines with their ends. Raises CapivaraError for a longer one than MAX_LINE, before the rest of it is read.

    Args:
        name: of the file, for the message.
    """
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise CapivaraError(
                f"{name}:{number}: a line of more than {MAX_LINE >> 20} MiB", "is it a file of lines? see docs/data.md"
            )
        yield line
