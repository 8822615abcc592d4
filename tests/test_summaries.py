"""`--json`: what a data command did, as one object on standard output."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from capivara_cli.demo import CAPTIONER, TRANSLATOR
from tests.conftest import Process
from tests.helpers import read_jsonl, write_jsonl

Capivara = Callable[..., Process]


@pytest.fixture
def source(world: Path, tmp_path: Path) -> Path:
    rows = read_jsonl(world / "train.jsonl")[:4]
    texts = [{"text": "a small red star on a white background", "lang": "en"}, {"text": "nothing of it", "lang": "en"}]
    records = [{"id": row["id"], "image": str(world / row["image"]), "captions": texts} for row in rows]
    records[3]["image"] = "missing.png"
    return write_jsonl(tmp_path / "in.jsonl", records)


@pytest.mark.parametrize("verb", ["caption", "translate", "score", "import"])
def test_the_counts_are_those_of_the_files(verb: str, source: Path, base: Path, capivara: Capivara) -> None:
    flags = {
        "caption": ["--model", str(CAPTIONER), "--prefixes", "none", "--max-new-tokens", "4"],
        "translate": ["--to", "hi", "--model", str(TRANSLATOR), "--memory", "none"],
        "score": ["--model", f"local-dir:{base}", "--top-k", "1"],
        "import": [],
    }
    output = source.with_name("out.jsonl")
    result = capivara(verb, source, *flags[verb], "-o", output, "--json")
    assert result.returncode == 0, result.stderr
    said = json.loads(result.stdout)
    written = read_jsonl(output)
    left_out = read_jsonl(source.with_name("out.jsonl.rejected.jsonl")) if verb != "translate" else []
    assert said["output"] == str(output)
    assert said["records"] == len(written)
    assert said["rejected"] == sum("image" in line for line in left_out)
    assert said["parts_rejected"] == sum("image" not in line for line in left_out)
    captions = [caption for record in written for caption in record["captions"]]
    if verb == "score":
        assert said["images"]["kept"] == len(written)
        assert said["captions"]["no source (en)"]["kept"] == len(captions) == 3
        assert sum(said["scores"]["kept"]) == 3
        assert sum(said["scores"]["dropped"]) == 3
    if verb == "import":
        assert said["languages"]["en"] == {"captions": len(captions), "images": 3, "most_of_an_image": 2}
    if verb == "translate":
        assert said["captions"] == 8
        assert said["texts_translated"] == 2
    if verb == "caption":
        assert said["images"] == 3


def test_json_needs_a_file_for_the_records(source: Path, capivara: Capivara) -> None:
    result = capivara("import", source, "--json")
    assert result.returncode == 2
    assert "error: --json without -o: " in result.stderr
