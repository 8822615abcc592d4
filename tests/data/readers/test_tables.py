"""CSV, Parquet and Hugging Face data sets, written by the libraries that own the formats."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Sequence
from pathlib import Path

import pytest

from capivara_cli.data import labelled
from capivara_cli.data.readers.options import ReaderOptions
from capivara_cli.errors import CapivaraError
from tests.sources import imported, rejected, table, texts


def parquet(name: str, **columns: Sequence[object]) -> str:
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    Path(name).parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(arrow.table(columns), name)
    return name


def test_a_column_without_a_name_is_nothing_else(folder: Path) -> None:
    """As pandas writes its index."""
    [record] = imported(table("t.csv", ["", "filepath", "title"], ["7", "images/1.png", "one"]))
    assert (record["id"], record["captions"]) == ("images/1.png", [{"text": "one", "lang": "en"}])
    assert "label" not in record


def test_labels_of_several_rows_are_a_list(folder: Path) -> None:
    rows = [["images/1.png", "dog"], ["images/2.png", "cat"], ["images/1.png", "pet"], ["images/2.png", "cat"]]
    records = imported(table("t.csv", ["filepath", "label"], *rows))
    assert [record["label"] for record in records] == [["dog", "pet"], "cat"]


def test_wrong_columns_are_named(folder: Path) -> None:
    with pytest.raises(CapivaraError, match="several columns are called title"):
        imported(table("t.csv", ["filepath", "title", "title"], ["images/1.png", "a", "b"]))
    source = table("t.csv", ["picture", "words"], ["images/1.png", "one"])
    with pytest.raises(CapivaraError, match="t.csv: no column for images; its columns are: picture, words"):
        imported(source, format="csv")
    with pytest.raises(CapivaraError, match="t.csv has no column pic"):
        imported(source, format="csv", column=["image=pic"])


def test_a_column_that_is_not_understood_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = table("t.csv", ["image", "legenda"], ["images/1.png", "um"], delimiter=";")
    with pytest.raises(CapivaraError, match=r"t\.csv: no column for captions or labels; .*: image, legenda$") as raised:
        imported(source)
    assert raised.value.hint is not None
    assert raised.value.hint.startswith("--column caption=legenda, ")
    assert [texts(record) for record in imported(source, column=["caption=legenda"])] == [["um"]]
    capsys.readouterr()
    [record] = imported(source, column=["caption=none"])
    assert (record["legenda"], record.get("captions")) == ("um", None)
    assert "t.csv: kept as keys of the records: legenda\n" in capsys.readouterr().err
    with pytest.raises(CapivaraError) as raised:
        labelled.read([source], ReaderOptions(labels=True))
    assert "a column `label`" in str(raised.value.hint)  # classify-eval has no --column


def test_the_columns_of_a_folder_are_named_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(3):
        parquet(f"parts/{i}.parquet", image=["../images/1.png"], text=["one"], votes=[i])
    imported("parts")
    assert capsys.readouterr().err.count("kept as keys of the records: votes") == 1


def test_what_is_wrong_with_a_row_is_said_and_the_others_are_used(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("t.csv").write_bytes(
        b"filepath,title\nimages/1.png,one\nimages/2.png,two,more\nimages/3.png,caf\xe9\nimages/4.png,\n"
    )
    records = imported("t.csv")
    assert [record["id"] for record in records] == ["images/1.png", "images/4.png"]
    assert "captions" not in records[1]
    reasons = rejected()
    assert reasons["t.csv:3"] == "3 fields where there should be 2"
    assert "--encoding latin-1" in reasons["t.csv:4"]
    said = capsys.readouterr().err
    assert "2 of 4 records rejected" in said
    assert "1 image without a caption" in said


@pytest.mark.parametrize("more", ["1", "[" * 2000, '{"record": {"captions": [1]}}', '{"caption": {"text": 5}}', "x"])
def test_columns_of_our_names_in_tables_of_others(more: str, folder: Path) -> None:
    header = ["filepath", "title", "more", "captions"]
    [record] = imported(table("t.csv", header, ["images/1.png", "one", more, "other"]))
    assert texts(record) == ["one"]
    assert record["more"] == more
    assert record["captions_"] == "other"


@pytest.mark.parametrize("kind", ["parquet", "huggingface"])
def test_images_that_are_inside_are_written_out(kind: str, folder: Path) -> None:
    datasets = pytest.importorskip("datasets")

    contents = [Path(f"images/{number}.png").read_bytes() for number in (1, 2, 1)]
    rows = {
        "image": [{"bytes": content, "path": "x.png"} for content in contents],
        "caption": [["one", "uno"], ["two"], ["again"]],
        "id": ["a", "b", "c"],
        "label": [0, 1, 0],
    }
    features = {
        "image": datasets.Image(),
        "caption": datasets.Sequence(datasets.Value("string")),
        "id": datasets.Value("string"),
        "label": datasets.ClassLabel(names=["cat", "dog"]),
    }
    data = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
    if kind == "parquet":
        data.to_parquet("data/train-00000.parquet")
        records = imported("data")
    else:
        datasets.DatasetDict({"train": data, "test": data.select([1])}).save_to_disk("data")
        with pytest.raises(CapivaraError, match="several splits"):
            imported("data")
        records = imported("data", split="train")
    assert [(record["id"], texts(record), record["label"]) for record in records] == [
        ("a", ["one", "uno"], "cat"),
        ("b", ["two"], "dog"),
        ("c", ["again"], "cat"),
    ]
    assert [Path(record["image"]).read_bytes() for record in records] == contents
    assert records[0]["image"] == records[2]["image"]
    assert records[0]["image"].startswith("out-images/")


def test_parquet_that_is_cut_short(folder: Path) -> None:
    content = Path(parquet("t.parquet", path=["images/1.png"])).read_bytes()
    Path("bad.parquet").write_bytes(content[:50])
    with pytest.raises(CapivaraError, match="bad.parquet cannot be read as Parquet"):
        imported("bad.parquet")


def test_structs_of_parquet_are_captions(folder: Path) -> None:
    captions = [{"text": "a", "lang": "en", "score": 0.5}, {"text": "क", "lang": "hi", "parent": 0}]
    [record] = imported(parquet("own.parquet", file_name=["images/1.png"], text=["a"], captions=[captions]))
    assert record["captions"] == captions
    sentences = [[{"raw": "one"}, {"raw": "two"}]]
    [record] = imported(parquet("raw.parquet", file_name=["images/1.png"], sentences=sentences))
    assert texts(record) == ["one", "two"]


def test_times_and_bytes_of_parquet(folder: Path) -> None:
    [record] = imported(
        parquet(
            "t.parquet",
            file_name=["images/1.png"],
            when=[datetime.datetime(2020, 1, 2, 3)],
            price=[decimal.Decimal("1.50")],
            raw=[b"\x00"],
        )
    )
    assert (record["when"], record["price"]) == ("2020-01-02T03:00:00", "1.50")


def test_splits_of_parquet_are_whole_names(folder: Path) -> None:
    for number, name in enumerate(("data/test-0.parquet", "data/latest-0.parquet", "other/test/0.parquet")):
        parquet(f"hub/{name}", image=[f"{folder}/images/{number}.png"], id=[name])
    assert {record["id"] for record in imported("hub", split="test")} == {"data/test-0.parquet", "other/test/0.parquet"}
