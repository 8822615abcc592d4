"""Write docs/commands.md from the help of the commands; with --check, only check that it is up to date.

python docs/tools/reference.py [--check]
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import typer
from capivara_cli.commands import app, usage

PAGE = Path(__file__).parents[1] / "commands.md"
HEAD = """# Commands

Written by `make docs` from `--help`. Data goes to standard output; progress, tables and messages go to standard error.
`--debug`, anywhere on the line, shows the full traceback of an error. Exit codes: 0 done, 1 an error that the message
explains, 2 wrong usage, 130 stopped by Ctrl-C.
"""


def page() -> str:
    """Return the whole page."""
    group = typer.main.get_command(app)
    commands: dict[str, Any] = group.commands  # type: ignore[attr-defined]
    return "\n".join([HEAD, *(_section(name, command) for name, command in commands.items())])


def _section(name: str, command: Any) -> str:
    arguments, options = usage.arguments(command), usage.options(command)
    line = " ".join(["capivara", name, *map(usage.metavar, arguments), "[OPTIONS]"])
    rows = [_row(usage.metavar(item), item) for item in arguments] + [
        _row(usage.spelling(item), item) for item in options
    ]
    table = ["| option | what it does | default |", "|---|---|---|", *rows]
    return "\n".join([f"## {name}", "", f"    {line}", "", _text(command), "", *table, ""])


def _row(spelling: str, parameter: Any) -> str:
    cells = [f"`{spelling}`", usage.what_it_does(parameter), usage.default(parameter)]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _text(command: Any) -> str:
    """Return the docstring, with its examples as code."""
    lines, examples = inspect.cleandoc(command.help).splitlines(), False
    result = []
    for line in lines:
        examples = examples or line == "Examples:"
        result.append(f"    {line}" if examples and line and line != "Examples:" else line)
    return "\n".join(result)


def main() -> None:
    """Write the page, or compare it."""
    text = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
        sys.exit(f"{PAGE.name} is stale: make docs")


if __name__ == "__main__":
    main()
