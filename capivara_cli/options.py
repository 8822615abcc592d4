"""Flags and settings: each is declared once, in the options class of its verb (`ROOM/options.py`).

    @options
    class CaptionOptions(Machine):
        num_beams: Annotated[int, Ge(1)] = flag("Beams; 1 is greedy.", default=1)

From the class come the command line (`commands/binding.py`), the argument of the Python function, the settings that a
resumed file is checked against, docs/commands.md, and a section of capivara.yaml. Nothing here imports pydantic before
a value has to be checked, so that `capivara --help` answers at once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    TypeVar,
    dataclass_transform,
    get_origin,
    get_type_hints,
)

from annotated_types import Ge

from capivara_cli.errors import CapivaraError, nearest

C = TypeVar("C", bound=type)


class BadOption(CapivaraError):
    """A value that an option cannot take: a usage error."""

    exit_code = 2


@dataclass(frozen=True)
class Typed:
    """How a value is typed on the command line, where that is neither a number nor a text.

    Attributes:
        parse: what was typed, or given from Python or YAML -> the value. Raises ValueError with the reason.
        many: the flag may be repeated; `parse` gets a list.
        none: how None is typed and shown.
    """

    parse: Callable[[Any], Any]
    many: bool = False
    none: str | None = None


@dataclass(frozen=True)
class Flag:
    """What an options class says of a field.

    Attributes:
        help: what it does, in a sentence.
        name: `--from`, `--overwrite/--resume`; None for a key that only `--set` and YAML reach.
        metavar: what stands for the value in `--help`.
        shown: the default as `--help` shows it, where None means something.
        changes_result: whether a file that was begun with another value cannot be resumed.
    """

    help: str
    name: str | None
    metavar: str | None = None
    shown: str | None = None
    changes_result: bool = True

    @property
    def key(self) -> str:
        """`--max-new-tokens/…` -> `max_new_tokens`: its key in the settings of a file."""
        return (self.name or "").partition("/")[0].removeprefix("--").replace("-", "_")


def flag(
    help: str,
    *,
    default: Any = MISSING,
    default_factory: Any = MISSING,
    name: str | None = "",
    metavar: str | None = None,
    shown: str | None = None,
    changes_result: bool = True,
) -> Any:
    """Declare a field that is a flag; its name is the field's unless `name` says otherwise. See `Flag`."""
    metadata = {"flag": Flag(help, name, metavar, shown, changes_result)}
    if default_factory is not MISSING:
        return field(default_factory=default_factory, metadata=metadata)
    return field(default=default, metadata=metadata)


def key(help: str, *, default: Any = MISSING, default_factory: Any = MISSING) -> Any:
    """Declare a field that has no flag: `--set` and YAML files reach it."""
    return flag(help, default=default, default_factory=default_factory, name=None)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(flag, key))
def options(cls: C) -> C:
    """Make a class of flags: a frozen dataclass whose values are checked when it is made."""
    made: C = dataclass(frozen=True, kw_only=True)(cls)
    return made


class Problem(NamedTuple):
    """A value that does not fit.

    Attributes:
        path: `optimizer.lr`.
        flag: what declares it; None for a key that nothing declares.
        reason: why the value does not fit.
    """

    path: str
    flag: Flag | None
    value: Any
    reason: str

    def __str__(self) -> str:
        if self.flag is not None and self.flag.name and self.value is not None:
            return f"{self.flag.name.partition('/')[0]} {_shown(self.value)}: {self.reason}"
        return f"{self.path}: {self.reason}" if self.value is None else f"{self.path} = {self.value!r}: {self.reason}"


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


class Options:
    """Base of all options classes."""

    section: ClassVar[str] = ""
    """Key of the verb's section in capivara.yaml."""

    def __post_init__(self) -> None:
        """Check and convert every value. Raises BadOption with all that do not fit."""
        problems = []
        for item in fields(self):  # type: ignore[arg-type]  # each subclass is a dataclass
            value, reason = _converted(type(self), item.name, getattr(self, item.name))
            if reason is not None:
                problems.append(Problem(item.name, flag_of(type(self), item.name), value, reason))
            else:
                object.__setattr__(self, item.name, value)
        if problems:
            raise BadOption("\n       ".join(map(str, problems)))

    def settings(self) -> dict[str, Any]:
        """Return what the result depends on, in JSON's types: a resumed file must have been begun with the same."""
        declared = {item.name: flag_of(type(self), item.name) for item in fields(self)}  # type: ignore[arg-type]
        return {flag.key: plain(getattr(self, name)) for name, flag in declared.items() if flag.changes_result}


O = TypeVar("O", bound=Options)  # noqa: E741


def plain(value: Any) -> Any:
    """Return a value of options, or options as a whole, in the types that JSON and YAML have."""
    if isinstance(value, Options):
        return {name: plain(getattr(value, name)) for name in hints(type(value))}
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


@cache
def hints(cls: type[Options]) -> dict[str, Any]:
    """Return the types of the fields, with their bounds; the class's own fields first, then those that it inherits."""
    types = get_type_hints(cls, include_extras=True)
    names = (name for parent in cls.__mro__ for name in inspect.get_annotations(parent))
    return {name: types[name] for name in names if get_origin(types[name]) is not ClassVar}


