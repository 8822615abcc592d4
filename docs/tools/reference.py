"""Write docs/commands.md from the help of the commands; with --check, only check that it is up to date.

python docs/tools/reference.py [--check]
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

import typer
from capivara_cli.commands import app

_END = re.compile(r" \[(?:default: )?([^][]*)\]$")  # of a help text: `[default: auto]` or `[required]`
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
    parameters = [item for item in command.params if item.name != "help" and not getattr(item, "hidden", False)]
    arguments = [item for item in parameters if item.param_type_name == "argument"]
    options = [item for item in parameters if item.param_type_name == "option"]
    usage = " ".join(["capivara", name, *map(_metavar, arguments), "[OPTIONS]"])
    rows = [f"| `{_metavar(item)}` | {_help(item)} | {_default(item)} |" for item in arguments]
    rows += [f"| {_spelling(item)} | {_help(item)} | {_default(item)} |" for item in options]
    table = ["| option | what it does | default |", "|---|---|---|", *rows]
    return "\n".join([f"## {name}", "", f"    {usage}", "", _text(command), "", *table, ""])


def _text(command: Any) -> str:
    """Return the docstring, with its examples as code."""
    lines, examples = inspect.cleandoc(command.help).splitlines(), False
    result = []
    for line in lines:
        examples = examples or line == "Examples:"
        result.append(f"    {line}" if examples and line and line != "Examples:" else line)
    return "\n".join(result)


def _metavar(parameter: Any) -> str:
    return str(parameter.name).upper()


def _spelling(option: Any) -> str:
    names = "/".join(option.opts + option.secondary_opts)
    value = "" if option.is_flag else f" {option.metavar or str(option.name).rpartition('__')[2].upper()}"
    return f"`{names}{value}`".replace("|", "\\|") + (" (repeatable)" if option.multiple else "")


def _help(parameter: Any) -> str:
    return _END.sub("", parameter.help or "").replace("|", "\\|")


def _default(parameter: Any) -> str:
    """Return the default as the help says it, or the value itself."""
    if shown := _END.search(parameter.help or ""):
        return shown[1].replace("|", "\\|")
    if parameter.required:
        return "required"
    if parameter.default is False or parameter.default in (None, "", ()):
        return ""
    return f"`{parameter.default}`"


def main() -> None:
    """Write the page, or compare it."""
    text = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
        sys.exit(f"{PAGE.name} is stale: make docs")


if __name__ == "__main__":
    main()
