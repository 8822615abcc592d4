"""Recipes, capivara.yaml and --set that nobody should write: options, or one line that says what is wrong."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capivara_cli.config import resolve
from capivara_cli.errors import BadOption, CapivaraError
from capivara_cli.options import fields, flags
from capivara_cli.scoring.options import ScoreOptions
from capivara_cli.training.options import TrainOptions, to_yaml, train_options

fuzz = settings(
    max_examples=10_000 if os.environ.get("FUZZ") else 150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
RECIPE = b"""lang: [hi]
data: {train: [a.jsonl], val: b.jsonl}
model: {name: xlm-roberta-base-ViT-B-32, pretrained: laion5b_s13b_b90k}
optimizer: {lr: 1e-5, betas: [0.9, 0.98], warmup_steps: 50}
lora: {r: 8, target_modules: [query, value]}
replay: {en: 0.25}
seed: 3
"""
PATHS = [path for path, _ in flags(TrainOptions)]
SECTIONS = [name for name, field in fields(TrainOptions).items() if field.section is not None]
NAMES = st.sampled_from([*PATHS, *SECTIONS, *fields(TrainOptions), "keep", "train", "score"]) | st.text(max_size=4)
NUMBERS = st.sampled_from([0, -1, 10**22, 1e300, float("nan"), float("inf"), 0.5])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Draw the recipe with some bytes changed, removed, inserted or repeated."""
    content = bytearray(RECIPE)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = start + draw(st.sampled_from([0, 1, 2, 8, 64]))
        content[start:end] = draw(st.binary(max_size=4) | st.sampled_from([b"[", b"*a", b"&a ", b"!!", b": ", b"\n"]))
    return bytes(content)


def settle(make: Callable[[], object]) -> CapivaraError | None:
    """Return the refusal, which must say something; None if there is none. Any other exception fails the test."""
    refusal = None
    try:
        make()
    except CapivaraError as error:
        refusal = error
    if refusal is not None:
        message = refusal.message.rstrip()
        assert message
        assert not message.endswith(":"), message
        assert not any(word in message for word in ("Error:", "Error(", "has no attribute")), message
    return refusal


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def train_by(recipe: str) -> TrainOptions:
    options = train_options("lora", recipe=recipe, lang=["hi"], data=["a.jsonl"])
    Path("again.yaml").write_text(to_yaml(options), encoding="utf-8")
    assert to_yaml(train_options(recipe="again.yaml")) == to_yaml(options)  # what is accepted can be read again
    return options


@fuzz
@given(damaged())
def test_a_damaged_recipe_is_read_or_refused(content: bytes) -> None:
    Path("r.yaml").write_bytes(content)
    settle(lambda: train_by("r.yaml"))


@fuzz
@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_a_recipe_of_any_values_is_read_or_refused(values: dict[str, Any]) -> None:
    Path("r.yaml").write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    settle(lambda: train_by("r.yaml"))


@fuzz
@given(st.dictionaries(NAMES, VALUES, max_size=3), st.dictionaries(NAMES, VALUES, max_size=3))
def test_a_project_file_of_any_values_is_read_or_refused(top: dict[str, Any], section: dict[str, Any]) -> None:
    text = yaml.safe_dump({**top, "score": section}, allow_unicode=True)
    Path("capivara.yaml").write_text(text, encoding="utf-8")
    settle(lambda: resolve(ScoreOptions, {}, TrainOptions))


@fuzz
@given(st.builds("=".join, st.tuples(NAMES, st.text(max_size=8) | VALUES.map(repr))) | st.text(max_size=12))
def test_a_set_of_any_value_is_taken_or_a_usage_error(text: str) -> None:
    refusal = settle(lambda: train_options("lora", set=[text], lang=["hi"], data=["a.jsonl"]))
    usage = refusal is None or isinstance(refusal, BadOption) or "--replay" in str(refusal)  # a language named train
    assert usage or "=" not in text or "train" not in str(refusal)
