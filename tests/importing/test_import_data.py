"""`capivara import`: each format in a small true-to-form file, by the format's own library where there is one."""

from __future__ import annotations

import csv
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from capivara_cli.errors import CapivaraError
from capivara_cli.exporting.export import export
from capivara_cli.importing.import_data import import_data
from capivara_cli.importing.options import ImportOptions
from tests import kills
from tests.conftest import Process, Refused, peak_memory

Capivara = Callable[..., Process]
Says = pytest.CaptureFixture[str]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def texts(record: dict[str, Any], lang: str = "en") -> list[str]:
    return [caption["text"] for caption in record.get("captions", []) if caption["lang"] == lang]


def picture(path: Path, shade: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8 + shade % 5, 9), (shade, 0, 0)).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with ten images in `images/`."""
    monkeypatch.chdir(tmp_path)
    for number in range(10):
        picture(tmp_path / "images" / f"{number}.png", number)
    return tmp_path


def imported(*sources: str, **flags: Any) -> list[dict[str, Any]]:
    import_data(sources, Path("out.jsonl"), ImportOptions(overwrite=True, **flags))
    return lines(Path("out.jsonl"))


def rejected() -> dict[str, str]:
    return {each["id"]: each["rejected"] for each in lines(Path("out.jsonl.rejected.jsonl"))}


def table(name: str, *rows: list[str], delimiter: str = ",") -> str:
    with Path(name).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return name


# --- tables


@pytest.mark.parametrize("delimiter", ["\t", ",", ";"])
def test_open_clips_table(delimiter: str, folder: Path, capsys: Says) -> None:
    found = imported(
        table(
            "t.csv",
            ["filepath", "title"],
            ["images/1.png", 'a "dog", on a beach; two\nlines'],
            ["images/2.png", "a cat"],
            ["images/1.png", "another"],
            delimiter=delimiter,
        )
    )
    assert "reading csv" in capsys.readouterr().err
    assert found == [
        {
            "id": "images/1.png",
            "image": "images/1.png",
            "captions": [
                {"text": 'a "dog", on a beach; two\nlines', "lang": "en"},
                {"text": "another", "lang": "en"},
            ],
        },
        {"id": "images/2.png", "image": "images/2.png", "captions": [{"text": "a cat", "lang": "en"}]},
    ]


def test_columns_of_languages_labels_and_ones_own(folder: Path) -> None:
    head = ["key", "file_name", "caption", "caption_hi", "pt", "label", "votes"]
    [record] = imported(
        table("t.tsv", head, ["k1", "1.png", "a dog", "कुत्ता", "um cão", "dog", "3"], delimiter="\t"),
        images=Path("images"),
    )
    assert record == {
        "id": "k1",
        "image": "images/1.png",
        "captions": [
            {"text": "a dog", "lang": "en"},
            {"text": "कुत्ता", "lang": "hi", "parent": 0},
            {"text": "um cão", "lang": "pt", "parent": 0},
        ],
        "votes": "3",
        "label": "dog",
    }


def test_columns_by_name_and_by_number(folder: Path) -> None:
    by_name = imported(
        table("t.csv", ["a", "b", "c"], ["images/1.png", "eins", "one"]), column=["image=a", "caption=c", "de=b"]
    )
    assert by_name[0]["captions"] == [
        {"text": "one", "lang": "en"},
        {"text": "eins", "lang": "de", "parent": 0},
    ]
    # Flickr30k's results: no header, image.jpg#number, a tab.
    Path("f.token").write_text("1.png#0\tone\n1.png#1\tuno\n2.png#0\ttwo\n")
    found = imported("f.token", format="tsv", column=["image=1", "caption=2"], images=Path("images"))
    assert [(record["id"], texts(record)) for record in found] == [("1.png", ["one", "uno"]), ("2.png", ["two"])]


@pytest.mark.parametrize("rows_after", [0, 1, 500])
def test_a_quote_that_is_not_closed_swallows_nothing_in_silence(rows_after: int, folder: Path) -> None:
    rest = "".join(f"images/{n % 10}.png,more\n" for n in range(rows_after))
    Path("t.csv").write_text(f'filepath,title\nimages/1.png,one\nimages/2.png,"open\n{rest}')
    with pytest.raises(CapivaraError, match=r"t\.csv:3: a quote is opened and not closed"):
        imported("t.csv")
    assert not Path("out.jsonl").exists()


def test_columns_of_one_name_are_refused(folder: Path) -> None:
    source = table("t.csv", ["filepath", "title", "title"], ["images/1.png", "a", "b"])
    with pytest.raises(CapivaraError, match="several columns are called title"):
        imported(source)


def test_a_tsv_with_quotes_that_mean_nothing(folder: Path) -> None:
    Path("t.tsv").write_text('filepath\ttitle\nimages/1.png\t"a 3" screen\nimages/2.png\tother\n')
    assert [texts(record) for record in imported("t.tsv")] == [['"a 3" screen'], ["other"]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_marks_and_ends_of_lines(encoding: str, end: str, folder: Path) -> None:
    content = end.join(["filepath,title", "images/1.png,कुत्ता", "images/2.png,é", ""])
    mark = b"\xff\xfe" if encoding == "utf-16-le" else b""
    Path("t.csv").write_bytes(mark + content.encode(encoding))
    assert [texts(record, "hi") for record in imported("t.csv", lang="hi")] == [["कुत्ता"], ["é"]]


def test_what_is_wrong_with_a_row_is_said_and_the_others_are_used(folder: Path, capsys: Says) -> None:
    Path("t.csv").write_bytes(
        b"filepath,title\nimages/1.png,one\nimages/2.png,two,more\nimages/3.png,caf\xe9\n,no image\n"
        b"gone.png,gone\nhttps://x.org/a.jpg,address\nimages/4.png,\n"
    )
    found = imported("t.csv")
    assert [record["id"] for record in found] == ["images/1.png", "images/4.png"]
    assert "captions" not in found[1]
    reasons = rejected()
    assert reasons["t.csv:3"] == "3 fields where there should be 2"
    assert "--encoding latin-1" in reasons["t.csv:4"]
    assert reasons["t.csv:5"] == "no image"
    assert reasons["gone.png"] == "no such file"
    assert "img2dataset" in reasons["https://x.org/a.jpg"]
    said = capsys.readouterr().err
    assert "5 of 7 records rejected" in said
    assert "1 images without a caption" in said
    assert [texts(record) for record in imported("t.csv", encoding="latin-1")][1] == ["café"]


def test_names_are_found_whatever_their_normal_form(folder: Path) -> None:
    picture(folder / "images" / "cafe\u0301.png")  # as macOS writes it
    picture(folder / "images" / "n\u00e3o.png")
    found = imported(
        table("t.csv", ["filepath", "title"], ["images/caf\u00e9.png", "a"], ["images/na\u0303o.png", "b"])
    )
    assert [record["image"] for record in found] == ["images/cafe\u0301.png", "images/n\u00e3o.png"]


def test_a_wrong_column_names_those_that_there_are(folder: Path) -> None:
    source = table("t.csv", ["picture", "words"], ["images/1.png", "one"])
    with pytest.raises(CapivaraError, match="t.csv: no column for images; columns are: picture, words"):
        imported(source, format="csv")
    with pytest.raises(CapivaraError, match="t.csv has no column pic"):
        imported(source, format="csv", column=["image=pic"])


# --- Parquet and Hugging Face


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
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "caption": datasets.Sequence(datasets.Value("string")),
            "id": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
        }
    )
    made = datasets.Dataset.from_dict(rows, features=features)
    if kind == "parquet":
        made.to_parquet("data/train-00000.parquet")
        source = "data"
    else:
        datasets.DatasetDict({"train": made, "test": made.select([1])}).save_to_disk("data")
        source = "data"
        with pytest.raises(CapivaraError, match="several splits"):
            imported(source)
    found = imported(source, **({"split": "train"} if kind == "huggingface" else {}))
    assert [(record["id"], texts(record), record["label"]) for record in found] == [
        ("a", ["one", "uno"], "cat"),
        ("b", ["two"], "dog"),
        ("c", ["again"], "cat"),
    ]
    assert [Path(record["image"]).read_bytes() for record in found] == contents
    assert found[0]["image"] == found[2]["image"]
    assert found[0]["image"].startswith("out-images/")


def test_parquet_with_names_of_files(folder: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(
        pa.table({"path": ["images/1.png", "images/2.png"], "text": ["one", None], "n": [1, 2]}), "t.parquet"
    )
    assert imported("t.parquet") == [
        {"id": "images/1.png", "image": "images/1.png", "captions": [{"text": "one", "lang": "en"}], "n": 1},
        {"id": "images/2.png", "image": "images/2.png", "n": 2},
    ]
    Path("bad.parquet").write_bytes(Path("t.parquet").read_bytes()[:50])
    with pytest.raises(CapivaraError, match="bad.parquet cannot be read as Parquet"):
        imported("bad.parquet")


# --- JSON


COCO = {
    "info": {"year": 2014},
    "images": [{"id": number, "file_name": f"{number}.png", "height": 9} for number in (3, 1, 2)],
    "licenses": [],
    "annotations": [
        {"image_id": 1, "id": 10, "caption": "one \n"},
        {"image_id": 3, "id": 11, "caption": "three"},
        {"image_id": 1, "id": 12, "caption": "uno"},
        {"image_id": 99, "id": 13, "caption": "of none"},
    ],
}


@pytest.mark.parametrize("turned", [False, True])
def test_coco(turned: bool, folder: Path, capsys: Says) -> None:
    found = dict(reversed(COCO.items())) if turned else COCO
    Path("captions.json").write_text(json.dumps(found, indent=2 if turned else None))
    made = {record["id"]: record for record in imported("captions.json", images=Path("images"))}
    assert "reading coco" in capsys.readouterr().err
    assert {key: texts(record) for key, record in made.items()} == {
        "1.png": ["one", "uno"],
        "2.png": [],
        "3.png": ["three"],
    }
    assert made["3.png"]["image"] == "images/3.png"
    assert rejected() == {"99": "a caption of an image that the file does not have"}


def test_karpathys_splits(folder: Path) -> None:
    images = [
        {
            "filename": f"{n}.png",
            "filepath": "val",
            "split": split,
            "sentences": [{"raw": f"text {n}", "tokens": []}],
            "imgid": n,
        }
        for n, split in enumerate(["train", "val", "test", "restval"])
    ]
    Path("dataset.json").write_text(json.dumps({"images": images, "dataset": "flickr30k"}))
    assert [record["split"] for record in imported("dataset.json", images=Path("images"))] == [
        "train",
        "val",
        "test",
        "restval",
    ]
    [record] = imported("dataset.json", images=Path("images"), split="test")
    assert (record["id"], record["image"], texts(record)) == ("2.png", "images/2.png", ["text 2"])
    picture(folder / "coco" / "val" / "1.png")
    [record] = imported("dataset.json", images=Path("coco"), split="val")
    assert record["image"] == "coco/val/1.png"
    with pytest.raises(CapivaraError, match="has no split tests, did you mean test"):
        imported("dataset.json", split="tests")


def test_pracegover(folder: Path) -> None:
    Path("p.json").write_text(
        json.dumps(
            {
                "train": [{"filename": "1.png", "caption": "um"}],
                "validation": [{"filename": "2.png", "caption": "dois"}],
            }
        )
    )
    [record] = imported("p.json", images=Path("images"), split="val", lang="pt")
    assert (record["image"], texts(record, "pt"), record["split"]) == ("images/2.png", ["dois"], "validation")


def test_crossmodal_3600(folder: Path, capsys: Says) -> None:
    entry = {
        "image/key": "1",
        "image/locale": "hi",
        "en": {"caption": ["one", "uno"], "caption/tokenized": ["one", "uno"]},
        "hi": {"caption": ["एक"]},
    }
    Path("xm").mkdir()
    Path("xm/captions.jsonl").write_text(json.dumps(entry) + "\n")
    Image.new("RGB", (5, 5)).save("images/1.jpg")
    Path("xm/images").symlink_to(folder / "images")
    [record] = imported("xm")
    assert "reading xm3600" in capsys.readouterr().err
    assert (record["image"], texts(record), texts(record, "hi"), record["locale"]) == (
        "xm/images/1.jpg",
        ["one", "uno"],
        ["एक"],
        "hi",
    )


@pytest.mark.parametrize(
    ("asked", "content", "looks"),
    [
        ("coco", {"images": [{"filename": "1.png", "split": "test", "sentences": []}]}, "karpathy"),
        ("karpathy", COCO, "coco"),
        ("pracegover", COCO, "coco"),
        ("coco", {"train": [{"filename": "1.png", "caption": "um"}]}, "pracegover"),
        ("coco", {"other": 1}, None),
    ],
)
def test_json_of_another_format_says_which_it_looks_like(
    asked: str, content: object, looks: str | None, folder: Path
) -> None:
    Path("x.json").write_text(json.dumps(content))
    expected = f"not of the format {asked}: it looks like {looks}" if looks else f"x.json is not of the format {asked}$"
    with pytest.raises(CapivaraError, match=expected):
        imported("x.json", format=asked)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [{"id": 1, "file_name": "1.png"}, {"id": 2, "file_n', "x.json:1: not JSON"),
        ('{"images": [{"id": 1, "file_name": "1.png"}\n\n', "x.json:3: not JSON: , is missing|cut short"),
        ('{"images": [{"id": 1, "file_name": "1.png"} 2]}', "not JSON: , is missing"),
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_json_that_is_cut_short(content: str, message: str, folder: Path) -> None:
    Path("x.json").write_text(content)
    with pytest.raises(CapivaraError, match=message):
        imported("x.json", format="coco")
    assert not Path("out.jsonl").exists()


# --- line by line


def test_xtd_and_flickr30k_200(folder: Path, capsys: Says) -> None:
    for name, names, code, lang in (
        ("xtd", "test_image_names.txt", "test_1kcaptions_jp", "ja"),
        ("f200", "filenames.txt", "hin_Deva", "hi"),
    ):
        Path(name).mkdir()
        Path(name, names).write_text("1.png\n2.png\n")
        Path(name, f"{code}.txt").write_text("eins\nzwei\n")
        Path(name, "readme.txt").write_text("what this is")
        found = imported(name, images=Path("images"))
        assert [(record["image"], texts(record, lang)) for record in found] == [
            ("images/1.png", ["eins"]),
            ("images/2.png", ["zwei"]),
        ]
        Path(name, f"{code}.txt").write_text("eins\n")
        with pytest.raises(CapivaraError, match=f"{code}.txt has 1 lines, {names} has 2"):
            imported(name, images=Path("images"))
    assert "reading flickr30k-200" in capsys.readouterr().err


# --- folders and shards


def test_a_folder_of_classes_and_one_of_albums(folder: Path) -> None:
    for name in ("classes/dog/1.png", "classes/cat/2.png", "albums/2020/may/1.png", "albums/2021/2.png"):
        picture(folder / name)
    assert {record["id"]: record["label"] for record in imported("classes")} == {
        "classes/cat/2.png": "cat",
        "classes/dog/1.png": "dog",
    }
    assert not any("label" in record for record in imported("classes", labels=False))
    assert not any("label" in record for record in imported("albums"))
    assert [record["label"] for record in imported("albums", labels=True)] == ["2020", "2021"]


def test_what_stands_beside_an_image(folder: Path) -> None:
    Path("images/1.txt").write_text("\ufeffa dog \r\n", encoding="utf-8")
    Path("images/2.json").write_text(json.dumps({"caption": "two", "url": "https://x.org/2.jpg", "status": "success"}))
    Path("images/3.json").write_text("{broken")
    found = {record["id"]: record for record in imported("images", lang="xh")}
    assert found["images/1.png"]["captions"] == [{"text": "a dog", "lang": "xh"}]
    assert found["images/2.png"]["captions"] == [{"text": "two", "lang": "xh"}]
    assert found["images/2.png"]["url"] == "https://x.org/2.jpg"
    assert "not JSON" in rejected()["images/3.png"]


def shard(path: str, *samples: dict[str, Any]) -> str:
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(path, mtime=0) as writer:
        for sample in samples:
            writer.write(sample)
    return path


def test_shards_of_webdataset_by_img2dataset(folder: Path) -> None:
    image = Path("images/1.png").read_bytes()
    fields = {"caption": "one", "url": "https://x.org/1", "key": "000000000", "status": "success", "width": 9}
    shard("00000.tar", {"__key__": "000000000", "png": image, "txt": "one", "json": fields})
    shard(
        "00001.tar",
        {"__key__": "000000001", "png": image, "txt": "two"},
        {"__key__": "000000002", "png": image, "cls": 7},
    )
    found = imported("{00000..00001}.tar", lang="pt")
    assert [(record["id"], record["image"], texts(record, "pt")) for record in found] == [
        ("000000000", "00000.tar#000000000.png", ["one"]),
        ("000000001", "00001.tar#000000001.png", ["two"]),
        ("000000002", "00001.tar#000000002.png", []),
    ]
    assert found[0]["url"] == "https://x.org/1"
    assert found[2]["label"] == "7"


@pytest.mark.parametrize("mixed", [False, True])
def test_the_published_capivara_shards(mixed: bool, folder: Path) -> None:
    """Their scoring script put the generated captions behind the human ones, in place: `mixed`."""
    made_pt, made_hi = ["gerada um", "gerada dois"], ["एक", "दो"]
    fields = {
        "image": "x.jpg",
        "captions-en": ["human"],
        "captions-pt": ["humana", "humana outra", *(made_pt if mixed else [])],
        "generated-captions-en": ["made one", "made two"],
        "generated-captions-pt": made_pt,
        "generated-captions-hi": made_hi,
        "similarities-pt": [0.3, 0.29, 0.1, 0.2],
        "licence": "x",
    }
    shard("0.tar", {"__key__": "sample00000", "png": Path("images/1.png").read_bytes(), "json": fields})
    [record] = imported("0.tar")
    captions = record["captions"]
    assert [(each["text"], each["source"], each.get("parent"), each.get("score")) for each in captions] == [
        ("human", "human", None, None),
        ("made one", "generated", None, None),
        ("made two", "generated", None, None),
        ("एक", "translation", 1, None),
        ("दो", "translation", 2, None),
        ("humana", "translation", 0, 0.3),
        ("humana outra", "translation", 0, 0.29),
        ("gerada um", "translation", 1, 0.1),
        ("gerada dois", "translation", 2, 0.2),
    ]
    assert record["licence"] == "x"
    assert record["image"] == "0.tar#sample00000.png"


def test_conceptual_captions_with_what_was_downloaded(folder: Path) -> None:
    Path("cc3m.tsv").write_text('a "dog\thttps://x.org/1\ngone\thttps://x.org/gone\na cat\thttps://x.org/2\n')
    for number in (1, 2):
        fields = {"caption": "old", "url": f"https://x.org/{number}", "key": f"{number}"}
        Path(f"images/{number}.json").write_text(json.dumps(fields))
    shard("s.tar", {"__key__": "1", "png": Path("images/1.png").read_bytes(), "json": {"url": "https://x.org/1"}})
    found = imported("cc3m.tsv", images=Path("images"))
    assert [(record["image"], texts(record)) for record in found] == [
        ("images/1.png", ['a "dog']),
        ("images/2.png", ["a cat"]),
    ]
    assert rejected() == {"cc3m.tsv:2": "not downloaded: https://x.org/gone"}
    Path("shards").mkdir()
    Path("s.tar").rename("shards/s.tar")
    assert [record["image"] for record in imported("cc3m.tsv", images=Path("shards"))] == ["shards/s.tar#1.png"]
    with pytest.raises(CapivaraError, match="has addresses, no images"):
        imported("cc3m.tsv")


# --- translations


def records(count: int = 4) -> str:
    found = [
        {
            "id": str(n),
            "image": f"images/{n}.png",
            "captions": [{"text": f"text {n}", "lang": "en"}, {"text": f"more {n}", "lang": "en"}],
        }
        for n in range(count)
    ]
    Path("in.jsonl").write_text("".join(json.dumps(record) + "\n" for record in found))
    return "in.jsonl"


def test_translations_line_by_line(folder: Path, capsys: Says) -> None:
    Path("pt.txt").write_text("".join(f"linha {n}\r\n" if n != 5 else "\r\n" for n in range(8)), encoding="utf-8-sig")
    found = imported(records(), translations=Path("pt.txt"), to="pt")
    assert found[1]["captions"][2:] == [
        {"text": "linha 2", "lang": "pt", "source": "pt.txt", "parent": 0},
        {"text": "linha 3", "lang": "pt", "source": "pt.txt", "parent": 1},
    ]
    assert [(each["text"], each["parent"]) for each in found[2]["captions"][2:]] == [("linha 4", 0)]
    assert "1 captions have no translation" in capsys.readouterr().err
    for count in (7, 9):
        Path("pt.txt").write_text("linha\n" * count)
        with pytest.raises(CapivaraError, match=f"pt.txt has {count} lines, and there are 8 captions in en"):
            imported(records(), translations=Path("pt.txt"), to="pt")


def test_translations_of_scattered_captions_follow_the_files_order(folder: Path) -> None:
    source = table("t.csv", ["filepath", "title"], ["images/1.png", "a"], ["images/2.png", "b"], ["images/1.png", "c"])
    table("pt.csv", ["legenda a"], ["legenda b, com vírgula"], ["legenda c"])
    found = imported(source, translations=Path("pt.csv"), to="pt")
    assert [(each["text"], each.get("parent")) for each in found[0]["captions"]] == [
        ("a", None),
        ("c", None),
        ("legenda a", 0),
        ("legenda c", 1),
    ]


def test_translations_of_captions_that_have_parents_of_their_own(folder: Path) -> None:
    own = [
        {"text": "first", "lang": "en"},
        {"text": "again", "lang": "en", "parent": 0},
        {"text": "x", "lang": "en", "parent": 1},
    ]
    Path("in.jsonl").write_text(json.dumps({"id": "1", "image": "images/1.png", "captions": own}))
    Path("pt.txt").write_text("pt first\npt again\npt x\n")
    export("csv", "in.jsonl", Path("in.csv"))
    for source in ("in.jsonl", "in.csv"):
        [record] = imported(source, translations=Path("pt.txt"), to="pt")
        assert record["captions"][:3] == own
        made = [(each["text"], each["parent"]) for each in record["captions"][3:]]
        assert made == [("pt first", 0), ("pt again", 1), ("pt x", 2)]


def test_translations_do_not_make_one_of_two_records(folder: Path) -> None:
    captions = [{"text": "a", "lang": "en"}]
    found = [{"id": "1", "image": f"images/{i}.png", "captions": captions} for i in (1, 2)]
    Path("in.jsonl").write_text("".join(json.dumps(record) + "\n" for record in found))
    Path("pt.txt").write_text("um\ndois\n")
    [record] = imported("in.jsonl", translations=Path("pt.txt"), to="pt")
    assert texts(record, "pt") == ["um"]
    assert list(rejected().values()) == ["in.jsonl:2: its id is that of in.jsonl:1 too"]


def test_a_table_of_translations_without_a_value(folder: Path) -> None:
    source = table("t.csv", ["filepath", "title"], ["images/1.png", "x"], ["images/2.png", "y"])
    Path("pt.tsv").write_text("x\tX\ny\n")
    with pytest.raises(CapivaraError, match=r"pt\.tsv:2: 1 fields: no translation"):
        imported(source, translations=Path("pt.tsv"), to="pt")


@pytest.mark.parametrize("kind", ["tsv", "csv", "xlsx", "flickr"])
def test_translations_by_their_key(kind: str, folder: Path, capsys: Says) -> None:
    rows = [["text", "pt"], ["text 1", "um"], ["more 3", "mais tre\u0302s"], ["of none", "nada"]]
    path = Path(f"pt.{kind}")
    if kind == "xlsx":
        openpyxl = pytest.importorskip("openpyxl")
        book = openpyxl.Workbook()
        for row in rows:
            book.active.append(row)
        book.save(path)
    elif kind == "flickr":
        path = Path("pt.tsv")
        table("pt.tsv", ["1.png#0", "um"], ["3.png#1", "mais tre\u0302s"], ["9.png#0", "nada"], delimiter="\t")
    else:
        table(path.name, *rows, delimiter="\t" if kind == "tsv" else ",")
    source = records()
    if kind == "flickr":
        Path(source).write_text(
            Path(source).read_text().replace('"id": "1"', '"id": "1.png"').replace('"id": "3"', '"id": "3.png"')
        )
    found = imported(source, translations=path, to="pt")
    made = {
        (record["id"][0], each["parent"]): each["text"]
        for record in found
        for each in record["captions"]
        if each["lang"] == "pt"
    }
    assert made == {("1", 0): "um", ("3", 1): "mais tre\u0302s"}
    said = capsys.readouterr().err
    assert "6 captions have no translation" in said
    assert "1 translations there are of no caption" in said


def test_keys_are_compared_in_one_normal_form(folder: Path) -> None:
    source = table("t.csv", ["filepath", "title"], ["images/1.png", "caf\u00e9"])
    table("pt.tsv", ["text", "hi"], ["cafe\u0301", "कैफ़े"], delimiter="\t")
    [record] = imported(source, translations=Path("pt.tsv"), to="hi")
    assert texts(record, "hi") == ["कैफ़े"]


# --- checks


def test_verify_rejects_by_name_and_says_the_sizes(folder: Path, capsys: Says) -> None:
    Path("images/3.png").write_bytes(Path("images/4.png").read_bytes()[:45])
    Path("images/5.png").write_text("no image")
    found = imported("images", verify=True)
    assert len(found) == 8
    assert set(rejected()) == {"images/3.png", "images/5.png"}
    assert "shorter sides: 8 to 9 pixels, half of them at least 9" in capsys.readouterr().err


def test_images_of_one_content_come_once(folder: Path) -> None:
    for number in (6, 8):
        Path(f"images/{number}.png").write_bytes(Path("images/2.png").read_bytes())
    assert len(imported("images", dedupe=True)) == 8
    assert rejected() == {f"images/{number}.png": "the same image as images/2.png" for number in (6, 8)}


def test_two_records_of_one_id(folder: Path) -> None:
    path = Path(records())
    path.write_text(path.read_text() + path.read_text().splitlines(True)[1])
    assert len(imported("in.jsonl")) == 4
    assert rejected() == {"1": "in.jsonl:5: its id is that of in.jsonl:2 too"}
    for number in (1, 2):
        shard(f"{number}.tar", {"__key__": "0", "png": Path("images/1.png").read_bytes()})
    assert [record["image"] for record in imported("{1..2}.tar")] == ["1.tar#0.png"]
    assert rejected() == {"0": "2.tar#0.png: its id is that of 1.tar#0.png too"}


def test_strict_stops_at_the_first(folder: Path) -> None:
    source = table("t.csv", ["filepath", "title"], ["images/1.png", "a"], ["gone.png", "b"])
    with pytest.raises(CapivaraError, match=r"t\.csv:3: gone\.png: no such file"):
        imported(source, strict=True)


def test_a_tar_cut_short_gives_its_whole_members_and_names_the_loss(folder: Path, capsys: Says) -> None:
    image = Path("images/1.png").read_bytes()
    shard("0.tar", *({"__key__": str(number), "png": image} for number in range(5)))
    content = Path("0.tar").read_bytes()
    Path("0.tar").write_bytes(content[: 3 * 1024 + 550])
    assert [record["id"] for record in imported("0.tar")] == ["0", "1", "2"]
    assert "0.tar is cut short: 3.png is not whole" in " ".join(capsys.readouterr().err.split())


def test_members_with_absolute_paths_or_dots_are_refused(folder: Path, capsys: Says) -> None:
    with tarfile.open("0.tar", "w") as archive:
        for name in ("/etc/1.png", "../2.png", "3.png"):
            info = tarfile.TarInfo(name)
            info.size = 4
            archive.addfile(info, io.BytesIO(b"data"))
    assert [record["id"] for record in imported("0.tar")] == ["3"]
    assert "2 members refused" in capsys.readouterr().err


# --- as it is typed


def test_the_format_is_found_and_a_pipe_gets_the_records(capivara: Capivara, folder: Path) -> None:
    table("t.csv", ["filepath", "title"], ["images/1.png", "one"])
    guessed = capivara("import", "t.csv")
    asked = capivara("import", "csv", "t.csv")
    assert guessed.returncode == asked.returncode == 0, guessed.stderr
    assert (
        guessed.stdout
        == asked.stdout
        == '{"id": "images/1.png", "image": "images/1.png", "captions": [{"text": "one", "lang": "en"}]}\n'
    )
    assert "reading csv" in guessed.stderr
    assert "reading" not in asked.stderr
    listed = capivara("import", "--formats")
    assert listed.stdout.splitlines()[0].startswith("folder ")


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["t.csv", "--column", "image"], "--column image: not WHAT=COLUMN", "--column image=path"),
        (["gone.csv"], "gone.csv: no such file", ""),
        (["t.csv", "--images", "gone"], "--images gone: no such folder", "annotations"),
        (["cocoa", "t.csv"], "the format cocoa is not known, did you mean coco", "--formats"),
        (["text.csv"], "text.csv looks like no format", "--formats"),
        (["t.csv", "--lang", "klingon"], "the language klingon is not known", "--languages"),
        (["t.csv", "--to", "pt"], "--translations FILE and --to LANG", ""),
        (["t.csv", "--encoding", "utf-9"], "--encoding utf-9 is not known", "latin-1"),
        (["t.csv", "-o", "t.csv", "--overwrite"], "t.csv is read", "-o"),
        (["t.csv", "-o", "t.png"], "t.png is not the name of a file of records", "-o FILE.jsonl"),
        (["o.jsonl.rejected.jsonl", "-o", "o.jsonl"], "o.jsonl.rejected.jsonl is read", "-o"),
        (["t.csv", "--translations", "pt.txt", "--to", "pt", "-o", "pt.txt", "--overwrite"], "pt.txt is read", "-o"),
        (
            ["t.csv", "--translations", "pt.txt", "--to", "klingon"],
            "--to klingon: the language is not known",
            "--to hi",
        ),
        (["t.csv", "--translations", "pt.txt", "--to", "en"], "--to en: the language is the captions' own", "--to hi"),
        (["t.csv", "--split", "train"], "--split: csv has no use for it", "--images, --column, --encoding"),
        (["t.csv", "--column", "titel=title"], "--column titel=title: titel is no language", "label"),
        (["csv", "t.csv", "--column", "image=9"], "t.csv has no column 9: there are 2", "1 is the first"),
        (["csv", "t.csv", "--column", "image=0"], "t.csv has no column 0", "1 is the first"),
        (["t.csv", "--encoding", "rot13"], "--encoding rot13 is not known", "latin-1"),
        (["t.csv", "--encoding", "utf-16"], "t.csv: not utf-16", "--encoding"),
        (["s{0..99999999999}.tar"], "100,000,000,000 files", "the first and the last"),
        (["s{5..2}.tar"], "0 files", ""),
        (["empty.csv"], "empty.csv looks like no format", ""),
        (["t.csv", "images"], "several formats: csv, folder", "one at a time"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: list[str], message: str, hint: str, folder: Path, refused: Refused
) -> None:
    table("t.csv", ["filepath", "title"], ["images/1.png", "one"])
    Path("text.csv").write_text("just some words\nand more\n")
    Path("empty.csv").touch()
    Path("pt.txt").write_text("um")
    Path("o.jsonl.rejected.jsonl").write_text('{"image": "images/1.png"}')
    said = refused("import", *arguments)
    assert message in said
    assert hint in said


# --- what others' files may hold


def test_an_open_quote_that_another_one_closes_swallows_nothing(folder: Path) -> None:
    rows = [
        "filepath,title",
        "images/1.png,one",
        'images/2.png,"open',
        "images/3.png,three",
        'images/4.png,close" here',
    ]
    Path("t.csv").write_text("\n".join(rows) + "\n")
    with pytest.raises(CapivaraError, match=r"t\.csv:3: a quote is opened and not closed"):
        imported("t.csv")


def test_structs_of_parquet_are_captions(folder: Path) -> None:
    import pyarrow as arrow
    import pyarrow.parquet

    own = [{"text": "a", "lang": "en", "score": 0.5}, {"text": "क", "lang": "hi", "parent": 0}]
    found = {"file_name": ["images/1.png"], "text": ["a"], "captions": [own]}
    arrow.parquet.write_table(arrow.table(found), "own.parquet")
    assert imported("own.parquet")[0]["captions"] == own
    raw = {"file_name": ["images/1.png"], "sentences": [[{"raw": "one"}, {"raw": "two"}]]}
    arrow.parquet.write_table(arrow.table(raw), "raw.parquet")
    assert texts(imported("raw.parquet")[0]) == ["one", "two"]


def test_times_and_bytes_of_parquet(folder: Path) -> None:
    import datetime
    import decimal

    import pyarrow as arrow
    import pyarrow.parquet

    found = {
        "file_name": ["images/1.png"],
        "caption": ["one"],
        "when": [datetime.datetime(2020, 1, 2, 3)],
        "price": [decimal.Decimal("1.50")],
        "raw": [b"\x00"],
    }
    arrow.parquet.write_table(arrow.table(found), "t.parquet")
    [record] = imported("t.parquet")
    assert (record["when"], record["price"]) == ("2020-01-02T03:00:00", "1.50")


def test_splits_of_parquet_are_whole_names(folder: Path) -> None:
    import pyarrow as arrow
    import pyarrow.parquet

    for number, name in enumerate(("data/test-0.parquet", "data/latest-0.parquet", "other/test/0.parquet")):
        (folder / "hub" / name).parent.mkdir(parents=True, exist_ok=True)
        found = {"image": [f"{folder}/images/{number}.png"], "id": [name], "text": ["x"]}
        arrow.parquet.write_table(arrow.table(found), folder / "hub" / name)
    assert {record["id"] for record in imported("hub", split="test")} == {"data/test-0.parquet", "other/test/0.parquet"}


@pytest.mark.parametrize("more", ["1", "[" * 2000, '{"record": {"captions": [1]}}', '{"caption": {"text": 5}}', "x"])
def test_columns_of_our_names_in_tables_of_others(more: str, folder: Path) -> None:
    source = table("t.csv", ["filepath", "title", "more", "captions"], ["images/1.png", "one", more, "other"])
    [record] = imported(source)
    assert texts(record) == ["one"]
    assert record["more"] == more
    assert record["captions_"] == "other"


@pytest.mark.parametrize("name", ["x\0.png", "fifo.png", "images", "/dev/zero", "s.tar#nope.png"])
@pytest.mark.parametrize("flags", [{}, {"dedupe": True}, {"verify": True}])
def test_names_of_what_is_no_image_file(name: str, flags: dict[str, bool], folder: Path) -> None:
    os.mkfifo("fifo.png")
    with tarfile.open("s.tar", "w") as archive:
        archive.add("images/1.png")
    found = [{"id": "odd", "image": name}, {"id": "good", "image": "images/1.png"}]
    Path("in.jsonl").write_text("".join(json.dumps(record) + "\n" for record in found))
    assert [record["id"] for record in imported("in.jsonl", workers=0, **flags)] == ["good"]
    assert list(rejected()) in (["odd"], ["in.jsonl:1"])


def test_one_bad_sample_or_line_does_not_cost_the_others(folder: Path) -> None:
    with tarfile.open("s.tar", "w") as archive:
        for number, beside in enumerate([b'{"caption": "good"}', b"{", b"[1]", b'{"captions": ["a", "b"]}']):
            archive.add(f"images/{number}.png", f"{number}.png")
            info = tarfile.TarInfo(f"{number}.json")
            info.size = len(beside)
            archive.addfile(info, io.BytesIO(beside))
    assert [texts(record) for record in imported("s.tar")] == [["good"]]
    assert len(rejected()) == 3
    Path("in.jsonl").write_bytes(
        b'{"image": "images/1.png"}\n{\n[]\n{"id": "x"}\n{"image": "\xff.png"}\n{"image": "images/2.png"}\n'
    )
    assert [record["image"] for record in imported("in.jsonl")] == ["images/1.png", "images/2.png"]
    assert [reason.split(":")[0] for reason in rejected().values()] == [
        "not JSON",
        "a list, not an object",
        "no `image` (keys there are",
        "not UTF-8",
    ]


def test_texts_beside_an_image_in_another_encoding(folder: Path) -> None:
    picture(folder / "in" / "1.png")
    (folder / "in" / "1.txt").write_bytes("café".encode("latin-1"))
    picture(folder / "in" / "2.png")
    assert len(imported("in")) == 1
    assert list(rejected().values()) == ["in/1.png.txt: not UTF-8"]
    assert texts(imported("in", encoding="latin-1")[0]) == ["café"]


def test_two_images_of_one_id(folder: Path) -> None:
    images = [{"id": 1, "file_name": f"{n}.png"} for n in (1, 2)]
    notes = [{"image_id": 1, "caption": "one"}]
    Path("c.json").write_text(json.dumps({"images": images, "annotations": notes}))
    with pytest.raises(CapivaraError, match=r"has another image of this name: images/2\.png"):
        imported("c.json", images=Path("images"))


def test_languages_that_steer_the_terminal(folder: Path, capsys: Says) -> None:
    record = {"image": "images/1.png", "captions": [{"text": "a", "lang": "[/x]"}, {"text": "b", "lang": "[b]"}]}
    Path("in.jsonl").write_text(json.dumps(record))
    assert len(imported("in.jsonl")) == 1
    said = capsys.readouterr().err
    assert "[/x]" in said
    assert "[b]" in said


def test_captions_of_crossmodal_that_are_none(folder: Path) -> None:
    found = {"image/key": "1", "en": {"caption": None}, "hi": {"caption": "abc"}, "pt": {"caption": ["um"]}}
    Path("captions.jsonl").write_text(json.dumps(found))
    picture(folder / "images" / "1.jpg")
    [record] = imported("captions.jsonl")
    assert record["captions"] == [{"text": "um", "lang": "pt"}]


def test_a_cache_that_cannot_be_written_costs_only_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPIVARA_CACHE", "/proc/no-cache")
    with tarfile.open("s.tar", "w") as archive:
        archive.add("images/1.png", "1.png")
    [record] = imported("s.tar", verify=True)
    assert record["image"] == "s.tar#1.png"


def test_records_that_were_edited_are_not_mixed(folder: Path) -> None:
    def rows(text: str) -> list[list[str]]:
        return [[f"images/{n % 10}.png#{n}", f"{text} {n}"] for n in range(3000)]

    records = [
        {"id": str(n), "image": "images/1.png", "captions": [{"text": "old", "lang": "en"}]} for n in range(3000)
    ]
    Path("in.jsonl").write_text("".join(json.dumps(each) + "\n" for each in [*records, {"image": "gone.png"}]))
    with pytest.raises(CapivaraError, match="no such file"):
        import_data(["in.jsonl"], Path("out.jsonl"), ImportOptions(strict=True))
    Path("in.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records).replace("old", "new"))
    with pytest.raises(CapivaraError, match=r"number 1 was 0, in\.jsonl:1, and has changed since"):
        import_data(["in.jsonl"], Path("out.jsonl"), ImportOptions(strict=True))


SETUP = """
import rich.progress, rich.table, sqlite3, torch.utils.data, PIL.Image
from capivara_cli.importing import import_data as importing
importing.WINDOW = 20

