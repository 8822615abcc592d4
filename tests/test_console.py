from __future__ import annotations

import pytest

from capivara_cli import console
from capivara_cli.errors import CapivaraError, explained


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("[bold]a[/bold]", "[bold]a[/bold]"),
        (":dog:", ":dog:"),
        ("\x1b[31m", "\\x1b[31m"),
        ("चित्र", "चित्र"),
        ("a\nb.jpg", "a\\nb.jpg"),
    ],
)
def test_captions_and_paths_are_printed_as_they_are(
    text: str, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    console.say(text)
    table = console.table(text, title=text)
    table.add_row(console.clean(text))
    console.show(table)
    assert [line.strip() for line in capsys.readouterr().err.splitlines() if printed in line] == [printed] * 4


def test_numbers_are_right_aligned_below_their_header(capsys: pytest.CaptureFixture[str]) -> None:
    table = console.table("lang", "captions")
    table.add_row("hi", "12")
    console.show(table)
    header, _, row = (line.rstrip() for line in capsys.readouterr().err.splitlines() if line.strip())
    assert header.split() == ["lang", "captions"]
    assert row.split() == ["hi", "12"]
    assert len(header) == len(row)


def test_only_the_first_rank_prints(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    console.say("message")
    console.answer("result")
    assert capsys.readouterr() == ("", "")


def test_an_answer_with_a_name_that_is_not_utf_8_is_printed_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    console.answer('{"id": "\ud800"}')
    assert capsys.readouterr().out == '{"id": "\\ud800"}\n'


@pytest.mark.parametrize(
    ("number", "noun", "text"), [(0, "image", "0 images"), (1, "image", "1 image"), (2000, "class", "2,000 classes")]
)
def test_nouns_agree_with_their_numbers(number: int, noun: str, text: str) -> None:
    assert console.counted(number, noun) == text


def test_a_library_that_repeats_a_whole_file_is_cut_short() -> None:
    with pytest.raises(CapivaraError) as raised, explained("x.xlsx cannot be read", ValueError):
        raise ValueError("b'PK" + "\\x00" * 5000)
    assert raised.value.message.startswith("x.xlsx cannot be read: b'PK")
    assert len(raised.value.message) < 1100
