from __future__ import annotations

import resource
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capivara_cli.data.spill import Spill
from capivara_cli.errors import CapivaraError

TEXT = st.text(st.characters(), max_size=3)  # with lone surrogates


@given(st.lists(st.tuples(TEXT, TEXT)), TEXT)
def test_it_is_a_dict_of_lists(items: list[tuple[str, str]], other_key: str) -> None:
    expected: dict[str, list[str]] = {}
    with Spill() as spill:
        for key, value in items:
            spill.add(key, value)
            expected.setdefault(key, []).append(value)
        assert list(spill.groups()) == list(expected.values())
        assert len(spill) == len(items)
        for key in (*expected, other_key):
            values = expected.get(key, [])
            assert [spill.get(key, i) for i in range(len(values) + 1)] == [*values, None]


@given(st.lists(st.tuples(TEXT, TEXT)))
def test_it_is_a_dict_of_first_values(items: list[tuple[str, str]]) -> None:
    expected: dict[str, str] = {}
    with Spill() as spill:
        for key, value in items:
            assert spill.setdefault(key, value) == expected.get(key)
            expected.setdefault(key, value)
        assert len(spill) == len(expected)


def fill(spill: Spill) -> None:
    for number in range(60_000):
        spill.add(number, "x" * 1000)


def test_a_full_temporary_folder_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit on the size of a file stands for a full disk: the write fails in the same manner."""
    monkeypatch.setenv("SQLITE_TMPDIR", str(tmp_path))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Spill() as spill:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
        try:
            with pytest.raises(CapivaraError, match="the temporary folder cannot be written") as error:
                fill(spill)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "TMPDIR" in (error.value.hint or "")
