from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from capivara_cli.errors import CapivaraError
from tests.sources import imported, json_lines, rejected, table, texts


def captioned(count: int = 4) -> str:
    """Write records with two English captions each."""
    return json_lines(
        "in.jsonl",
        *(
            {
                "id": f"{n}.png",
                "image": f"images/{n}.png",
                "captions": [{"text": f"text {n}", "lang": "en"}, {"text": f"more {n}", "lang": "en"}],
            }
            for n in range(count)
        ),
    )


def added(record: dict[str, Any], lang: str = "pt") -> list[tuple[str, int | None]]:
    """Return text and parent of the translations."""
    return [(caption["text"], caption.get("parent")) for caption in record["captions"] if caption["lang"] == lang]


@pytest.mark.parametrize("count", [7, 9])
def test_another_number_of_lines_is_an_error(count: int, folder: Path) -> None:
    Path("pt.txt").write_text("linha\n" * count)
    with pytest.raises(CapivaraError, match=f"pt.txt has {count} lines, and there are 8 captions in en"):
        imported(captioned(), translations=Path("pt.txt"), to="pt")
    assert not Path("out.jsonl").exists()


def test_lines_of_scattered_captions_follow_the_files_order(folder: Path) -> None:
    source = table("t.csv", ["filepath", "title"], ["images/1.png", "a"], ["images/2.png", "b"], ["images/1.png", "c"])
    table("pt.csv", ["legenda a"], ["legenda b, com vírgula"], ["legenda c"])
    records = imported(source, translations=Path("pt.csv"), to="pt")
    assert texts(records[0]) == ["a", "c"]
    assert [added(record) for record in records] == [
        [("legenda a", 0), ("legenda c", 1)],
        [("legenda b, com vírgula", 0)],
    ]


def test_captions_keep_their_own_parents(folder: Path) -> None:
    captions: list[dict[str, Any]] = [
        {"text": "first", "lang": "en"},
        {"text": "again", "lang": "en", "parent": 0},
        {"text": "x", "lang": "en", "parent": 1},
    ]
    Path("pt.txt").write_text("pt first\npt again\npt x\n")
    keys = ["filepath", "title", "lang", "source", "prefix", "parent", "score", "more", "id"]
    rows = [["images/1.png", c["text"], "en", "", "", str(c.get("parent", "")), "", "{}", "1"] for c in captions]
    for source in (
        json_lines("in.jsonl", {"id": "1", "image": "images/1.png", "captions": captions}),
        table("in.csv", keys, *rows),  # as `export csv` writes it
    ):
        [record] = imported(source, translations=Path("pt.txt"), to="pt")
        assert record["captions"][:3] == captions
        assert added(record) == [("pt first", 0), ("pt again", 1), ("pt x", 2)]


def test_two_records_of_one_id_stay_two(folder: Path) -> None:
    records = [{"id": "1", "image": f"images/{i}.png", "captions": [{"text": "a", "lang": "en"}]} for i in (1, 2)]
    Path("pt.txt").write_text("um\ndois\n")
    [record] = imported(json_lines("in.jsonl", *records), translations=Path("pt.txt"), to="pt")
    assert added(record) == [("um", 0)]
    assert list(rejected().values()) == ["in.jsonl:2: its id is that of in.jsonl:1 too"]


def test_what_found_no_partner_is_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table("pt.tsv", ["text 1", "um"], ["3.png#1", "mais três"], ["9.png#0", "nada"], delimiter="\t")
    records = imported(captioned(), translations=Path("pt.tsv"), to="pt")
    assert [added(record) for record in records] == [[], [("um", 0)], [], [("mais três", 1)]]
    said = capsys.readouterr().err
    assert "6 captions without a translation" in said
    assert "1 translation of no caption" in said


def test_keys_are_compared_in_one_normal_form(folder: Path) -> None:
    source = table("t.csv", ["filepath", "title"], ["images/1.png", "caf\u00e9"])
    table("pt.tsv", ["text", "hi"], ["cafe\u0301", "कैफ़े"], delimiter="\t")
    [record] = imported(source, translations=Path("pt.tsv"), to="hi")
    assert texts(record, "hi") == ["कैफ़े"]


def test_a_row_without_a_translation_is_refused(folder: Path) -> None:
    Path("pt.tsv").write_text("x\tX\ny\n")
    with pytest.raises(CapivaraError, match=r"pt\.tsv:2: 1 fields: no translation"):
        imported(captioned(), translations=Path("pt.tsv"), to="pt")
