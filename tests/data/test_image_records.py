"""One record per image, for training and evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from capivara_cli.data import image_records
from capivara_cli.errors import CapivaraError


def write(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def caption(text: str, lang: str = "en", **keys: int) -> dict[str, Any]:
    return {"text": text, "lang": lang, **keys}


def test_records_of_one_image_are_merged_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = write(
        tmp_path / "a.jsonl",
        {"id": "1", "image": "dog.jpg", "captions": [caption("a dog")], "label": "dog"},
        {"id": "2", "image": "cat.jpg"},
        {
            "id": "3",
            "image": "./dog.jpg",
            "captions": [caption("brown"), caption("a dog"), caption("um", "pt", parent=1)],
        },
    )
    two = write(tmp_path / "b.jsonl", {"id": "1", "file_name": "cat.jpg", "captions": [caption("a cat")]})
    dog, cat = image_records.read_all([one, two])
    assert dog.data == {
        "id": "1",
        "image": "dog.jpg",
        "captions": [caption("a dog"), caption("brown"), caption("um", "pt", parent=0)],
        "label": "dog",
    }
    assert (cat.id, cat.captions) == ("2", [caption("a cat")])
    assert "2 records of an image that came before" in " ".join(capsys.readouterr().err.split())


def test_ids_may_repeat_between_sources_and_not_within_one(tmp_path: Path) -> None:
    one = write(tmp_path / "a.jsonl", {"id": "1", "image": "1.jpg"})
    two = write(tmp_path / "b.jsonl", {"id": "1", "image": "2.jpg"})
    assert [record.image.path for record in image_records.read_all([one, two])] == [
        str(tmp_path / "1.jpg"),
        str(tmp_path / "2.jpg"),
    ]
    three = write(
        tmp_path / "c.jsonl", {"id": "1", "image": "1.jpg"}, {"id": "2", "image": "2.jpg"}, {"id": 1, "image": "3"}
    )
    with pytest.raises(CapivaraError, match=r"c\.jsonl:3: the id 1 is also that of .*c\.jsonl:1"):
        image_records.read_all([three])


def test_no_record_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CapivaraError, match=r"a\.jsonl: no records in it"):
        image_records.read_all([write(tmp_path / "a.jsonl")])


@pytest.mark.parametrize(("images", "captions", "warns"), [(20, 3, True), (20, 2, False), (19, 9, False)])
def test_an_image_with_more_than_a_tenth_of_the_captions_is_named(
    images: int, captions: int, warns: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [{"id": str(i), "image": f"{i}.jpg", "captions": [caption("a")]} for i in range(images)]
    records[7]["captions"] = [caption(f"text {i}") for i in range(captions)]
    image_records.read_all([write(tmp_path / "a.jsonl", *records)])
    said = " ".join(capsys.readouterr().err.split())
    assert ("a.jsonl:8: one image, 7, has 3 of 22 captions" in said) == warns
