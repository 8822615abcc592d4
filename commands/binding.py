"""From an options class to the flags of a command."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer
from annotated_types import Ge, Le

from capivara_cli.config import resolve
from capivara_cli.options import Options, default_of, flag_of, flags, hints, is_section, typed_of

Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="File to write (JSONL). [default: standard output]")
]


@dataclass(frozen=True)
class FlagsOf:
    """Marks a parameter that gets the flags of an options class as they were typed: path -> value."""

    cls: type[Options]


def bind(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the flags of the options class that one of its parameters has as its type.

    The parameter gets the options, made from the typed flags and ./capivara.yaml; one that is annotated with
    `FlagsOf(CLASS)` gets the typed flags alone.
    """
    types = get_type_hints(function, include_extras=True)
    parameters, bound = [_context()], dict[str, type[Options]]()
    raw = set()
    for name, parameter in inspect.signature(function).parameters.items():
        hint = types[name]
        mark = next((item for item in getattr(hint, "__metadata__", ()) if isinstance(item, FlagsOf)), None)
        if mark is not None:
            raw.add(name)
        if mark is not None or is_section(hint):
            bound[name] = mark.cls if mark else hint
            parameters += [_parameter(owner, field, path) for path, owner, field in flags(bound[name])]
        else:
            parameters.append(parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY))

    @wraps(function)
    def command(_context: typer.Context, **values: Any) -> None:
        arguments: dict[str, Any] = {}
        for name, cls in bound.items():
            typed = {}
            for path, _, _ in flags(cls):
                value = values.pop(_identifier(path))
                source = _context.get_parameter_source(_identifier(path))
                if source is not None and source.name != "DEFAULT":
                    typed[path] = value
            arguments[name] = typed if name in raw else resolve(cls, typed)
        function(**arguments, **values)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer makes flags from it
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _context() -> inspect.Parameter:
    return inspect.Parameter("_context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)


def _identifier(path: str) -> str:
    return path.replace(".", "__")


def _parameter(cls: type[Options], name: str, path: str) -> inspect.Parameter:
    """Return the parameter that typer makes a flag's option from."""
    declared, hint, default = flag_of(cls, name), hints(cls)[name], default_of(cls, name)
    typed = typed_of(hint)
    kind, bounds = _kind_and_bounds(hint)
    shown = declared.shown or (typed.none if typed and default is None else None)
    option = typer.Option(
        declared.name,
        help=f"{declared.help} [default: {shown}]" if shown else declared.help,
        metavar=declared.metavar,
        show_default=shown is None and default not in (None, ()),
        **bounds,
    )
    if typed is not None and not typed.many:
        kind, default = str, typed.none or default
    elif typed is not None or (isinstance(default, Sequence) and not isinstance(default, str)):
        kind, default = list[str] | None, None  # repeated on the command line
    return inspect.Parameter(
        _identifier(path), inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
    )


def _kind_and_bounds(hint: Any) -> tuple[Any, Mapping[str, Any]]:
    """`Annotated[int, Ge(1)]` -> `int`, and `{"min": 1}` for typer."""
    if get_origin(hint) is not Annotated:
        return hint, {}
    kind, *metadata = get_args(hint)
    bounds = {}
    for item in metadata:
        if isinstance(item, Ge):
            bounds["min"] = item.ge
        elif isinstance(item, Le):
            bounds["max"] = item.le
    return kind, bounds
