"""What captions begin with."""

from __future__ import annotations

from pathlib import Path

import pytest

from capivara_cli.captioning.prefixes import read_prefixes
from capivara_cli.errors import CapivaraError

RECIPE = (
    "the foreground features",
    "a photo of",
    "a picture of",
    "this is a scene depicting",
    "an image of",
    "portrait of a",
    "this image captures a moment of",
    "a painting of",
    "an art of",
    "the picture shows",
)


def test_the_recipes_ten_are_the_default() -> None:
    assert read_prefixes(None, "en") == RECIPE


def test_none_is_one_empty_prefix() -> None:
    assert read_prefixes("none", "pt") == ("",)


@pytest.mark.parametrize(
    ("name", "content"),
    [("p.yaml", "- a  photo of\n- there is\n- a photo of\n- ''\n"), ("p.txt", "a photo of\n\n there is \na photo of")],
)
def test_a_list_is_read_without_repetitions(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    assert read_prefixes(tmp_path / name, "xh") == ("a photo of", "there is")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a photo of\nthere is", "not a list of texts"),
        ("- 1\n- 2", "not a list of texts"),
        ("- [", "is not YAML"),
        ("[]", "no prefixes in it"),
        ("- ' '", "no prefixes in it"),
        ("", "not a list of texts"),
        ("en:\n- a photo of", "not a list of texts"),
        ("- a photo of\n- [there is]", "not a list of texts"),
        ("- a photo of\n- no", "not a list of texts"),
        ("- !!python/name:os.system", "is not YAML"),
        ("- a\0b", "is not YAML"),
        pytest.param("[" * 5000, "", id="deep"),
    ],
)
def test_a_file_that_is_not_a_list_of_texts_is_refused_by_name(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(content)
    with pytest.raises(CapivaraError, match=rf"p\.yaml.*{message}"):
        read_prefixes(tmp_path / "p.yaml", "en")


@pytest.mark.parametrize(
    "lang", ["hi", "../prefixes/en", "en/../en", "../capivara", "../x", "/etc/passwd", "..", "", "EN"]
)
def test_a_language_without_a_list_is_refused(lang: str) -> None:
    with pytest.raises(CapivaraError, match="no prefixes for"):
        read_prefixes(None, lang)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(CapivaraError, match=r"cannot read gone\.yaml: No such file"):
        read_prefixes("gone.yaml", "en")


def test_an_empty_text_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text(" \n\n\t\n")
    with pytest.raises(CapivaraError, match=r"p\.txt: no prefixes in it"):
        read_prefixes(tmp_path / "p.txt", "en")


@pytest.mark.parametrize("name", ["p.yaml", "p.txt"])
def test_a_file_that_is_not_text_is_refused_by_name(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes("- uma foto de um cão".encode("latin-1"))
    with pytest.raises(CapivaraError, match=rf"cannot read .*{name}: not UTF-8 text") as error:
        read_prefixes(tmp_path / name, "pt")
    assert error.value.hint == "--prefixes none uses no prefixes"
    with pytest.raises(CapivaraError, match=r"cannot read .*: Is a directory"):
        read_prefixes(tmp_path, "pt")


@pytest.mark.parametrize(("name", "content"), [("p.yaml", "- a photo of\n- там\n"), ("p.txt", "a photo of\r\nтам\r\n")])
def test_a_byte_order_mark_is_not_part_of_a_prefix(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8-sig", newline="")
    assert read_prefixes(tmp_path / name, "ru") == ("a photo of", "там")
