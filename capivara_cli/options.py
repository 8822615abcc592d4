"""Flags and settings: each is declared once, in the options class of its verb (`ROOM/options.py`).

    class CaptionOptions(Machine):
        num_beams: int = flag("Beams of the search; 1 is greedy.", default=1, min=1)

From the class come the command line (`commands/binding.py`), the argument of the Python function, the settings that a
resumed file is checked against, docs/commands.md, and a section of capivara.yaml.

They are not dataclasses: `capivara --help` makes all these classes, and making a dataclass takes a millisecond.
"""

from __future__ import annotations

import inspect
import operator
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import (
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    NoReturn,
    Self,
    dataclass_transform,
    get_type_hints,
)

from capivara_cli.errors import BadOption, nearest
from capivara_cli.values import convert, syntax_of

REQUIRED: Any = object()
"""The default of a field that must be set."""

BOUNDS = {
    "min": (operator.ge, "at least"),
    "max": (operator.le, "at most"),
    "above": (operator.gt, "above"),
    "below": (operator.lt, "below"),
}


class Flag:
    """A field of an options class.

    Attributes:
        help: what it does, in a sentence.
        default: its value where none is set; REQUIRED if one must be set.
        name: `--from`, `--overwrite/--resume`; None for a key that only `--set` and YAML reach.
        metavar: what stands for the value in `--help`.
        shown: the default as `--help` shows it, where None means something.
        changes_result: whether the result depends on it; if so, resuming with another value is refused.
        bounds: `min` and `max`, which a value may equal; `above` and `below`, which it may not.
        key: its name in settings and YAML: `max_new_tokens`.
    """

    def __init__(
        self,
        help: str,
        *,
        default: Any = REQUIRED,
        name: str | None = "",
        metavar: str | None = None,
        shown: str | None = None,
        changes_result: bool = True,
        **bounds: float,
    ) -> None:
        self.help, self.default, self.name, self.metavar, self.shown = help, default, name, metavar, shown
        self.changes_result = changes_result
        self.bounds = bounds

    def __set_name__(self, cls: type[Options], field: str) -> None:
        self._class: type = cls
        self._field = field
        if self.name == "":
            self.name = f"--{field.replace('_', '-')}"
        self.key = self.spelling.removeprefix("--").replace("-", "_") or field

    @property
    def spelling(self) -> str:
        """`--overwrite/--resume` -> `--overwrite`; nothing for a key."""
        return (self.name or "").partition("/")[0]

    @property
    def hint(self) -> Any:
        """The type of the field."""
        return _hints(self._class)[self._field]

    @property
    def section(self) -> type[Options] | None:
        """The type of the field, if that is an options class of its own."""
        return self.hint if isinstance(self.hint, type) and issubclass(self.hint, Options) else None

    def convert(self, value: Any) -> Any:
        """Return the value in the field's type. Raises ValueError with the reason why it does not fit."""
        value = convert(self.hint, value)
        for bound, limit in self.bounds.items():
            holds, words = BOUNDS[bound]
            if value is not None and not holds(value, limit):
                raise ValueError(f"must be {words} {limit}")
        return value


def flag(help: str, *, default: Any = REQUIRED, **rest: Any) -> Any:
    """Declare a field that is a flag. `Flag` has the arguments."""
    return Flag(help, default=default, **rest)


def key(help: str, *, default: Any = REQUIRED, **bounds: Any) -> Any:
    """Declare a field that has no flag: `--set` and YAML files reach it."""
    return Flag(help, default=default, name=None, **bounds)


class Problem(NamedTuple):
    """A value that does not fit, and why.

    Attributes:
        path: `optimizer.lr`.
        value: REQUIRED where it is missing.
    """

    path: str
    flag: Flag
    value: Any
    reason: str

    def __str__(self) -> str:
        if self.value is REQUIRED:
            syntax = syntax_of(self.flag.hint)
            noun = f"no {syntax.noun}: " if syntax is not None and syntax.noun else ""
            metavar = f" {self.flag.metavar}" if self.flag.metavar else ""
            return f"{noun}{self.flag.spelling or self.path}{metavar} is missing"
        if self.flag.name is None:
            return self.as_key()
        shown = " ".join(map(str, self.value)) if isinstance(self.value, list | tuple) else self.value
        return f"{self.flag.spelling} {shown}: {self.reason}"

    def as_key(self) -> str:
        """Return the message for a value that was set by its path, not by its flag."""
        return f"{self.path} = {self.value!r}: {self.reason}"


