"""What the tests of `capivara score` share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from capivara_cli.data import records
from capivara_cli.scoring.options import ScoreOptions
from tests.helpers import read_jsonl, write_jsonl

MakeOptions = Callable[..., ScoreOptions]


@pytest.fixture(scope="session")
def some(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 of the world's training records, with absolute paths; two captions in each of four languages."""
    first = list(records.read(world / "train.jsonl"))[:120]
    rows = [record.data | {"image": record.image.path} for record in first]
    return write_jsonl(tmp_path_factory.mktemp("some") / "some.jsonl", rows)


@pytest.fixture
def options(base: Path) -> MakeOptions:
    """Options with the demo's base model."""
    return partial(ScoreOptions, model=f"local-dir:{base}")


def one_record(folder: Path, *captions: dict[str, Any]) -> Path:
    """Write a file of one record; the captions are English and have the text "a" unless they say otherwise."""
    full = [{"text": "a", "lang": "en"} | caption for caption in captions]
    return write_jsonl(folder / "in.jsonl", [{"image": "a.png", "captions": full}])


def repeated(path: Path, times: int) -> list[dict[str, Any]]:
    """The records of a file, many times, each with an id of its own."""
    return [{**row, "id": f"{turn}-{row['id']}"} for turn in range(times) for row in read_jsonl(path)]


def assert_same_files(one: Path, other: Path) -> None:
    for ending in ("", ".rejected.jsonl"):
        assert Path(f"{one}{ending}").read_bytes() == Path(f"{other}{ending}").read_bytes()
