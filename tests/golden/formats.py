"""Small files in the formats of other tools, with rows and images that cannot be used among them."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.helpers import write_tar

Json = dict[str, Any]


def write_formats(folder: Path) -> None:
    """Write a source of every format; their images are those of `photos/`, which must exist."""
    _tables(folder)
    _annotations(folder)
    _aligned_texts(folder)
    _folders(folder)
    _shards(folder)
    _parquet(folder)
    _translations(folder)


def _tables(folder: Path) -> None:
    """Write tables of all delimiters, with rows that cannot be used."""
    head = ["filepath", "title"]
    rows = [
        ["photos/1.png", 'a "dog", on a beach; two\nlines'],
        ["photos/2.png", "a cat"],
        ["photos/1.png", "another"],
        ["gone.png", "gone"],
        ["", "no image"],
        ["https://x.example/a.jpg", "an address"],
        ["photos/4.png", ""],
    ]
    _table(folder / "comma.csv", ",", [head, *rows])
    _table(folder / "semicolon.csv", ";", [head, *rows, ["photos/3.png", "two", "more"]])
    _table(folder / "bar.csv", "|", [head, *rows])
    _table(folder / "quoted.tsv", "\t", [head, *rows])
    (folder / "plain.tsv").write_text('filepath\ttitle\nphotos/1.png\t"a 3" screen\nphotos/2.png\tother\n')
    latin = "filepath,title\nphotos/1.png,café\nphotos/2.png,tea\n"
    (folder / "latin.csv").write_bytes(latin.encode("latin-1"))
    (folder / "utf16.csv").write_bytes("filepath,title\r\nphotos/1.png,कुत्ता\r\n".encode("utf-16"))
    wide = [
        ["key", "file_name", "caption", "caption_hi", "pt", "label", "votes"],
        ["k1", "1.png", "a dog", "कुत्ता", "um cão", "dog", "3"],
        ["k2", "2.png", "a cat", "", "um gato", "cat", ""],
        ["k1", "1.png", "the dog", "", "o cão", "animal", "4"],
    ]
    _table(folder / "wide.csv", ",", wide)
    _table(folder / "named.csv", ",", [["a", "b", "c"], ["photos/1.png", "eins", "one"], ["photos/2.png", "zwei", ""]])
    (folder / "flickr.token").write_text("1.png#0\tone\n1.png#1\tuno\n2.png#0\ttwo\n")
    (folder / "addresses.tsv").write_text(
        'a "dog\thttps://x.example/1\ngone\thttps://x.example/gone\na cat\thttps://x.example/2\n'
    )


def _table(path: Path, delimiter: str, rows: Iterable[list[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows(rows)


def _annotations(folder: Path) -> None:
    """Write JSON as COCO, Karpathy, PraCegoVer and Crossmodal-3600 have it."""
    coco = {
        "info": {"year": 2014},
        "images": [{"id": number, "file_name": f"{number}.png", "height": 9} for number in (3, 1, 2, 77)],
        "licenses": [],
        "annotations": [
            {"image_id": 1, "id": 10, "caption": "one \n"},
            {"image_id": 3, "id": 11, "caption": "three"},
            {"image_id": 1, "id": 12, "caption": "uno"},
            {"image_id": 99, "id": 13, "caption": "of no image"},
            {"image_id": 2, "id": 14},
        ],
    }
    _write_json(folder / "coco.json", coco)
    karpathy = {
        "images": [
            {
                "filename": f"{number}.png",
                "filepath": "val",
                "split": split,
                "sentences": [{"raw": f"text {number}", "tokens": []}, {"raw": f"more {number}", "tokens": []}],
                "imgid": number,
            }
            for number, split in enumerate(["train", "val", "test", "restval", "test"], start=1)
        ],
        "dataset": "flickr30k",
    }
    _write_json(folder / "karpathy.json", karpathy)
    pracegover = {
        "train": [{"filename": "1.png", "caption": "um", "user": "a"}],
        "validation": [{"filename": "2.png", "caption": "dois"}, {"filename": "gone.png", "caption": "nada"}],
    }
    _write_json(folder / "pracegover.json", pracegover)
    crossmodal: list[Json] = [
        {
            "image/key": "9",
            "image/locale": "hi",
            "en": {"caption": ["one", "uno"], "caption/tokenized": ["one", "uno"]},
            "hi": {"caption": ["एक"]},
        },
        {"image/key": "gone", "image/locale": "pt", "pt": {"caption": ["um"]}},
        {"image/key": "9", "image/locale": "pt", "pt": {"caption": ["again"]}},
    ]
    write_lines(folder / "xm" / "captions.jsonl", crossmodal)
    _copy(folder / "photos" / "9.jpg", folder / "xm" / "images" / "9.jpg")


def _aligned_texts(folder: Path) -> None:
    """Write texts line by line as XTD and Flickr30k-200 have them."""
    names = "1.png\n2.png\n3.png\n2.png\n"
    texts = {
        "xtd/test_image_names.txt": names,
        "xtd/test_1kcaptions_jp.txt": "一\n二\n三\n又\n",
        "xtd/test_1kcaptions_es.txt": "a\n\nc\nd\n",
        "xtd/readme.txt": "what this is\n",
        "flickr200/filenames.txt": names,
        "flickr200/hin_Deva.txt": "एक\nदो\nतीन\nफिर\n",
        "flickr200/xho_Latn.txt": "nye\nmbini\nntathu\nkwakhona\n",
    }
    for name, text in texts.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def _folders(folder: Path) -> None:
    """Write folders of images: with texts beside them, of classes, of albums, and Hugging Face's ImageFolder."""
    photos = folder / "photos"
    for number in range(1, 6):
        _copy(photos / f"{number}.png", folder / "beside" / f"{number}.png")
        _copy(photos / f"{number}.png", folder / "hub" / f"{number}.png")
    (folder / "beside" / "1.txt").write_text("\ufeffa dog \r\n", encoding="utf-8")
    _write_json(folder / "beside" / "2.json", {"caption": "two", "url": "https://x.example/2", "status": "success"})
    (folder / "beside" / "3.json").write_text("{broken")
    (folder / "beside" / "4.cls").write_text("7")
    (folder / "beside" / "5.txt").write_bytes("café".encode("latin-1"))
    for name, number in (("dog/1", 1), ("dog/2", 2), ("cat/3", 3)):
        _copy(photos / f"{number}.png", folder / "classes" / f"{name}.png")
        _copy(photos / f"{number}.png", folder / "albums" / "2020" / f"{name}.png")
        _copy(photos / f"{number}.png", folder / "parts" / ("test" if number > 1 else "train") / f"{name}.png")
    metadata: list[Json] = [
        {"file_name": "1.png", "text": "a dog", "label": "dog"},
        {"file_name": "2.png", "captions": [{"text": "a", "lang": "en"}, {"text": "क", "lang": "hi", "parent": 0}]},
        {"file_name": "gone.png", "text": "gone"},
        {"text": "no name"},
    ]
    write_lines(folder / "hub" / "metadata.jsonl", metadata)