class _Signature:
    """The fields of a class as parameters, for editors and notebooks to show and complete."""

    def __get__(self, instance: object, cls: type[Options]) -> inspect.Signature:
        kind, required = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.empty
        return inspect.Signature(
            [
                inspect.Parameter(
                    name, kind, default=required if field.default is REQUIRED else field.default, annotation=field.hint
                )
                for name, field in fields(cls).items()
            ]
        )


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(flag, key))
class Options:
    """Base of all options classes. Values are checked when they are set, and do not change."""

    section: ClassVar[str] = ""
    """Key of the verb's section in capivara.yaml."""
    old_names: ClassVar[Mapping[str, str]] = {}
    """Old name of a field -> its new name. YAML and `--set` accept both."""
    model_unless: ClassVar[tuple[str, ...] | None] = None
    """`model:` of capivara.yaml serves this verb, unless one of these fields is set. None if the verb has no model."""

    __signature__: ClassVar[Any] = _Signature()

    _fields: ClassVar[dict[str, Flag]]

    def __init_subclass__(cls) -> None:
        names = [name for parent in cls.__mro__ for name, value in vars(parent).items() if isinstance(value, Flag)]
        cls._fields = {name: getattr(cls, name) for name in names}

    def __init__(self, **values: Any) -> None:
        """Check and convert every value. Raises BadOption with all that do not fit."""
        for name in values.keys() - fields(type(self)).keys():
            raise TypeError(f"{type(self).__name__} has no {name}{nearest(name, fields(type(self)))}")
        converted, problems = check(type(self), values)
        if problems:
            raise BadOption(below_each_other(problems))
        vars(self).update(converted)

    def replace(self, **values: Any) -> Self:
        """Return a copy with other values."""
        return type(self)(**vars(self) | values)

    def settings(self) -> dict[str, Any]:
        """Return what the result depends on, in JSON's types: a resumed file must have been begun with the same."""
        declared = fields(type(self))
        return {field.key: plain(getattr(self, name)) for name, field in declared.items() if field.changes_result}

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"options do not change: options.replace({name}={value!r}) returns others")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


def below_each_other(messages: Iterable[object]) -> str:
    """Return messages as lines that are aligned after `error: `."""
    return "\n       ".join(map(str, messages))


def fields(cls: type[Options]) -> dict[str, Flag]:
    """Return the fields of a class by name: its own first, then those that it inherits."""
    return cls._fields


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


def flags(cls: type[Options], path: str = "") -> Iterator[tuple[str, Flag]]:
    """Yield every flag of a class and of the sections in it, with its path: `optimizer.lr`."""
    for name, field in fields(cls).items():
        if field.section is not None:
            yield from flags(field.section, f"{path}{name}.")
        elif field.name is not None:
            yield f"{path}{name}", field


def check(cls: type[Options], values: Mapping[str, Any], path: str = "") -> tuple[dict[str, Any], list[Problem]]:
    """Return the value of every field in its type, and what does not fit.

    Args:
        values: field -> value; a section may be keys and values too, as YAML has it. Unknown keys are ignored.
        path: of the section that is checked: `optimizer.`
    """
    converted: dict[str, Any] = {}
    problems: list[Problem] = []
    for name, field in fields(cls).items():
        value = values.get(name, field.default)
        if field.default is REQUIRED and value in (REQUIRED, None, "", (), []):
            problems.append(Problem(f"{path}{name}", field, REQUIRED, "is missing"))
        elif field.section is not None and isinstance(value, Mapping):
            inner, inner_problems = check(field.section, value, f"{path}{name}.")
            problems += inner_problems
            converted[name] = None if inner_problems else field.section(**inner)
        else:
            try:
                converted[name] = field.convert(value)
            except ValueError as error:
                problems.append(Problem(f"{path}{name}", field, value, str(error)))
    return converted, problems


def unknown_keys(
    cls: type[Options], values: Mapping[str, Any], path: str = "", *, also: Iterable[str] = ()
) -> Iterator[str]:
    """Yield a message for each key that no field has: it is probably a typo.

    Args:
        path: of the section that is checked: `optimizer.`
        also: what else may have been meant.
    """
    for name, value in values.items():
        field = fields(cls).get(str(name))
        if field is None:
            shown = name if re.fullmatch(r"[\w.-]+", str(name)) else repr(name)
            yield f"unknown key {path}{shown}{nearest(str(name), [*fields(cls), *also], prefix=path)}"
        elif field.section is not None and isinstance(value, Mapping):
            yield from unknown_keys(field.section, value, f"{path}{name}.")


def plain(value: Any) -> Any:
    """Return a value of options, or options as a whole, in the types that JSON and YAML have."""
    if isinstance(value, Options):
        return plain(vars(value))
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


# What several verbs share.

Precision = Literal["auto", "fp32", "bf16", "fp16"]


class Machine(Options):
    """What to compute on."""

    device: str = flag("Device: auto, cpu, cuda, cuda:1 or mps.", default="auto", changes_result=False)
    precision: Precision = flag("Numeric precision.", default="auto")
    seed: int = flag("Random seed.", default=0, min=0, max=2**32 - 1, changes_result=False)


class Overwritable(Options):
    """How to treat an output that exists."""

    overwrite: bool = flag(
        "Start over, or resume an interrupted run.",
        default=False,
        name="--overwrite/--resume",
        changes_result=False,
    )


class Resumable(Overwritable):
    """How to treat an output that exists, and records that cannot be used."""

    strict: bool = flag("Stop at the first record that cannot be used.", default=False, changes_result=False)


class Summarised(Options):
    """How the result of a data command is told."""

    json: bool = flag(
        "Print what was done as one JSON object on standard output; needs -o FILE.", default=False, changes_result=False
    )


class ImageWorkers(Options):
    """How images are decoded."""

    workers: int | None = flag(
        "Processes that decode images.", default=None, shown="one per core", min=0, changes_result=False
    )
