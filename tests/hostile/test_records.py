"""Records that nobody should write: each is read, or refused in one line that names it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capivara_cli.data import image_records, labelled, records
from capivara_cli.data.captions import MAX_LENGTH
from capivara_cli.data.lines import MAX_LINE
from capivara_cli.data.readers.options import ReaderOptions
from capivara_cli.exporting.export import export
from capivara_cli.exporting.options import ExportOptions
from capivara_cli.importing.import_data import import_data
from capivara_cli.importing.options import ImportOptions
from tests.conftest import peak_memory
from tests.forks import Forks
from tests.hostile.conftest import VALUES, damaged, fuzzing, refusal_of

DOG = {"id": "1", "image": "1.jpg", "captions": [{"text": "a dog", "lang": "en"}, {"text": "\u0915", "lang": "hi"}]}
KEYS = st.sampled_from(["id", "image", "file_name", "captions", "label", "labels", "rejected"]) | st.text(max_size=5)
LANGS = st.sampled_from(["en", "pt_BR", "\ud800"])
CAPTIONS = st.lists(
    st.fixed_dictionaries({"text": st.text(st.characters(), max_size=9), "lang": LANGS})
    | st.dictionaries(st.sampled_from(["text", "lang", "parent", "score"]), VALUES),
    max_size=4,
)
RECORDS = st.builds(
    lambda extra, captions: {**DOG, **extra} | captions,
    st.dictionaries(KEYS, VALUES, max_size=4),
    st.just({}) | st.fixed_dictionaries({"captions": CAPTIONS}),
)
LINES = st.lists(RECORDS, min_size=1, max_size=3).map(lambda lines: "\n".join(map(json.dumps, lines)).encode())


@fuzzing(60)
@given(content=LINES | damaged(json.dumps(DOG).encode(), json.dumps(DOG, ensure_ascii=False).encode("utf-16")))
def test_lines_are_records_or_are_refused(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = Path("in.jsonl")
    source.write_bytes(content)
    message = refusal_of(lambda: records.validate([source]))
    assert message is None or "in.jsonl" in message
    refusal_of(lambda: image_records.read_all([source]))
    refusal_of(lambda: labelled.read(["in.jsonl"], ReaderOptions()))
    refusal_of(lambda: export("csv", source, "out.csv", ExportOptions(overwrite=True)))
    refusal_of(lambda: import_data([source], "out.jsonl", ImportOptions(format="jsonl", overwrite=True)))


def write(path: Path, *lines: Any) -> Path:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


@pytest.mark.parametrize("text", ["a \ud83d dog", "\udcff"])
def test_half_a_character_is_refused_with_its_line_and_rejected_by_import(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = write(
        tmp_path / "in.jsonl", DOG, {"id": "2", "image": "2.jpg", "captions": [{"text": text, "lang": "en"}]}
    )
    assert "in.jsonl:2: a caption with half of a character" in str(refusal_of(lambda: records.validate([source])))
    Path("1.jpg").touch()
    import_data([source], "out.jsonl", ImportOptions())
    assert "half of a character" in Path("out.jsonl.rejected.jsonl").read_text()


def test_an_id_with_half_a_character_goes_through_export(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", {**DOG, "id": "\ud800"})
    export("csv", source, tmp_path / "out.csv", ExportOptions())
    assert "\\ud800" in (tmp_path / "out.csv").read_text()


def test_a_long_caption_is_refused_with_its_line(tmp_path: Path) -> None:
    for length, refused in ((MAX_LENGTH, False), (MAX_LENGTH + 1, True)):
        captions = [{"text": "x" * length, "lang": "en"}]
        source = write(tmp_path / "in.jsonl", DOG, {"id": "2", "image": "2.jpg", "captions": captions})
        message = refusal_of(lambda source=source: records.validate([source]))  # type: ignore[misc]
        assert (message == f"{source}:2: a caption of 65,537 characters: more than 65,536") == refused, message


READ = """
import sys
from capivara_cli.data import records
from capivara_cli.errors import CapivaraError
try:
    records.validate([sys.argv[1]])
except CapivaraError as error:
    assert error.message == f"{sys.argv[1]}:2: a line of more than 16 MiB", error.message
else:
    raise AssertionError
"""


def test_a_line_without_an_end_is_refused_before_it_fills_the_memory(forks: Forks, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    with source.open("wb") as file:
        file.write(json.dumps(DOG).encode() + b"\n[")
        file.truncate(MAX_LINE * 40)  # 640 MiB, of which the disk holds nothing
    assert peak_memory(forks, READ, source) < 200