def flag_of(cls: type[Options], name: str) -> Flag:
    """Return what declares a field; its flag's name is filled in."""
    declared: Flag = _fields(cls)[name].metadata["flag"]
    if declared.name != "":
        return declared
    return Flag(declared.help, f"--{name.replace('_', '-')}", declared.metavar, declared.shown, declared.changes_result)


@cache
def _fields(cls: type[Options]) -> dict[str, Field[Any]]:
    return {item.name: item for item in fields(cls)}  # type: ignore[arg-type]


def default_of(cls: type[Options], name: str) -> Any:
    """Return a field's default; None for one that must be given."""
    item = _fields(cls)[name]
    if item.default_factory is not MISSING:
        return item.default_factory()
    return None if item.default is MISSING else item.default


def flags(cls: type[Options], path: str = "") -> Iterator[tuple[str, type[Options], str]]:
    """Yield every flag of a class and of the sections in it: path (`optimizer.lr`), its class, its field."""
    for name, hint in hints(cls).items():
        if is_section(hint):
            yield from flags(hint, f"{path}{name}.")
        elif flag_of(cls, name).name is not None:
            yield f"{path}{name}", cls, name


def is_section(hint: Any) -> bool:
    """Return whether a field's type is an options class of its own."""
    return isinstance(hint, type) and issubclass(hint, Options)


def typed_of(hint: Any) -> Typed | None:
    """Return how a field of this type is typed, where its type says so."""
    return next((item for item in getattr(hint, "__metadata__", ()) if isinstance(item, Typed)), None)


def _converted(cls: type[Options], name: str, value: Any) -> tuple[Any, str | None]:
    """Return a field's value in its type; or the value as it came, and why it does not fit."""
    from pydantic import ValidationError

    hint = hints(cls)[name]
    if is_section(hint):
        return value, None if isinstance(value, hint) else f"not {hint.__name__}"
    typed = typed_of(hint)
    try:
        return _adapter(cls, name).validate_python(typed.parse(value) if typed else value), None
    except ValidationError as error:
        first = error.errors()[0]
        reason = first["msg"].removeprefix("Input ")
        known = first.get("ctx", {}).get("expected", "").replace("'", "").replace(" or ", ", ").split(", ")
        near = nearest(value, known) if isinstance(value, str) and first["type"] == "literal_error" else ""
        return value, f"{reason}{near}"
    except (ValueError, TypeError) as error:
        return value, str(error)


@cache
def _adapter(cls: type[Options], name: str) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(hints(cls)[name], config=ConfigDict(allow_inf_nan=False, arbitrary_types_allowed=True))


def build(cls: type[O], values: Mapping[str, Any], path: str = "") -> tuple[O | None, list[Problem]]:
    """Make options from nested keys and values, as YAML has them; or return all that is wrong with them."""
    problems: list[Problem] = []
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        hint = hints(cls).get(str(name))
        if hint is None:
            near = nearest(str(name), list(hints(cls)), prefix=path)
            problems.append(Problem(f"{path}{name}", None, None, f"unknown key{near}"))
        elif is_section(hint) and not isinstance(value, Mapping):
            problems.append(Problem(f"{path}{name}", None, value, "not keys and values"))
        elif is_section(hint):
            arguments[name], inner = build(hint, value, f"{path}{name}.")
            problems += inner
        else:
            arguments[name], reason = _converted(cls, name, value)
            if reason is not None:
                problems.append(Problem(f"{path}{name}", flag_of(cls, name), value, reason))
    required = [name for name, item in _fields(cls).items() if item.default is item.default_factory is MISSING]
    for name in required:
        if name not in values:
            problems.append(Problem(f"{path}{name}", flag_of(cls, name), None, "is missing"))
    return (None if problems else cls(**arguments)), problems


# What several verbs share.


def _auto_or_count(value: Any) -> int | None:
    if value in (None, "auto"):
        return None
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise ValueError("neither auto nor a number of at least 1")


def _split(value: Any) -> tuple[str, ...]:
    """`["hi,xh", "pt"]` -> `("hi", "xh", "pt")`, each once."""
    parts = [value] if isinstance(value, str) else list(value or [])
    codes = [code.strip() for part in parts for code in str(part).split(",") if code.strip()]
    if parts and not codes:
        raise ValueError("no language in it")
    return tuple(dict.fromkeys(codes))


AutoOrCount = Annotated[int | None, Typed(_auto_or_count, none="auto")]
"""A number of at least 1, or None, which is typed `auto`."""

Langs = Annotated[Sequence[str], Typed(_split, many=True)]
"""Language codes: `--lang hi,xh --lang pt`."""

Precision = Literal["auto", "fp32", "bf16", "fp16"]


@options
class Machine(Options):
    """What to compute on."""

    device: str = flag("Device: auto, cpu, cuda, cuda:1 or mps.", default="auto", changes_result=False)
    precision: Precision = flag("Numeric precision.", default="auto")
    seed: Annotated[int, Ge(0)] = flag("Random seed.", default=0, changes_result=False)


@options
class Resumable(Options):
    """How to treat an output that exists, and records that cannot be used."""

    strict: bool = flag("Stop at the first record that cannot be used.", default=False, changes_result=False)
    overwrite: bool = flag(
        "Start over, or resume an interrupted run.",
        default=False,
        name="--overwrite/--resume",
        changes_result=False,
    )


@options
class ImageWorkers(Options):
    """How images are decoded."""

    workers: Annotated[int | None, Ge(0)] = flag(
        "Processes that decode images.", default=None, shown="one per core", changes_result=False
    )
