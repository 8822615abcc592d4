"""Make docs/demo.svg, what a terminal shows after `capivara demo`: `make demo-picture`.

The spans of text are placed at their columns without `textLength`, which rich's own export writes: a browser that
stretches text to a width pulls Devanagari apart, letter by letter.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from html import escape
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.style import Style
from rich.text import Text

from capivara_cli.demo.demo import command_lines
from capivara_cli.demo.options import DemoOptions

if TYPE_CHECKING:
    from rich.segment import Segment

PICTURE = Path(__file__).parents[1] / "demo.svg"
COLUMNS = 110
TERMINAL = {"TTY_COMPATIBLE": "1", "TTY_INTERACTIVE": "0", "COLUMNS": str(COLUMNS), "TERM": "xterm"}
"""With these, rich writes to a pipe what a terminal shows in the end: colours, and each bar once, when it is full."""

CELL, LINE, SIZE, MARGIN = 8.43, 19, 14, 14  # pixels: width of a column, height of a line, size of a letter
PAPER, BORDER, INK = "#ffffff", "#d0d7de", "#24292f"  # its own background: reads the same on a dark page
INKS = {0: INK, 1: "#cf222e", 2: "#116329", 3: "#9a6700", 4: "#0969da", 5: "#8250df", 6: "#1b7c83", 7: "#6e7781"}


def main() -> None:
    """Run the demo in an empty folder with an empty cache, and write the picture."""
    with tempfile.TemporaryDirectory() as folder:
        line = [sys.executable, "-m", "capivara_cli", "demo", "capivara-demo"]
        environment = {**os.environ, **TERMINAL, "XDG_CACHE_HOME": f"{folder}/cache"}
        run = subprocess.run(line, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True, check=True)  # noqa: S603 our own command
    PICTURE.write_text(svg(run.stderr), encoding="utf-8")


def fingerprint() -> str:
    """Return a digest of the demo's commands: figures differ between machines, and so do other lines."""
    with tempfile.TemporaryDirectory() as empty, contextlib.chdir(empty):
        lines = command_lines(DemoOptions())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def svg(screen: str) -> str:
    """Return the picture of what was written to the screen, with the fingerprint as its description."""
    console = Console(width=COLUMNS)
    lines = [list(line.render(console)) for line in Text.from_ansi(screen).wrap(console, COLUMNS)]
    width, height = round(COLUMNS * CELL + 2 * MARGIN), len(lines) * LINE + 2 * MARGIN
    parts = [
        f'<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">',
        f"<desc>{fingerprint()}</desc>",
        f"<style>text {{ font: {SIZE}px ui-monospace, Menlo, Consolas, monospace; white-space: pre }}</style>",
        f'<rect width="{width}" height="{height}" rx="6" fill="{PAPER}" stroke="{BORDER}"/>',
    ]
    for number, line in enumerate(lines):
        parts += _texts(line, MARGIN + number * LINE + SIZE)
    return "\n".join([*parts, "</svg>", ""])


def _texts(line: list[Segment], y: int) -> Iterator[str]:
    """Yield a `<text>` per run of words, at its column."""
    column = 0
    for words, style, _ in line:
        indent = sum(1 for _ in takewhile(str.isspace, words))
        if words.strip():
            x = MARGIN + (column + indent) * CELL
            yield f'<text x="{x:.1f}" y="{y}"{_look(style)}>{escape(words.strip())}</text>'
        column += cell_len(words)


def _look(style: Style | None) -> str:
    """Return the attributes of a style: ink, and what else is not plain."""
    style = style or Style()
    number = style.color.number if style.color else None
    ink = INKS.get(number % 8, INK) if number is not None and number < 16 else INKS[2] if number else INK
    shapes = (' font-weight="bold"', style.bold), (' font-style="italic"', style.italic), (' opacity="0.65"', style.dim)
    return f' fill="{ink}"' + "".join(attribute for attribute, on in shapes if on)


if __name__ == "__main__":
    main()
