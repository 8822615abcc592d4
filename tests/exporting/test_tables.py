"""Tables and texts of `capivara export`, read back by `capivara import` and by open_clip's trainer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.exporting.conftest import answer, imported, run, write

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(str.strip)
CAPTION = st.fixed_dictionaries(
    {"text": TEXT, "lang": st.sampled_from(["en", "hi", "pt-BR"])},
    optional={
        "source": st.text("ab, \"'\t\n", max_size=5) | st.none() | st.integers(),
        "score": st.floats(-1, 1) | st.none() | st.integers(0, 1) | st.just("0.3"),
        "parent": st.integers(0, 3),
        "prefix": TEXT,
        "x": st.none() | st.lists(st.integers()),
    },
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    captions=st.lists(CAPTION, max_size=4),
    extra=st.dictionaries(st.sampled_from(["label", "note", "title", "lang"]), TEXT | st.integers() | st.none()),
)
def test_any_record_survives_a_table(captions: list[dict[str, Any]], extra: dict[str, Any], source: str) -> None:
    record = {"id": "1", "image": "images/1.png", **extra, "captions": captions}
    run("csv", write("one.jsonl", [record]), "one.csv", overwrite=True)
    [after] = imported("one.csv", format="csv")
    assert {"captions": [], **after, "image": "images/1.png"} == record


def test_what_is_not_a_number_is_null(source: str) -> None:
    captions = [{"text": "a", "lang": "en", "source": "x", "score": float("nan")}]
    run("csv", write("nan.jsonl", [{"id": "1", "image": "images/1.png", "captions": captions}]), "nan.csv")
    assert imported("nan.csv")[0]["captions"] == [{"text": "a", "lang": "en", "source": "x", "score": None}]


def test_a_table_of_one_language_has_no_parents_in_another(source: str) -> None:
    run("csv", source, "hi.csv", lang="hi")
    captions = next(record["captions"] for record in imported("hi.csv") if record["id"] == "कुत्ता 2")
    assert [caption.get("parent") for caption in captions] == [None, None]


def test_captions_to_translate_and_back(source: str) -> None:
    run("captions.txt", source, "en.txt", lang="en")
    texts = Path("en.txt").read_text().splitlines()
    assert len(texts) == 103
    assert texts[0] == 'a "dog", on; a beach'
    Path("pt.txt").write_text("".join(f"pt: {text}\n" for text in texts))
    translated = 0
    for record in imported(source, translations=Path("pt.txt"), to="pt"):
        captions = record.get("captions", [])
        for caption in captions:
            if caption["lang"] == "pt":
                translated += 1
                assert caption["text"] == "pt: " + " ".join(captions[caption["parent"]]["text"].split())
    assert translated == 103


READS_TABLE = """
import json
from open_clip_train.data import CsvDataset

rows = CsvDataset("t.tsv", lambda image: image.size, "filepath", "title", tokenizer=lambda texts: texts)
sizes, texts = zip(*(rows[i] for i in range(1, len(rows))))
print(json.dumps({"texts": len(texts), "sizes": sorted(set(sizes)), "second": texts[1]}))
"""


def test_open_clips_trainer_reads_the_table(source: str) -> None:
    run("csv", source, "t.tsv", lang="en")
    assert answer(READS_TABLE) == {"texts": 103, "sizes": [[9, 8]], "second": "an art of a dog"}


def test_standard_input_and_output(source: str) -> None:
    line = [sys.executable, "-m", "capivara_cli", "export", "csv", "-", "--lang", "hi", "-o", "-"]
    with Path(source).open() as file:
        result = subprocess.run(line, stdin=file, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    run("csv", source, "hi.csv", lang="hi")
    assert result.stdout == Path("hi.csv").read_text()
    assert "2 captions" in result.stderr
    assert not Path("-").exists()
