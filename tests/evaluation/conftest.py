"""Shapes to classify, and what a test changes of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from capivara_cli.evaluation.classify_eval import classify_eval
from capivara_cli.evaluation.options import ClassifyOptions
from tests.helpers import read_jsonl, write_jsonl

Evaluate = Callable[..., list[dict[str, Any]]]
Says = pytest.CaptureFixture[str]
Rows = list[dict[str, Any]]

LABELS = ["circle", "square", "triangle", "star", "cross", "drop"]
NAMES = {label: label for label in LABELS}
SOME_XHOSA = {"en": NAMES, "xh": {"star": "inkwenkwezi", "cross": "umnqamlezo"}}


@pytest.fixture
def shapes(things: Path) -> Rows:
    """The records of shapes.jsonl, their images with absolute paths."""
    rows = read_jsonl(things / "shapes.jsonl")
    return [row | {"image": str(things / row["image"])} for row in rows]


@pytest.fixture
def evaluate(things: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evaluate:
    """Evaluate the base model in an empty folder; without data, on the shapes."""
    monkeypatch.chdir(tmp_path)

    def call(*data: str, lang: Sequence[str] = ("en",), output: str | None = None, **flags: Any) -> Rows:
        defaults = {"model": f"local-dir:{base}", "classes": str(things / "shapes.yaml")}
        return classify_eval(data or [things / "shapes.jsonl"], ClassifyOptions(lang=lang, **defaults | flags), output)

    return call


def put(name: str, rows: Rows) -> str:
    return str(write_jsonl(Path(name), rows))


def put_folders(name: str, rows: Rows) -> str:
    for row in rows:
        folder = Path(name, str(row["label"]))
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(row["image"], folder / f"{row['id']}.png")
    return name


def put_json(name: str, value: object) -> str:
    Path(name).write_text(json.dumps(value))
    return name


def said(capsys: Says) -> str:
    return " ".join(capsys.readouterr().err.split())
