"""Tables and annotations that nobody should write: each is imported, or refused in one line."""

from __future__ import annotations

import csv
import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capivara_cli.importing.import_data import import_data
from capivara_cli.importing.options import ImportOptions
from tests.hostile.conftest import VALUES, damaged, fuzzing, refusal_of

TSV = b'filepath\ttitle\thi\n1.png\ta dog\tx\n2.png\t"a\tcat"\ty\n'
CSV = b'\xef\xbb\xbffilepath,title,label\r\n1.png,"a ""dog""",3\r\n"2.png","a\ncat",\r\n'
COCO = {
    "images": [{"id": 1, "file_name": "1.png"}, {"id": 2, "file_name": "2.png"}],
    "annotations": [{"image_id": 1, "caption": "a dog"}, {"image_id": 2, "caption": "a cat"}],
}
KARPATHY = {"images": [{"filename": "1.png", "split": "val", "sentences": [{"raw": "a dog"}]}]}
PRACEGOVER = {"train": [{"filename": "1.png", "caption": "um"}], "test": []}
KEYS = st.sampled_from(
    [
        "images",
        "annotations",
        "id",
        "image_id",
        "file_name",
        "caption",
        "filename",
        "sentences",
        "raw",
        "split",
        "train",
    ]
)
ELEMENTS = st.dictionaries(KEYS, VALUES, max_size=4) | VALUES
TREES = st.dictionaries(KEYS, st.lists(ELEMENTS, max_size=3) | VALUES, max_size=3) | st.lists(ELEMENTS, max_size=3)
FILES = st.builds(
    lambda file, change: {**file, **change},
    st.sampled_from([COCO, KARPATHY, PRACEGOVER]),
    st.dictionaries(KEYS, st.lists(ELEMENTS, max_size=3) | VALUES, max_size=2),
)


def check(name: str, content: bytes, **options: Any) -> None:
    Path(name).write_bytes(content)
    message = refusal_of(lambda: import_data([name], "out.jsonl", ImportOptions(overwrite=True, **options)))
    assert message is None or len(message) < 5000
    for line in Path("out.jsonl").read_text().split("\n")[:-1] if message is None else ():
        json.loads(line)


@fuzzing(100)
@given(content=damaged(TSV, CSV, CSV.decode("utf-8-sig").encode("utf-16")), name=st.sampled_from(["t.csv", "t.tsv"]))
def test_a_damaged_table(content: bytes, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check(name, content)


@fuzzing(60)
@given(
    rows=st.lists(st.lists(st.text(max_size=9), min_size=2, max_size=3), max_size=4), delimiter=st.sampled_from(",;\t|")
)
def test_any_cells(rows: list[list[str]], delimiter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter).writerows([["filepath", "title"], *rows])
    check("t.csv", buffer.getvalue().encode())


@fuzzing(50)
@given(
    content=st.one_of(
        (FILES | TREES).map(lambda value: json.dumps(value).encode()),
        *(damaged(json.dumps(value).encode()) for value in (COCO, KARPATHY, PRACEGOVER)),
    ),
    form=st.sampled_from([None, "coco", "karpathy", "pracegover"]),
)
def test_annotations(content: bytes, form: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check("a.json", content, format=form)


@cache
def parquet() -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    buffer = io.BytesIO()
    table = pyarrow.table({"image": ["1.png", "2.png"], "caption": ["a dog", "a cat"]})
    pytest.importorskip("pyarrow.parquet").write_table(table, buffer)
    return buffer.getvalue()


@fuzzing(60)
@given(data=st.data())
def test_a_damaged_parquet_file(data: st.DataObject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check("t.parquet", data.draw(damaged(parquet())))


@pytest.mark.parametrize("part", [b"a dog", b"caption"])
def test_parquet_that_is_not_utf_8_is_refused(part: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    buffer = io.BytesIO()
    table = pytest.importorskip("pyarrow").table({"image": ["1.png"], "caption": ["a dog"]})
    pytest.importorskip("pyarrow.parquet").write_table(
        table, buffer, compression="none", use_dictionary=False, write_statistics=False, store_schema=False
    )
    Path("t.parquet").write_bytes(buffer.getvalue().replace(part, b"\x80" + part[1:]))
    message = refusal_of(lambda: import_data(["t.parquet"], "out.jsonl", ImportOptions()))
    assert message is not None
    assert message.startswith("t.parquet cannot be read as Parquet: ")


@cache  # it holds the time at which it was made
def workbook() -> bytes:
    buffer = io.BytesIO()
    book = pytest.importorskip("openpyxl").Workbook()
    book.active.append(["image", "hi"])
    book.active.append(["1.png", "x"])
    book.save(buffer)
    return buffer.getvalue()


@fuzzing(30)
@given(data=st.data())
def test_a_damaged_workbook(data: st.DataObject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.xlsx").write_bytes(data.draw(damaged(workbook())))
    check("t.csv", b"filepath,title\n1.png,a dog\n", translations=Path("x.xlsx"), to="hi")


@fuzzing(60)
@given(keyed=damaged(b"image,hi\n1.png,x\n"), lines=damaged(b"one line\n"))
def test_damaged_translations(keyed: bytes, lines: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in (("x.csv", keyed), ("x.txt", lines)):
        Path(name).write_bytes(content)
        check("t.csv", b"filepath,title\n1.png,a dog\n", translations=Path(name), to="hi")
