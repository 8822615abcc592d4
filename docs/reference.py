"""Write docs/commands.md from the commands themselves; with --check, say whether it is stale.

python docs/reference.py [--check]
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import typer
from capivara_cli.commands import app

PAGE = Path(__file__).parent / "commands.md"
HEAD = """# Commands

Written by `make docs` from the commands' own help. Every command has `--help`; `capivara --debug` shows tracebacks.
Data goes to standard output, what is for the person to standard error. Exit codes: 0 done, 1 an error that the
message explains, 2 wrong usage, 130 stopped by Ctrl-C.
"""


def page() -> str:
    """The whole page."""
    group = typer.main.get_command(app)
    commands: dict[str, Any] = group.commands  # type: ignore[attr-defined]
    return "\n".join([HEAD, *(_section(name, command) for name, command in commands.items())])


def _section(name: str, command: Any) -> str:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and each.name != "help"]
    usage = " ".join(["capivara", name, *(_metavar(each) for each in arguments), "[OPTIONS]"])
    rows = [f"| `{_metavar(each)}` | {_help(each)} | {_default(each)} |" for each in arguments]
    rows += [f"| {_spelling(each)} | {_help(each)} | {_default(each)} |" for each in options]
    table = ["| option | what it does | default |", "|---|---|---|", *rows]
    return "\n".join([f"## {name}", "", f"    {usage}", "", _text(command), "", *table, ""])


def _text(command: Any) -> str:
    """The docstring, its examples as code."""
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
    value = "" if option.is_flag else f" {option.metavar or str(option.name).rstrip('_').upper()}"
    return f"`{names}{value}`" + (" (repeatable)" if option.multiple else "")


def _help(parameter: Any) -> str:
    text, _, default = (parameter.help or "").partition(" [")
    return str(text if default.endswith("]") else parameter.help).replace("|", "\\|")


def _default(parameter: Any) -> str:
    default = (parameter.help or "").partition(" [")[2]
    if default.endswith("]"):
        return default[:-1].replace("|", "\\|")
    if parameter.required:
        return "required"
    if parameter.default is None or parameter.default is False or parameter.default == ():
        return ""
    return f"`{parameter.default}`"


def main() -> None:
    """Write the page, or compare."""
    text = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
        sys.exit(f"{PAGE.name} is stale: make docs")


if __name__ == "__main__":
    main()
