"""From what was typed, or read from YAML, to a value in the type of its field.

Options have few types, so this converts them itself: a reason is a sentence that a user can act on, and nothing is
guessed (pydantic takes "yes" and 1 for true).
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from capivara_cli.errors import nearest


class Syntax(NamedTuple):
    """How a value is typed on the command line, where that is neither a number nor a text.

    Attributes:
        parse: what was typed, or set from Python or YAML -> the value. Raises ValueError with the reason.
        many: the flag may be repeated; `parse` gets a text, a list of texts, or a mapping.
        none: how None is typed and shown.
        noun: what the value is, for messages.
    """

    parse: Callable[[Any], Any]
    many: bool = False
    none: str | None = None
    noun: str = ""


def syntax_of(hint: Any) -> Syntax | None:
    """Return the syntax that the type declares, if it declares one."""
    return next((item for item in getattr(hint, "__metadata__", ()) if isinstance(item, Syntax)), None)


def convert(hint: Any, value: Any) -> Any:
    """Return the value in this type. Raises ValueError with the reason why it does not fit."""
    kind, parts = get_origin(hint), get_args(hint)
    if kind is Annotated:
        return convert(parts[0], _parse(syntax_of(hint), value))
    if kind in (Union, UnionType):  # `X | None`
        return None if value is None else convert(parts[0], value)
    if kind is Literal:
        if not isinstance(value, str) or value not in parts:
            raise ValueError(f"not one of {', '.join(parts)}{nearest(str(value), parts)}")
        return value
    if kind is tuple or kind is Sequence:
        if isinstance(value, str) or not isinstance(value, Sequence) or (kind is tuple and len(value) != len(parts)):
            raise ValueError(f"not a list of {len(parts)} values" if kind is tuple else "not a list")
        return tuple(convert(parts[0], item) for item in value)
    if kind in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise ValueError("not keys and values")
        return {convert(parts[0], name): convert(parts[1], item) for name, item in value.items()}
    if hint in (int, float):
        return _number(value, whole=hint is int)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if not isinstance(value, hint):
        words = {str: "not a text", bool: "neither true nor false", Path: "not a path"}
        raise ValueError(words.get(hint, "not keys and values"))  # the others are sections
    return value


def _parse(syntax: Syntax | None, value: Any) -> Any:
    if syntax is None:
        return value
    is_texts = isinstance(value, Sequence) and all(isinstance(item, str) for item in value)
    if syntax.many and not is_texts and not isinstance(value, Mapping | None):
        raise ValueError("not a list of texts")  # for example `lang: [no]`, which YAML reads as false
    return syntax.parse(value)


def _number(value: Any, *, whole: bool) -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, numbers.Real | str):
            raise ValueError
        number = float(value)  # also of a text: YAML 1.1 reads 1e-5 as one
        if not math.isfinite(number):
            raise ValueError
    except ValueError:
        raise ValueError("not a number") from None
    if not whole:
        return number
    if number != int(number):
        raise ValueError("not a whole number")
    return int(value) if isinstance(value, numbers.Integral) else int(number)  # a float rounds large integers


def _auto_or_count(value: Any) -> int | None:
    if value in (None, "auto"):
        return None
    if str(value).isdecimal() and int(value):
        return int(value)
    raise ValueError("neither auto nor a number of at least 1")


AutoOrCount = Annotated[int | None, Syntax(_auto_or_count, none="auto")]
"""A number of at least 1, or None, which is typed `auto`."""
