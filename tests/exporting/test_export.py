"""`capivara export`: what it writes is read back by the tools that own the format, and by `capivara import`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from capivara_cli.data import images
from capivara_cli.data.images import ImageRef
from capivara_cli.errors import BadOption, CapivaraError
from capivara_cli.exporting.export import export
from capivara_cli.exporting.options import ExportOptions, Format
from capivara_cli.folders import MARKER
from tests.conftest import Refused
from tests.exporting.conftest import ODD, answer, imported, run, write
from tests.helpers import read_jsonl

FOLDERS: tuple[Format, ...] = ("webdataset", "imagefolder")


def without_image(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records without what an export may change: the image's name, and an empty list of captions."""
    return [
        {key: value for key, value in record.items() if key != "image" and (key, value) != ("captions", [])}
        for record in records
    ]


def content(folder: str) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    ("format", "name"), [("webdataset", "out"), ("imagefolder", "out"), ("csv", "o.csv"), ("csv", "o.tsv")]
)
def test_what_was_exported_comes_back_whole(format: Format, name: str, source: str) -> None:
    run(format, source, name, shard_size=40)
    before, after = read_jsonl(Path(source)), imported(name)
    assert without_image(after) == without_image(before)
    for old, new in zip(before, after, strict=True):
        assert images.content(ImageRef.parse(new["image"], Path.cwd())) == Path(old["image"]).read_bytes()


@pytest.mark.parametrize("format", ["webdataset", "imagefolder", "csv"])
def test_records_with_the_keys_of_other_tools_come_back_too(format: Format, source: str) -> None:
    english = {"text": "a", "lang": "en"}
    rows: list[dict[str, Any]] = [
        {"captions-hi": None, "captions": [{"text": "a", "lang": "en", "score": 0.5}]},
        {"captions-pt": ["x"], "captions": [{"text": "b", "lang": "pt"}]},
        {"text": "mine", "captions": [english]},
        {"caption": "mine", "nothing": None},
        {"captions": [english | {"text": ""}, english, {"text": "line\n" * 300, "lang": "hi", "parent": 1}]},
    ]
    rows = [{"id": str(i), "image": "images/1.png", **row} for i, row in enumerate(rows)]
    name = "out.csv" if format == "csv" else "out"
    run(format, write("odd.jsonl", rows), name)
    assert without_image(imported(name)) == without_image(rows)


READS_FOLDER = """
import json
import datasets

rows = datasets.load_dataset("imagefolder", data_dir="folder", split="train", cache_dir="hf")
row = rows[5]
print(json.dumps({"columns": rows.column_names, **row, "image": row["image"].size}))
"""


def test_datasets_reads_the_image_folder(source: str) -> None:
    pytest.importorskip("datasets")
    run("imagefolder", write("plain.jsonl", read_jsonl(Path(source))[len(ODD) :]), "folder")
    assert answer(READS_FOLDER) == {
        "columns": ["image", "id", "text", "captions", "label"],
        "id": "p5",
        "text": "text 5",
        "image": [9, 8],
        "captions": [{"text": "text 5", "lang": "en"}],
        "label": "2",
    }


# --- images and names


def test_ids_of_records_are_not_names_of_files(source: str) -> None:
    ids = ["../../evil", "/etc/x"]
    write("evil.jsonl", [{"id": id_, "image": "images/1.png"} for id_ in ids])
    for folder in FOLDERS:
        run(folder, "evil.jsonl", f"deep/{folder}", prefix="x")
    written = {path.name for path in Path.cwd().rglob("*") if path.is_file() and path.parent.name != "images"}
    assert written == {"in.jsonl", "evil.jsonl", "x00000.tar", "sizes.json", "metadata.jsonl", MARKER} | {
        f"x00000000{i}.png" for i in range(2)
    }


