"""What the user sees. Data goes to standard output; messages, progress and tables go to standard error."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


_live: list[Console] = []  # the console of the progress bar on the screen: messages are printed above the bar


def console() -> Console:
    """Return the console on standard error, which prints text as it is; silent on every rank but the first."""
    from rich.console import Console

    if _live:
        return _live[-1]
    # Not cached: sys.stderr may have been replaced since the last call, and a new one costs nothing.
    return Console(stderr=True, highlight=False, markup=False, emoji=False, quiet=not _is_main())


def _is_main() -> bool:
    return os.environ.get("RANK", "0") == "0"


def answer(text: str) -> None:
    """Print a result to standard output, on the first rank only."""
    if _is_main():
        # A lone surrogate, of a file name that is not UTF-8, cannot be printed; in JSON, its escape means the same.
        print(text.encode("utf-8", "backslashreplace").decode(), flush=True)


def say(text: str, style: str | None = None) -> None:
    """Print a message."""
    console().print(clean(text), style=style, soft_wrap=True)


def warn(text: str) -> None:
    """Print a warning."""
    say(f"warning: {text}", style="yellow")


def clean(text: str) -> str:
    """Escape control characters: a file name or a caption must not control the terminal.

    A line break is escaped too, unless it is one of our own: those stand before lines that are indented.
    """
    return "".join(
        c if c.isprintable() or (c == "\n" and text.startswith("  ", i + 1)) else repr(c)[1:-1]
        for i, c in enumerate(text)
    )


def counted(number: int, noun: str) -> str:
    """Return `1 image`, `2,000 images`."""
    return f"{number:,} {noun if number == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """Return `images` for `image`, `classes` for `class`."""
    return f"{noun}es" if noun.endswith("s") else f"{noun}s"


def table(*header: str | tuple[str, ...], text_columns: int = 1, title: str = "", caption: str = "") -> Table:
    """Make an empty table for `show`, with a rule below the header if it has one. Its rows are added by `add_row`.

    Args:
        header: names of the columns; a tuple is the lines of one.
        text_columns: how many columns, the first ones, hold text; the others hold numbers and are right-aligned.
        title: a line above the table.
        caption: a line below the table.
    """
    from rich import box
    from rich.table import Table

    result = Table(
        title=clean(title) or None,
        caption=caption or None,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD if header else None,
        show_header=bool(header),
        padding=(0, 1) if header else (0, 2, 0, 0),
        collapse_padding=True,  # to fit into 80 columns
    )
    for index, name in enumerate(header):
        result.add_column(
            "\n".join(map(clean, (name,) if isinstance(name, str) else name)),
            no_wrap=index >= text_columns,
            justify="left" if index < text_columns else "right",
        )
    return result


def fits(table: Table) -> bool:
    """Return whether a table can be shown without cutting or wrapping a cell."""
    screen = console()
    # Drawn and not measured: rich's measure does not know that the padding between columns is collapsed.
    lines = screen.render_lines(table, screen.options.update(width=10_000), pad=False)
    return max(sum(segment.cell_length for segment in line) for line in lines) <= screen.width


def show(table: Table) -> None:
    """Print a table."""
    console().print(table)


@contextmanager
def live(screen: Console) -> Iterator[None]:
    """Print messages above what this console keeps on the screen, a progress bar."""
    _live.append(screen)
    try:
        yield
    finally:
        _live.remove(screen)
