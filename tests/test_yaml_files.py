"""YAML that others wrote: what is refused, and what the scalars become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from capivara_cli.errors import CapivaraError
from capivara_cli.yaml_files import MAX_BYTES, MAX_NODES, parse_yaml, read_yaml

BOMB = "a: &a [x]\n" + "".join(
    f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcde", "bcdef", strict=True)
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 5000, "nested more than 50 deep: line 1, column 51"),
        (BOMB, "an alias (*) is not allowed: line 2, column 8"),
        ("a: 1\nb: {c: 1,\n  c: 2}", "the key c is repeated: line 3, column 3"),
        ("{[1]: 2}", "a key that is not a text: line 1, column 2"),
        ('- "\\ud800"', "half of a character (a lone surrogate): line 1, column 3"),
        ("a: !!python/object:os.system {}", "a tag (tag:yaml.org,2002:python/object:os.system) is not allowed"),
        ("a: !!bool x", "a tag (tag:yaml.org,2002:bool) is not allowed"),
        ("[" + "a, " * MAX_NODES + "a]", f"more than {MAX_NODES:,} keys and values"),
        ("x: " + "1" * 6000, "Exceeds the limit"),
        ("a: [", "expected the node content"),
    ],
)
def test_what_costs_too_much_or_means_two_things_is_refused_with_its_position(
    text: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "r.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(CapivaraError) as caught:
        read_yaml(tmp_path / "r.yaml")
    assert caught.value.message.startswith(f"{tmp_path / 'r.yaml'} is not YAML: ")
    assert reason in caught.value.message


def test_a_file_is_not_read_whole_to_see_that_it_is_too_large(tmp_path: Path) -> None:
    with (tmp_path / "r.yaml").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(CapivaraError, match=rf"r\.yaml is larger than {MAX_BYTES >> 20} MiB"):
        read_yaml(tmp_path / "r.yaml")


@pytest.mark.parametrize("content", [b"\xff\xfe\xff", b"a\0b"])
def test_what_is_no_text_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(content)
    with pytest.raises(CapivaraError, match=r"r\.yaml is not YAML: \S"):
        read_yaml(tmp_path / "r.yaml")


@pytest.mark.parametrize(
    ("text", "everything", "numbers", "texts"),
    [
        ("no", False, "no", "no"),
        ("0", 0, 0, "0"),
        ("1.5", 1.5, 1.5, "1.5"),
        ("1e-5", 1e-5, "1e-5", "1e-5"),
        ("null", None, None, None),
        ("2024-01-01", "2024-01-01", "2024-01-01", "2024-01-01"),
    ],
)
def test_scalars_become_more_than_texts_only_where_that_is_meant(
    text: str, everything: Any, numbers: Any, texts: Any
) -> None:
    assert parse_yaml(text, "x") == everything
    assert parse_yaml(text, "x", "numbers") == numbers
    assert parse_yaml(text, "x", "texts") == texts