def _copy(source: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, path)


def _shards(folder: Path) -> None:
    """Write tar shards: as img2dataset makes them, and as CAPIVARA published them."""
    one, two = ((folder / "photos" / f"{number}.png").read_bytes() for number in (1, 2))
    fields = {"caption": "one", "url": "https://x.example/1", "key": "000000000", "status": "success", "width": 9}
    write_tar(folder / "shards" / "00000.tar", {"0.png": one, "0.txt": b"one", "0.json": _json(fields)})
    write_tar(
        folder / "shards" / "00001.tar",
        {"1.png": two, "1.json": _json({"caption": "two", "url": "https://x.example/2"}), "2.png": one, "2.cls": b"7"}
        | {"3.txt": b"a text without an image", "4.png": one, "4.json": b"{", "5.png": b"not an image", "5.txt": b"x"},
    )
    published = {
        "image": "x.jpg",
        "captions-en": ["human"],
        "captions-pt": ["humana", "humana outra", "gerada um", "gerada dois"],
        "generated-captions-en": ["made one", "made two"],
        "generated-captions-pt": ["gerada um", "gerada dois"],
        "generated-captions-hi": ["एक", "दो"],
        "similarities-pt": [0.3, 0.29, 0.1, 0.2],
        "licence": "x",
    }
    write_tar(folder / "published.tar", {"sample00000.png": one, "sample00000.json": _json(published)})


def _parquet(folder: Path) -> None:
    """Write Parquet files, with images inside and with names of files."""
    import pyarrow as arrow
    import pyarrow.parquet

    contents = [(folder / "photos" / f"{number}.png").read_bytes() for number in (1, 2, 1)]
    inside = {
        "image": [{"bytes": content, "path": "x.png"} for content in [*contents, b"not an image"]],
        "caption": [["one", "uno"], ["two"], ["again"], ["none"]],
        "id": ["a", "b", "c", "d"],
    }
    beside = {
        "path": ["photos/1.png", "photos/2.png", "gone.png"],
        "text": ["one", None, "gone"],
        "n": [1, 2, 3],
    }
    (folder / "rows").mkdir()
    arrow.parquet.write_table(arrow.table(inside), folder / "rows" / "train-00000.parquet")
    arrow.parquet.write_table(arrow.table(inside).slice(1, 1), folder / "rows" / "test-00000.parquet")
    arrow.parquet.write_table(arrow.table(beside), folder / "names.parquet")


def _translations(folder: Path) -> None:
    """Write records, and translations of their captions by people: line by line, and by key."""
    captions = [[{"text": f"{word} {number}", "lang": "en"} for word in ("text", "more")] for number in range(1, 5)]
    records = [
        {"id": f"{number}.png", "image": f"photos/{number}.png", "captions": own}
        for number, own in enumerate(captions, start=1)
    ]
    write_lines(folder / "captions.jsonl", records)
    lines = [f"linha {number}" if number != 5 else "" for number in range(8)]
    (folder / "lines.txt").write_text("\r\n".join([*lines, ""]), encoding="utf-8-sig", newline="")
    rows = [["text", "pt"], ["text 1", "um"], ["more 3", "mais tre\u0302s"], ["of no caption", "nada"]]
    _table(folder / "by-text.csv", ",", rows)
    flickr = [["1.png#0", "um"], ["3.png#1", "mais tre\u0302s"], ["9.png#0", "nada"]]
    _table(folder / "by-number.tsv", "\t", flickr)
    import openpyxl

    book: Any = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(folder / "by-text.xlsx")


def write_lines(path: Path, records: Iterable[Json]) -> None:
    """Write JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in records), encoding="utf-8")


def _write_json(path: Path, value: Any) -> None:
    """Write a JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
