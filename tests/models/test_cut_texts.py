"""Captions that are longer than the model's context are told by every verb that encodes texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from capivara_cli.evaluation.classify_eval import classify_eval
from capivara_cli.evaluation.options import ClassifyOptions, RetrieveOptions
from capivara_cli.evaluation.retrieve_eval import retrieve_eval
from capivara_cli.scoring.options import ScoreOptions
from capivara_cli.scoring.score import score
from capivara_cli.training.options import train_options
from capivara_cli.training.train import train
from tests.helpers import read_jsonl, write_jsonl

LONG = "a small red circle " * 20


@pytest.fixture
def data(world: Path, tmp_path: Path) -> str:
    """Fifty images, two of them with a long caption in English."""
    rows = read_jsonl(world / "train.jsonl")[:50]
    for number, row in enumerate(rows):
        row["image"] = str(world / row["image"])
        row["captions"] = [{"text": LONG if number in (3, 7) else f"a star {number}", "lang": "en"}]
        row["label"] = "star" if number % 2 else "circle"
    return str(write_jsonl(tmp_path / "data.jsonl", rows))


def trained(data: str, model: str, folder: Path) -> Any:
    sets = ["batch_size=16", "max_steps=1", "optimizer.warmup_steps=0", "replay={}", "data.val_share=0"]
    run = train(train_options("lora", lang=["en"], data=[data], model=model, set=sets), folder / "run")
    return json.loads((run / "run.json").read_text())["cut_texts"]["en"]


def scored(data: str, model: str, folder: Path) -> None:
    score([data], folder / "scored.jsonl", ScoreOptions(model=model))


def retrieved(data: str, model: str, folder: Path) -> Any:
    retrieve_eval([data], RetrieveOptions(lang=["en"], model=model), folder / "result.json")
    return json.loads((folder / "result.json").read_text())["cut_texts"]


@pytest.mark.parametrize(
    ("verb", "what"), [(trained, "in en"), (scored, "scored in this session"), (retrieved, "in en")]
)
def test_captions_that_were_cut_are_told(
    verb: Any, what: str, data: str, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = verb(data, f"local-dir:{base}", tmp_path)
    assert content in (None, {"count": 2, "share": 0.04, "example": LONG})
    warning = (
        f"2 of 50 captions {what} (4.0%) are longer than the model's 40 tokens and were cut; the first: {LONG[:9]}"
    )
    assert capsys.readouterr().err.count(warning) == 1


def test_prompts_that_were_cut_are_told(
    data: str, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "templates.json").write_text(json.dumps({"en": ["a {c}", f"{LONG} {{c}}"]}))
    options = ClassifyOptions(lang=["en"], model=f"local-dir:{base}", templates=str(tmp_path / "templates.json"))
    [content] = classify_eval([data], options)
    assert content["cut_texts"] == {"count": 2, "share": 0.5, "example": f"{LONG} circle"}
    assert "2 of 4 prompts in en" in capsys.readouterr().err
