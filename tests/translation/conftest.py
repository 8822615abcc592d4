"""The demo's translator, and captions of scenes that it has not seen."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from capivara_cli.demo import TRANSLATOR
from capivara_cli.demo.language import caption
from capivara_cli.demo.scenes import held_out_scenes
from capivara_cli.translation.options import TranslateOptions
from capivara_cli.translation.translate import translate

Run = Callable[..., Path]

SCENES = held_out_scenes(60, random.Random(3))


def expected(number: int, lang: str) -> list[str]:
    """Return two captions of a scene."""
    return [caption(SCENES[number], lang, template) for template in (number % 4, (number + 1) % 4)]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(TRANSLATOR, tmp_path_factory.mktemp("translators") / "translator"))


@pytest.fixture
def run(model: Path, tmp_path: Path) -> Run:
    """Translate a file into Hindi, without a cache, unless the flags say otherwise; return the output's path."""
    fixed: dict[str, Any] = {"backend": "nllb", "model": str(model), "memory": "none", "precision": "fp32"}

    def call(source: str | Path, output: str = "out.jsonl", *, to: str = "hi", **others: Any) -> Path:
        translate([source], tmp_path / output, TranslateOptions(to=to, **fixed | others))
        return tmp_path / output

    return call
