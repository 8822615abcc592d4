"""Folders of images, WebDataset shards, and our own records."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import write_tar
from tests.sources import imported, picture, rejected, shard, texts

Says = pytest.CaptureFixture[str]


def tar(name: str, **contents: bytes) -> str:
    """Write a tar with members of any name: `{"1.png": b"…"}`."""
    return str(write_tar(Path(name), contents))


def test_folders_deeper_than_one_are_not_classes(folder: Path) -> None:
    for name in ("albums/2020/may/1.png", "albums/2021/2.png"):
        picture(name)
    assert not any("label" in record for record in imported("albums"))
    assert [record["label"] for record in imported("albums", labels=True)] == ["2020", "2021"]


def test_texts_beside_an_image_in_another_encoding(folder: Path) -> None:
    picture("in/1.png")
    Path("in/1.txt").write_bytes("café".encode("latin-1"))
    assert texts(imported("in", encoding="latin-1")[0]) == ["café"]


def test_a_folder_of_shards_with_the_tables_of_img2dataset(folder: Path) -> None:
    for number in (1, 2):
        sample = {"__key__": str(number), "png": Path("images/1.png").read_bytes(), "txt": f"text {number}"}
        shard(f"{number}.tar", sample)
        Path(f"{number}.parquet").touch()
    assert [(record["image"], texts(record)) for record in imported(".")] == [
        ("1.tar#1.png", ["text 1"]),
        ("2.tar#2.png", ["text 2"]),
    ]


def test_the_published_capivara_shards_that_were_not_scored(folder: Path) -> None:
    """Scoring put the generated captions behind the human ones, in place: that is one of the golden cases."""
    keys = {
        "captions-en": ["human"],
        "captions-pt": ["humana", "humana outra"],
        "generated-captions-en": ["made one", "made two"],
        "generated-captions-pt": ["gerada um", "gerada dois"],
    }
    shard("0.tar", {"__key__": "sample00000", "png": Path("images/1.png").read_bytes(), "json": keys})
    [record] = imported("0.tar")
    assert [(caption["text"], caption.get("parent")) for caption in record["captions"]] == [
        ("human", None),
        ("made one", None),
        ("made two", None),
        ("humana", 0),
        ("humana outra", 0),
        ("gerada um", 1),
        ("gerada dois", 2),
    ]


def test_a_tar_cut_short_gives_its_whole_members_and_names_the_loss(folder: Path, capsys: Says) -> None:
    image = Path("images/1.png").read_bytes()
    tar("0.tar", **{f"{number}.png": image for number in range(5)})
    Path("0.tar").write_bytes(Path("0.tar").read_bytes()[: 3 * 1024 + 550])
    assert [record["id"] for record in imported("0.tar")] == ["0", "1", "2"]
    assert "0.tar is truncated: 3.png is incomplete" in " ".join(capsys.readouterr().err.split())


def test_members_with_absolute_paths_or_dots_are_refused(folder: Path, capsys: Says) -> None:
    tar("0.tar", **{"/etc/1.png": b"data", "../2.png": b"data", "3.png": b"data"})
    assert [record["id"] for record in imported("0.tar")] == ["3"]
    assert "2 members left out" in capsys.readouterr().err


def test_one_bad_sample_or_line_does_not_cost_the_others(folder: Path) -> None:
    members: dict[str, bytes] = {}
    for number, sidecar in enumerate([b'{"caption": "good"}', b"{", b"[1]", b'{"captions": ["a", "b"]}']):
        members |= {f"{number}.png": Path(f"images/{number}.png").read_bytes(), f"{number}.json": sidecar}
    assert [texts(record) for record in imported(tar("s.tar", **members))] == [["good"]]
    assert len(rejected()) == 3
    Path("in.jsonl").write_bytes(
        b'{"image": "images/1.png"}\n{\n[]\n{"id": "x"}\n{"image": "\xff.png"}\n{"image": "images/2.png"}\n'
    )
    assert [record["image"] for record in imported("in.jsonl")] == ["images/1.png", "images/2.png"]
    reasons = ["not JSON", "a list, not an object", "no `image`", "not UTF-8"]
    assert all(map(str.startswith, rejected().values(), reasons))
    assert len(rejected()) == len(reasons)
