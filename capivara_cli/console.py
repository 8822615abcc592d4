"""What a person sees. Data goes to standard output; everything here goes to standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress
    from rich.table import Table


_live: list[Console] = []  # the console of a progress bar that is on the screen: lines go above it


def console() -> Console:
    """The console on standard error; silent on every rank but the first."""
    from rich.console import Console

    # Made anew at each call: sys.stderr may have been replaced since the last one, and it costs nothing.
    return _live[-1] if _live else Console(stderr=True, highlight=False, quiet=not _is_main())


def answer(text: str) -> None:
    """What the command was asked for, a line on standard output; only the first rank's."""
    if _is_main():
        print(text, flush=True)


def _is_main() -> bool:
    return os.environ.get("RANK", "0") == "0"


def say(text: str, style: str | None = None) -> None:
    """One line for the person. The text is printed as it is: captions and paths are not markup."""
    console().print(clean(text), style=style, markup=False, soft_wrap=True)


def clean(text: str) -> str:
    """The text without control characters: a file's name or a caption must not steer the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def warn(text: str) -> None:
    """One line that the person should not miss."""
    say(f"warning: {text}", style="yellow")


def show(table: Table) -> None:
    """Print a table."""
    console().print(table)


@contextmanager
def progress(*columns: str) -> Iterator[Progress]:
    """A live progress bar with the standard columns and, after them, these fields of the task.

    A field `note` of a task is shown on a line of its own below the bar. In a pipe or a log file nothing is
    printed: a bar there is noise.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class WithNote(Progress):
        def get_renderables(self) -> Iterator[RenderableType]:
            yield self.make_tasks_table(self.tasks)
            for task in self.tasks:
                if text := task.fields.get("note"):
                    yield Text(f"  {clean(text)}", style="dim", overflow="ellipsis", no_wrap=True)

    screen = console()
    wide = screen.width >= 110  # in 80 columns the figures matter more than the bar
    bar = WithNote(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24 if wide else 4),
        MofNCompleteColumn(),
        *(TextColumn(f"{{task.fields[{column}]}}", style="cyan", markup=False) for column in columns),
        *([TimeElapsedColumn()] if wide else []),
        TextColumn("eta"),
        TimeRemainingColumn(),
        console=screen,
        disable=not screen.is_terminal,
        refresh_per_second=4,
        redirect_stdout=sys.stdout.isatty(),  # rich would put what is meant for a pipe on the screen
    )
    _live.append(screen)
    try:
        with bar if screen.is_terminal else nullcontext():  # even a disabled one ends with an empty line
            yield bar
    finally:
        _live.remove(screen)
