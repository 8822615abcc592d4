from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capivara_cli.errors import CapivaraError
from capivara_cli.importing import json_stream
from capivara_cli.importing.json_stream import elements

VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    value=st.dictionaries(st.text(max_size=6), VALUE, max_size=5) | st.lists(VALUE, max_size=5),
    indent=st.none() | st.integers(0, 3),
    escaped=st.booleans(),
    chunk=st.integers(1, 12),
)
def test_elements_are_those_of_json(
    value: Any, indent: int | None, escaped: bool, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the file's form, and wherever a chunk of it ends."""
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    path = tmp_path / "x.json"
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=escaped), encoding="utf-8", errors="surrogatepass")
    expected: list[tuple[str, Any]] = []
    for key, own in [("", value)] if isinstance(value, list) else value.items():
        expected += [(key, each) for each in own] if isinstance(own, list) else [(key, own)]
    try:
        path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        with pytest.raises(CapivaraError, match="not UTF-8"):
            list(elements(path))
        return
    assert list(elements(path)) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": [1, 2', r"x\.json:1: not JSON: cut short"),
        ('{"a": [1,\n\n, 2]}', r"x\.json:3: not JSON"),
        ('{"a" 1}', "not JSON: : is missing"),
        ("{1: 2}", "not JSON: a key is no text"),
        ('"text"', "not JSON: { is missing"),
        ("", "not JSON: cut short"),
    ],
)
def test_what_is_not_json_is_said_with_its_line(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(CapivaraError, match=message):
        list(elements(tmp_path / "x.json"))


def test_a_mark_at_the_beginning_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('\ufeff{"a": [1]}', encoding="utf-8")
    assert list(elements(tmp_path / "x.json")) == [("a", 1)]