def test_images_that_cannot_be_read_are_named(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("images/1.png").unlink()
    run("webdataset", source, "shards")
    said = capsys.readouterr().err
    assert "1 of 103 records rejected\n  a/1.x: no such file" in said
    assert "wrote shards: 102 images" in said
    with pytest.raises(CapivaraError, match=r"in\.jsonl:1: .*1\.png: no such file"):
        run("imagefolder", source, "folder", strict=True)
    assert not Path("folder").exists()


@pytest.mark.parametrize("format", FOLDERS)
@pytest.mark.parametrize("name", ["pic.json", "pic", "pic.__key__", "pic.txt"])
def test_an_image_is_known_by_its_content_and_not_by_its_name(format: Format, name: str, source: str) -> None:
    Image.new("RGB", (5, 4)).save("odd.ppm")
    Path("odd.ppm").rename(name)
    Path("secret.png").write_text("not an image: root:x:0:0")
    run(format, write("odd.jsonl", [{"id": "1", "image": name}, {"id": "2", "image": "secret.png"}]), "out")
    [record] = imported("out", verify=True)
    assert (record["id"], record["image"][-4:]) == ("1", ".ppm")


# --- what was there before


@pytest.mark.parametrize("format", FOLDERS)
def test_overwriting_takes_nothing_away_before_the_new_export_is_complete(format: Format, source: str) -> None:
    run(format, source, "out", shard_size=20)
    before = content("out")
    gone = write("gone.jsonl", [{"id": "1", "image": "gone.png"}])
    with pytest.raises(CapivaraError, match=r"nothing was left: 1 of 1 rejected\n  1: no such file"):
        run(format, gone, "out", overwrite=True)
    with pytest.raises(CapivaraError, match="nowhere.jsonl: no such file"):
        run(format, "nowhere.jsonl", "out", overwrite=True)
    records = read_jsonl(Path(source))[:30]
    broken = write("broken.jsonl", [*records, {"id": "1", "image": "gone.png"}])
    with pytest.raises(CapivaraError, match="no such file"):
        run(format, broken, "out", overwrite=True, strict=True, shard_size=20)
    assert content("out") == before
    run(format, write("few.jsonl", records), "out", shard_size=20, overwrite=True)
    assert len(imported("out")) == 30
    assert not list(Path.cwd().glob("*partial*"))
    assert not list(Path.cwd().glob(".*"))


@pytest.mark.parametrize("format", FOLDERS)
def test_what_is_read_is_not_written(format: Format, source: str) -> None:
    run(format, source, "out", shard_size=60)
    imported("out")
    before = content("out")
    for name in ("back.jsonl", "out/{00000..00001}.tar" if format == "webdataset" else "out"):
        with pytest.raises(
            CapivaraError,
            match="out is never replaced: it (is|holds) out.*, which is read|its image is in out, which is the output",
        ):
            run(format, name, "out", overwrite=True)
    assert content("out") == before


# --- as it is typed


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["csv", "in.jsonl", "-o", "full.csv"], "full.csv already exists", "-o another file"),
        (["csv", "in.jsonl", "-o", "full.csv", "--overwrite"], "full.csv is not replaced", "-o another file"),
        (["csv", "in.jsonl", "-o", "images", "--overwrite"], "images is a folder", "-o images/FILE"),
        (["csv", "in.jsonl", "-o", ".", "--overwrite"], ". is a folder", "-o"),
        (["csv", "in.jsonl", "-o", "new.png"], "new.png is not the name of a table", "-o FILE.csv"),
        (
            ["imagefolder", "in.jsonl", "-o", "images", "--overwrite"],
            "images is not replaced, because it has files that are not those of a Hugging Face ImageFolder: 1.png",
            "another",
        ),
        (
            ["webdataset", "in.jsonl", "-o", "backup", "--overwrite"],
            "files that are not those of a WebDataset export: home.tar",
            "another",
        ),
        (
            ["webdataset", "in.jsonl", "-o", "new"],
            "new.partial is not replaced, because it has files that are not those of a WebDataset export: mine.txt",
            "another",
        ),
        (["webdataset", "in.jsonl", "-o", "full.csv"], "full.csv is not a folder", ""),
        (["webdataset", "in.jsonl", "-o", "-"], "a folder cannot be written to standard output", "-o FOLDER"),
        (["captions.txt", "none.jsonl", "-o", "x.txt", "--lang", "en"], "none.jsonl: no records", ""),
        (["csv", "in.jsonl", "-o", "in.jsonl", "--overwrite"], "in.jsonl is both input and output", "-o"),
        (["captions.txt", "in.jsonl", "-o", "x.txt"], "captions.txt holds one language", "--lang en"),
        (["captions.txt", "in.jsonl", "-o", "x.txt", "--lang", "xh"], "no caption in xh", ""),
        (["webdataset", "in.jsonl", "-o", "x", "--prefix", "../a"], "--prefix ../a", "train-"),
        (["csv", "gone.jsonl", "-o", "x.csv"], "gone.jsonl: no such file", ""),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: list[str], message: str, hint: str, source: str, refused: Refused
) -> None:
    Path("full.csv").write_text("mine")
    Path("none.jsonl").touch()
    for folder, name in (("backup", "home.tar"), ("new.partial", "mine.txt")):
        Path(folder).mkdir()
        (Path(folder) / name).write_text("mine")
    said = refused("export", *arguments)
    assert message in said
    assert hint in said


def test_an_unknown_format_is_named_with_the_nearest(source: str) -> None:
    with pytest.raises(BadOption, match="unknown format webdatset, did you mean webdataset"):
        export("webdatset", source, "x", ExportOptions())  # type: ignore[arg-type]
