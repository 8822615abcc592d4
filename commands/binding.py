"""From an options class to the flags of a command."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import typer

from capivara_cli.config import resolve
from capivara_cli.options import BOUNDS, REQUIRED, Flag, Options, flags
from capivara_cli.training.options import TrainOptions
from capivara_cli.values import Syntax, syntax_of

Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="File to write (JSONL). [default: standard output]")
]


class FlagsOf(NamedTuple):
    """Marks a parameter that gets the flags of an options class as they were typed: path -> value."""

    cls: type[Options]


def bind(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the flags of the options class that one of its parameters has as its type.

    The parameter gets the options, made from the typed flags and ./capivara.yaml; one that is annotated with
    `FlagsOf(CLASS)` gets the typed flags alone.
    """
    types = get_type_hints(function, include_extras=True)
    parameters = [inspect.Parameter("_context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)]
    bound: dict[str, type[Options]] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        cls = _options_class(types[name])
        if cls is not None:
            bound[name] = cls
            parameters += [_parameter(path, flag) for path, flag in flags(cls)]
        else:
            parameters.append(parameter.replace(annotation=types[name], kind=inspect.Parameter.KEYWORD_ONLY))

    @wraps(function)
    def command(_context: typer.Context, **values: Any) -> None:
        for name, cls in bound.items():
            typed = _take_typed(cls, values, _context)
            values[name] = resolve(cls, typed, TrainOptions) if types[name] is cls else typed
        function(**values)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer makes flags from it
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _options_class(hint: Any) -> type[Options] | None:
    if isinstance(hint, type) and issubclass(hint, Options):
        return hint
    return next((item.cls for item in getattr(hint, "__metadata__", ()) if isinstance(item, FlagsOf)), None)


def _take_typed(cls: type[Options], values: dict[str, Any], context: typer.Context) -> dict[str, Any]:
    """Take the values of a class's flags out; return those that were typed: path -> value."""
    typed = {}
    for path, _ in flags(cls):
        value = values.pop(_identifier(path))
        source = context.get_parameter_source(_identifier(path))
        if source is not None and source.name != "DEFAULT":
            typed[path] = value
    return typed


def _identifier(path: str) -> str:
    return path.replace(".", "__")


def _choices(kind: Any) -> tuple[str, ...]:
    return get_args(kind) if get_origin(kind) is Literal else ()


def _metavar(kind: Any) -> str | None:
    """Return what stands for a value of this type in `--help`; None for the flag's name in capitals."""
    types = {kind, *get_args(kind)}  # of `int | None` too
    return "|".join(_choices(kind)) or ("N" if int in types else "X" if float in types else None)


def _parameter(path: str, flag: Flag) -> inspect.Parameter:
    """Return the parameter that typer makes a flag's option from.

    Choices and numbers are taken as text: the options class checks them, and its messages say more than typer's.
    """
    syntax = syntax_of(flag.hint)
    kind, default = flag.hint, None if flag.default is REQUIRED else flag.default
    shown = flag.shown or (syntax.none if syntax is not None and default is None else None)
    if syntax is not None and not syntax.many:
        default = syntax.none or default
    elif syntax is not None or get_origin(kind) is Sequence:
        default = None  # may be repeated on the command line
    if shown is None and default is not None and not isinstance(default, bool):
        shown = str(default)
    notes = [f"{BOUNDS[bound][1]} {limit}" for bound, limit in flag.bounds.items()]
    notes += ["required"] if flag.default is REQUIRED else [f"default: {shown}"] if shown else []
    choices = _choices(kind)
    option = typer.Option(
        flag.name,
        help=f"{flag.help} [{'; '.join(notes)}]" if notes else flag.help,
        metavar=flag.metavar or _metavar(kind),
        show_default=False,
        autocompletion=(lambda: list(choices)) if choices else None,
    )
    return inspect.Parameter(
        _identifier(path),
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[_typed_as(kind, syntax), option],
    )


def _typed_as(kind: Any, syntax: Syntax | None) -> Any:
    """Return the type that typer reads a flag's value in."""
    if (syntax is not None and syntax.many) or get_origin(kind) is Sequence:
        return list[str] | None
    if bool in (kind, *get_args(kind)):
        return kind
    return Path | None if Path in (kind, *get_args(kind)) else str | None
