"""How `--help` looks: options in groups, every default shown, readable from 60 to 120 columns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from typer.core import TyperCommand, TyperGroup

WIDEST = 120
FROM_RECIPE = "the recipe's"

GROUPS = {
    "Data": ("--data", "--val", "--lang", "--from", "--to", "--format", "--by", "--classes", "--templates", "--split"),
    "Model": ("--model", "--pretrained", "--adapter", "--baseline", "--backend", "--engine", "--quantize"),
    "Output": ("--output", "--overwrite", "--strict", "--json"),
    "Machine": ("--device", "--precision", "--seed", "--workers", "--batch-size", "--micro-batch"),
}
"""Group -> its flags, in the order of `--help`. What a command has besides them comes first: they are its own."""

CHAIN = ("import", "caption", "translate", "score", "train", "merge-lora", "retrieve-eval", "classify-eval", "export")

_NOTES = re.compile(r" \[([^][]*)\]$")  # at the end of a help text: `[at least 1; default: auto]` or `[required]`


class Command(TyperCommand):
    """A command whose help shows options in groups."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # noqa: ARG002  # of click
        """Return `SOURCE... [OPTIONS]`."""
        return [*(metavar(item) for item in arguments(self)), "[OPTIONS]"]

    def format_help_text(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Write the docstring: paragraphs wrapped, examples as they stand."""
        formatter.write_paragraph()
        for paragraph in re.split(r"\n\n", self.help or ""):
            with formatter.indentation():
                if paragraph.startswith("    "):
                    formatter.write("".join(f"{line}\n" for line in paragraph.splitlines()))
                else:
                    formatter.write_text(" ".join(paragraph.split()))
                    formatter.write_paragraph()

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Write a section per group."""
        formatter.write_paragraph()
        rows = [(metavar(item), description(item)) for item in arguments(self)]
        _write(formatter, "Arguments", rows)
        rest = options(self)
        grouped = {}
        for group, names in GROUPS.items():
            grouped[group] = [item for name in names for item in rest if name in item.opts]
            rest = [item for item in rest if item not in grouped[group]]
        for group, items in {"Options": rest, **grouped}.items():
            _write(formatter, group, [(spelling(item), description(item)) for item in items])


class Group(TyperGroup):
    """The commands, in the order of a whole job."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Write the chain, and what is beside it."""
        rest = [name for name in self.commands if name not in CHAIN]
        for title, names in (("A whole job, in order", CHAIN), ("Besides", rest)):
            _write(formatter, title, [(name, _first_sentence(self.commands[name].help or "")) for name in names])


def _write(formatter: Any, title: str, rows: Iterable[tuple[str, str]]) -> None:
    if rows := list(rows):
        with formatter.section(title):
            formatter.write_dl(rows, col_max=26)


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=\.)\s", " ".join(text.split()), maxsplit=1)[0]


def arguments(command: Any) -> list[Any]:
    """Return the arguments of a command."""
    return [item for item in command.params if item.param_type_name == "argument"]


def options(command: Any) -> list[Any]:
    """Return the options of a command that are not hidden, without `--help`."""
    return [item for item in command.params if item.param_type_name == "option" and not item.hidden]


def metavar(argument: Any) -> str:
    """Return how an argument is written: `SOURCE...`."""
    return f"{argument.name.upper()}{'' if argument.nargs == 1 else '...'}"


def spelling(option: Any) -> str:
    """Return how an option is typed: `-o, --output PATH`, `--overwrite / --resume`."""
    names = ", ".join(sorted(option.opts, key=len))
    if option.is_flag:
        return " / ".join([names, *option.secondary_opts])
    return f"{names} {option.metavar or str(option.name).rpartition('__')[2].upper()}"


def description(parameter: Any) -> str:
    """Return what a parameter does, and its notes: `Beams of the search. [at least 1; default: 1]`."""
    shown = default(parameter)
    notes = ["repeatable"] if getattr(parameter, "multiple", False) else []
    notes += [note for note in _notes(parameter) if note != "required" and not note.startswith("default: ")]
    notes += ["required"] if shown == "required" else [f"default: {shown}"] if shown else []
    return f"{what_it_does(parameter)} [{'; '.join(notes)}]" if notes else what_it_does(parameter)


def what_it_does(parameter: Any) -> str:
    """Return the help text without its notes."""
    return _NOTES.sub("", parameter.help or "")


def _notes(parameter: Any) -> list[str]:
    noted = _NOTES.search(parameter.help or "")
    return noted[1].split("; ") if noted else []


def default(parameter: Any) -> str:
    """Return the default in words; `required` if there is none, nothing for a flag that is off."""
    for note in _notes(parameter):
        if note == "required":
            return note
        if note.startswith("default: "):
            shown = note.removeprefix("default: ")
            return _from_recipe(parameter) if shown == FROM_RECIPE else shown
    if parameter.required:
        return "required"
    value = parameter.default
    if isinstance(value, bool) and parameter.secondary_opts:
        return (parameter.opts if value else parameter.secondary_opts)[0].removeprefix("--")
    return "" if value is False or value in (None, "", ()) else str(value)


def _from_recipe(parameter: Any) -> str:
    """Return the value that the recipe of `--lora` sets: `from the recipe: 1000`."""
    from capivara_cli.training.options import built_in

    value: Any = built_in("lora")
    for name in parameter.name.split("__"):
        value = getattr(value, name)
    if isinstance(value, Mapping):
        value = ",".join(f"{lang}:{share:g}" for lang, share in value.items())
    if isinstance(value, bool):
        value = (parameter.opts if value else parameter.secondary_opts)[0].removeprefix("--")
    return f"from the recipe: {value:g}" if isinstance(value, float) else f"from the recipe: {value}"
