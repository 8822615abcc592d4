"""The machinery of flags and settings, in options classes of its own."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from capivara_cli.data.languages import Langs
from capivara_cli.errors import BadOption
from capivara_cli.options import ImageWorkers, Machine, Options, flag, flags, key, plain
from capivara_cli.values import AutoOrCount

Kind = Literal["oil", "ink"]


class Adam(Options):
    lr: float = flag("Highest learning rate.", default=1e-5, above=0)
    betas: tuple[float, float] = key("Decay.", default=(0.9, 0.98))
    name: Literal["adam", "adamw"] = key("Kind.", default="adamw")


class Paint(ImageWorkers, Machine):
    """How to paint."""

    to: Langs = flag("Languages.", metavar="LANG")
    origin: str = flag("Language.", default="en", name="--from")
    size: AutoOrCount = flag("Size.", default=None)
    share: float | None = flag("Share.", default=None, min=0, below=1)
    folder: Path | None = flag("Folder.", default=None, changes_result=False)
    kind: Kind | None = flag("Kind.", default=None)
    fresh: bool = flag("Start over.", default=False, name="--fresh/--old")
    layers: Sequence[str] = flag("Layers.", default=("q", "v"))
    shares: dict[str, float] = key("Shares.", default={})
    adam: Adam = key("The optimiser.", default={})


def paint(**values: Any) -> Paint:
    return Paint(**{"to": ["hi"]} | values)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("to", ["hi,xh", "pt", "hi"], ("hi", "xh", "pt")),
        ("size", "auto", None),
        ("size", "16", 16),
        ("share", "1e-5", 1e-5),  # as YAML 1.1 reads it
        ("share", 0, 0.0),
        ("seed", 1e2, 100),
        ("seed", 2**32 - 1, 2**32 - 1),
        ("folder", "a/b", Path("a/b")),
        ("kind", "ink", "ink"),
        ("layers", ["k"], ("k",)),
        ("shares", {"en": "0.5"}, {"en": 0.5}),
        ("adam", {"lr": "0.1"}, Adam(lr=0.1)),
    ],
)
def test_a_value_becomes_one_of_the_fields_type(name: str, value: object, expected: object) -> None:
    converted = getattr(paint(**{name: value}), name)
    assert converted == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("to", [], "no language: --to LANG is missing"),
        ("to", ",", "--to ,: no language in it"),
        ("to", [False], "--to False: not a list of texts"),  # `to: [no]` in YAML
        ("origin", 3, "--from 3: not a text"),
        ("size", "few", "--size few: neither auto nor a number of at least 1"),
        ("share", -0.5, "--share -0.5: must be at least 0"),
        ("share", 1, "--share 1: must be below 1"),
        ("share", "much", "--share much: not a number"),
        ("share", float("nan"), "--share nan: not a number"),
        ("seed", 2.5, "--seed 2.5: not a whole number"),
        ("seed", None, "--seed None: not a number"),
        ("precision", "fp61", "--precision fp61: not one of auto, fp32, bf16, fp16, did you mean fp16?"),
        ("fresh", "yes", "--fresh yes: neither true nor false"),
        ("layers", "q", "--layers q: not a list"),
        ("folder", 3, "--folder 3: not a path"),
        ("shares", {"en": "x"}, "shares = {'en': 'x'}: not a number"),
        ("adam", {"lr": 0, "betas": [1]}, "--lr 0: must be above 0\n       adam.betas = [1]: not a list of 2 values"),
        ("adam", 3, "adam = 3: not keys and values"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_the_reason(name: str, value: object, message: str) -> None:
    with pytest.raises(BadOption) as error:
        paint(**{name: value})
    assert error.value.message == message
    assert error.value.exit_code == 2


def test_a_field_that_no_class_has_is_refused_with_the_nearest() -> None:
    with pytest.raises(TypeError, match="Paint has no shar, did you mean share"):
        paint(shar=1)


def test_options_do_not_change_and_replace_returns_others() -> None:
    options = paint()
    with pytest.raises(AttributeError, match=r"options\.replace\(seed=3\)"):
        options.seed = 3  # type: ignore[misc]
    other = options.replace(seed=3, adam=options.adam.replace(lr=1))
    assert (options.seed, other.seed, other.adam.lr, other.to) == (0, 3, 1.0, ("hi",))
    assert options == paint() != other
    assert hash(options) == hash(paint())
    with pytest.raises(BadOption, match="--seed -1: must be at least 0"):
        options.replace(seed=-1)


def test_the_settings_are_what_the_result_depends_on_in_jsons_types() -> None:
    assert paint(to="hi,pt", folder="x", seed=3).settings() == {
        "to": ["hi", "pt"],
        "from": "en",
        "size": None,
        "share": None,
        "kind": None,
        "fresh": False,
        "layers": ["q", "v"],
        "shares": {},
        "adam": {"lr": 1e-5, "betas": [0.9, 0.98], "name": "adamw"},
        "precision": "auto",
    }
    assert plain(paint(folder="x"))["folder"] == "x"


def test_flags_are_those_of_the_class_then_the_inherited_ones_with_their_paths() -> None:
    assert [(path, field.name) for path, field in flags(Paint)] == [
        ("to", "--to"),
        ("origin", "--from"),
        ("size", "--size"),
        ("share", "--share"),
        ("folder", "--folder"),
        ("kind", "--kind"),
        ("fresh", "--fresh/--old"),
        ("layers", "--layers"),
        ("adam.lr", "--lr"),
        ("workers", "--workers"),
        ("device", "--device"),
        ("precision", "--precision"),
        ("seed", "--seed"),
    ]


def test_a_notebook_sees_the_fields_and_the_values() -> None:
    parameters = inspect.signature(Paint).parameters
    assert list(parameters)[:3] == ["to", "origin", "size"]
    assert parameters["to"].default is inspect.Parameter.empty
    assert parameters["origin"].default == "en"
    assert repr(Adam()) == "Adam(lr=1e-05, betas=(0.9, 0.98), name='adamw')"
