"""Runs whose files say what cannot be."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capivara_cli.errors import CapivaraError
from capivara_cli.training.merge_lora import merge_lora
from tests.hostile.conftest import VALUES, edit_json, fuzz


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[1]", "not keys and values"),
        ("null", "not keys and values"),
        ("", "is not JSON"),
        ('{"model": 5}', "model = 5 is not a name"),
        ('{"model": "x", "lang": 5}', "lang = 5 is not languages"),
        ('{"model": "x", "lang": "hi"}', "lang = 'hi' is not languages"),
        ('{"model": "x", "logit_scale": "much"}', "logit_scale = 'much' is not a number"),
        ("{}", "does not say which model it was trained on"),
        ('{"model": null}', "does not say which model it was trained on"),
    ],
)
@pytest.mark.parametrize("name", ["run.json", "adapter/capivara.json"])
def test_a_summary_that_cannot_be_is_one_line(name: str, content: str, says: str, run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    (folder / "run.json").unlink()
    (folder / name).write_text(content)
    with pytest.raises(CapivaraError) as error:
        merge_lora(folder, tmp_path / "merged")
    assert re.search(says, error.value.message)
    assert str(folder) in error.value.message
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("values", [{"before": [1]}, {"after": {"hi": "much"}}, {"from_scratch": "no"}], ids=str)
def test_a_summary_of_a_run_with_a_value_that_cannot_be(values: dict[str, Any], run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    edit_json(folder / "run.json", **values)
    with pytest.raises(CapivaraError, match="is not scores by language|is not true or false"):
        merge_lora(folder, tmp_path / "merged")


def test_a_summary_without_its_languages_is_enough(run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    model = json.loads((run / "run.json").read_text())["model"]
    (folder / "run.json").write_text(json.dumps({"model": model}))
    merge_lora(folder, tmp_path / "merged")


@settings(fuzz, max_examples=15)  # merging takes half a second
@given(key=st.sampled_from(["model", "pretrained", "from_scratch", "lang", "before", "after", "images"]), value=VALUES)
def test_whatever_a_summary_says_it_is_merged_or_refused(key: str, value: Any, run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run", dirs_exist_ok=True))
    edit_json(folder / "run.json", **{key: value})
    with suppress(CapivaraError):
        shutil.rmtree(merge_lora(folder, tmp_path / "merged"))
