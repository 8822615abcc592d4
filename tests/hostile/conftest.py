"""Folders of models that are changed a little, and how loading them ends."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from capivara_cli.errors import CapivaraError
from capivara_cli.models import checkpoint
from capivara_cli.models.spec import ModelSpec
from capivara_cli.runtime import Runtime

HUGE = 10**9
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


def fuzzing(examples: int) -> settings:
    """Return how often a test is tried: this often, or 10,000 times by `make fuzz`. All tries share a folder."""
    tries = 10_000 if os.environ.get("FUZZ") else examples
    unchecked = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=tries, deadline=None, suppress_health_check=unchecked)


# Few, because loading a model takes a tenth of a second; the folder is copied anew for each.
fuzz = fuzzing(60)


@st.composite
def damaged(draw: st.DrawFn, *contents: bytes) -> bytes:
    """Draw one of the contents with some bytes changed, removed, inserted or repeated, or cut short."""
    content = bytearray(draw(st.sampled_from(contents)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(start + draw(st.sampled_from([0, 1, 1, 2, 4, 64, len(content)])), len(content))
        content[start:end] = draw(st.binary(max_size=4) | st.just(bytes(content[start:end]) * 3))
    return bytes(content)


def refusal_of(call: Callable[[], object]) -> str | None:
    """Return the message of the CapivaraError that the call raises, or None; any other exception fails the test."""
    try:
        call()
    except CapivaraError as error:
        message = error.message
        assert re.search(r"[^:\s]\s*$", message), message  # announces nothing
        for foreign in ("Error:", "Error(", "StopIteration", "object has no attribute", "Traceback"):
            assert foreign not in message, message
        return message
    return None


@pytest.fixture
def folder(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "model"))


def edit_json(path: Path, **values: Any) -> None:
    """Change keys of a JSON file; `a__b` is the key b in a."""
    content = json.loads(path.read_text()) if path.is_file() else {}
    for name, value in values.items():
        *parents, last = name.split("__")
        inner = content
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = value
    path.write_text(json.dumps(content))


def load_or_refuse(name: str, **options: Any) -> None:
    with suppress(CapivaraError):
        checkpoint.load(ModelSpec(name, **options), Runtime.start("cpu", "fp32"))


def refusal(name: str, **options: Any) -> str:
    """Return the one line that a model which cannot be loaded is refused with."""
    with pytest.raises(CapivaraError) as error:
        checkpoint.load(ModelSpec(name, **options), Runtime.start("cpu", "fp32"))
    message = error.value.message
    assert not message.rstrip().endswith(":"), message
    assert "Error: " not in message
    return message
