"""The options of `capivara score`, as they are typed and as a project file has them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from capivara_cli.errors import CapivaraError
from capivara_cli.scoring.options import ScoreOptions
from tests.conftest import Process, Refused
from tests.scoring.conftest import MakeOptions, one_record

Capivara = Callable[..., Process]


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (
            ["in.jsonl", "--lang", "hi"],
            "no caption in hi: the data has en (1)",
            "translate in.jsonl --to hi -o",
        ),
        (["in.jsonl", "--by", "pt"], "no caption in pt", ""),
        (["in.jsonl", "--lang", "en", "--by", "en"], "--by en is the same as --lang en", "leave --by out"),
        (["gone.jsonl"], "gone.jsonl: no such file", ""),
        (["in.jsonl", "-o", "in.jsonl"], "in.jsonl is both input and output", "-o"),
        (["in.jsonl", "--model", "local-dir:nowhere", "-o", "out.jsonl"], "no open_clip_config.json", ""),
        (["in.jsonl", "--plot", "folder"], "--plot folder", ".png"),
        (["in.jsonl", "--plot", "old.png"], "old.png already exists", "--overwrite"),
        (["in.jsonl", "--plot", "x.png", "-o", "x.png"], "--plot x.png is also the file of -o", "--plot another.png"),
        (["in.jsonl", "--by", "en", "--lang", "hj"], "no caption in hj: the data has en (1)", ""),
        (["in.jsonl", "--by", "en,hi"], "no caption in en,hi", ""),
        (["in.jsonl", "--by", ""], "--by '': not a language", "--by en"),
        (["in.jsonl", "--lang", ","], "--lang ,: no language in it", ""),
        (["in.jsonl", "--min-captions", "2"], "--min-captions 2 needs --diverse", "--diverse 0.3"),
        (["in.jsonl", "--scored", "--model", "x"], "--scored loads no model", "leave out"),
        (["in.jsonl", "--scored", "--device", "gpu"], "--scored loads no model", "leave out"),
        (["in.jsonl", "--model", "local-dir:m", "--pretrained", "t"], "--pretrained t: local-dir:m has its own", ""),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: list[str], message: str, hint: str, refused: Refused, tmp_path: Path
) -> None:
    one_record(tmp_path, {})
    (tmp_path / "folder").mkdir()
    (tmp_path / "old.png").touch()
    said = refused("score", *arguments)
    assert message in said
    assert hint in said


@pytest.mark.parametrize(
    ("flag", "value"), [("--min-score", 20), ("--pair-score", -2), ("--diverse", -1), ("--top-k", 0), ("--first", -1)]
)
def test_a_value_out_of_bounds_is_a_usage_error(flag: str, value: float, capivara: Capivara) -> None:
    result = capivara("score", "in.jsonl", flag, value)
    assert result.returncode == 2
    assert flag in result.stderr
    build: MakeOptions = ScoreOptions
    with pytest.raises(CapivaraError, match=f"{flag} {value}"):
        build(**{flag[2:].replace("-", "_"): value})


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("model: foo", "capivara.yaml: model = 'foo'"),
        ("model: {nam: x}", "capivara.yaml: unknown key model.nam, did you mean model.name?"),
        ("model: {name: [x]}", "capivara.yaml: model"),
        ("score: {min-scor: 0.2}", "capivara.yaml, score: unknown key min_scor, did you mean min_score"),
    ],
)
def test_what_is_wrong_in_the_project_file(section: str, message: str, refused: Refused, tmp_path: Path) -> None:
    one_record(tmp_path, {})
    (tmp_path / "capivara.yaml").write_text(section)
    assert message in refused("score", "in.jsonl")


def test_the_project_file_names_a_model_but_scores_in_the_file_need_none(capivara: Capivara, tmp_path: Path) -> None:
    one_record(tmp_path, {"score": 0.1}, {"score": 0.3})
    (tmp_path / "capivara.yaml").write_text("model: {name: 'local-dir:nowhere'}\nscore: {min-score: 0.2}\n")
    assert "local-dir:nowhere" in capivara("score", "in.jsonl").stderr
    result = capivara("score", "in.jsonl", "--scored")
    assert [caption["score"] for caption in json.loads(result.stdout)["captions"]] == [0.3]


def test_what_by_cannot_judge_is_said_before_the_work(capivara: Capivara, tmp_path: Path) -> None:
    hindi = {"lang": "hi", "score": 0.2}
    one_record(tmp_path, {"score": 0.1}, hindi, hindi)
    said = " ".join(capivara("score", "in.jsonl", "--scored", "--lang", "hi", "--by", "en").stderr.split())
    assert said.startswith(
        "warning: --by en judges no caption in hi: none of the 2 has a `parent` in en, so all are kept"
    )
    one_record(tmp_path, {"score": 0.1}, hindi, {**hindi, "parent": 0})
    said = capivara("score", "in.jsonl", "--scored", "--by", "en").stderr
    assert said.startswith("1 of 2 captions in hi have no `parent` in en: they are kept")


def test_captions_are_human_by_their_source_and_by_those_that_are_named(capivara: Capivara, tmp_path: Path) -> None:
    one_record(tmp_path, *({"text": name, "score": 0.1, "source": name} for name in ("human", "crowd", "blip2")))
    result = capivara("score", "in.jsonl", "--scored", "--first", "0", "--human", "crowd")
    assert [caption["text"] for caption in json.loads(result.stdout)["captions"]] == ["human", "crowd"]