def run(output):
    importing.import_data([sys.argv[2]], output, importing.ImportOptions(images=Path(sys.argv[3]), verify=True, dedupe=True, workers=0))
"""


def test_after_any_number_of_kills_the_bytes_are_those_of_an_undisturbed_run(folder: Path) -> None:
    rows = [["filepath", "title"], *([f"{n % 700}.png", f"text {n}"] for n in range(1400))]
    for number in range(700):
        picture(folder / "many" / f"{number}.png", number % 200)
    (folder / "many" / "333.png").write_bytes(b"no image")
    (folder / "many" / "444.png").unlink()
    kills.survive(SETUP, folder / "out", folder / table("t.csv", *rows), folder / "many", kills=15)
    assert len(lines(folder / "out" / "whole.jsonl")) == 200 - 0
    assert {"no such file", "not an image that can be read"} <= {
        each["rejected"] for each in lines(folder / "out" / "whole.jsonl.rejected.jsonl")
    }


MEMORY = """
import sys
from pathlib import Path
from capivara_cli.importing.import_data import ImportOptions, import_data
import_data([sys.argv[1]], Path(sys.argv[2]), ImportOptions())
assert "torch" not in sys.modules
"""


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_memory_does_not_grow_with_the_number_of_rows(kind: str, folder: Path) -> None:
    """Rows of 2 kB: to hold 40,000 of them would take 80 MB."""
    peaks = []
    for count in (4000, 40_000):
        source = Path(f"{count}.{kind}")
        text, names = "word " * 400, ["images/1.png", *(f"gone-{n}.png" for n in range(1, count))]
        if kind == "csv":
            source.write_text("\n".join(["filepath,title", *(f"{name},{text}" for name in names)]))
        else:
            found = ",\n".join(f'{{"filename": "{name}", "caption": "{text}"}}' for name in names)
            source.write_text(f'{{"train": [{found}]}}')
        peaks.append(peak_memory(MEMORY, source, f"{count}.out"))
    assert peaks[1] - peaks[0] < 25, f"{peaks} MB"
