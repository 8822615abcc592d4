from __future__ import annotations

import itertools
import json
import os
import pty
import random
import re
import select
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from capivara_cli.demo import BASE
from capivara_cli.demo.world import caption, training_scenes
from tests.conftest import Process, command

Capivara = Callable[..., Process]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder that `capivara demo` leaves behind, and what it says in a pipe."""
    folder = tmp_path_factory.mktemp("demo") / "here"
    result = subprocess.run(command("demo", folder), check=True, capture_output=True, text=True)
    return folder, result.stderr


@pytest.fixture(scope="module")
def folder(shown: tuple[Path, str]) -> Path:
    return shown[0]


def mean_recall(path: Path) -> float:
    return 100 * float(json.loads(path.read_text())["metrics"]["mean_recall"])


def test_the_language_is_learnt_and_english_is_not_forgotten(folder: Path) -> None:
    before = {lang: mean_recall(folder / "results" / f"hi.{lang}.baseline.json") for lang in ("hi", "en")}
    after = {lang: mean_recall(folder / "results" / f"hi.{lang}.json") for lang in ("hi", "en")}
    assert before["hi"] < 25
    assert after["hi"] > 85
    assert before["en"] > 85
    assert after["en"] > before["en"] - 3


def test_the_english_captions_are_the_captioners_own(folder: Path) -> None:
    found = [json.loads(line) for line in (folder / "data" / "train.jsonl").read_text().splitlines()]
    english = [own for record in found for own in record["captions"] if own["lang"] == "en"]
    assert {own["source"] for own in english} == {"models/captioner"}
    assert len(english) > 2.9 * len(found)


def test_what_the_filter_drops_is_what_the_captioner_got_wrong(folder: Path) -> None:
    """The truth is known: the scenes come from the seed."""
    scenes = list(itertools.islice(training_scenes(random.Random(0)), 4000))
    dropped = [json.loads(line) for line in (folder / "data" / "clean.jsonl.rejected.jsonl").read_text().splitlines()]
    kept = [json.loads(line) for line in (folder / "data" / "clean.jsonl").read_text().splitlines()]
    texts = [(each["id"], own["text"], True) for each in dropped for own in each.get("captions", [each])]
    texts += [(each["id"], own["text"], False) for each in kept for own in each["captions"]]
    assert len(texts) == 12_000
    wrong = [
        (gone, text not in {caption(scenes[int(id_.removeprefix("train-"))], "en", number) for number in range(4)})
        for id_, text, gone in texts
    ]
    caught = sum(gone and bad for gone, bad in wrong)
    recall = caught / sum(bad for _, bad in wrong)
    precision = caught / sum(gone for gone, _ in wrong)
    assert recall > 0.5
    assert precision > 5 * sum(bad for _, bad in wrong) / len(wrong)


def test_shapes_and_colours_are_told_apart_afterwards(folder: Path) -> None:
    for kind in ("shapes", "colours"):
        before, after = (
            json.loads((folder / "results" / f"hi-{kind}.hi{end}.json").read_text())["metrics"]["acc1"]
            for end in (".baseline", "")
        )
        assert before < 0.75
        assert after > 0.9


def test_another_language_uses_what_is_there(folder: Path, capivara: Capivara) -> None:
    made = (folder / "data" / "captions.jsonl").stat().st_mtime_ns
    result = capivara("demo", folder, "--lang", "xh")
    assert result.returncode == 0, result.stderr
    assert (folder / "data" / "captions.jsonl").stat().st_mtime_ns == made
    first = json.loads((folder / "data" / "train.jsonl").read_text().splitlines()[0])
    assert [own["lang"] for own in first["captions"]] == ["en"] * 3 + ["hi"] * 3 + ["xh"] * 3
    assert mean_recall(folder / "results" / "xh.xh.baseline.json") < 25
    assert mean_recall(folder / "results" / "xh.xh.json") > 85
    assert mean_recall(folder / "results" / "xh.en.json") > mean_recall(folder / "results" / "xh.en.baseline.json") - 3


def test_the_line_of_the_readme_works_in_the_folder(folder: Path, capivara: Capivara) -> None:
    result = capivara("train", "--lang", "hi", "--lora", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "runs/hi-lora\n"


def test_a_pipe_gets_lines_and_no_progress_bar(shown: tuple[Path, str]) -> None:
    assert "gain " in shown[1]
    assert "samples/s" not in shown[1]
    assert "\x1b" not in shown[1]


def test_progress_is_shown_in_a_terminal(folder: Path) -> None:
    line = command("train", "--lang", "hi", "--lora", "--max-steps", "20", "-o", "runs/short")
    terminal, screen = pty.openpty()
    process = subprocess.Popen(line, cwd=folder, stdout=subprocess.PIPE, stderr=screen)
    os.close(screen)
    seen = b""
    while select.select([terminal], [], [], 60)[0]:
        try:
            seen += os.read(terminal, 65536)
        except OSError:  # the other end was closed
            break
    process.communicate()
    os.close(terminal)
    assert process.returncode == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    for part in ("training", "loss 0.", "lr ", "samples/s", "GiB", "eta"):
        assert part in text


def test_a_folder_with_something_else_is_left_alone(capivara: Capivara, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    result = capivara("demo", "photos", "--overwrite")
    assert result.returncode == 1
    assert "photos holds something else than a demo" in result.stderr
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["a.jpg"]


def test_a_language_that_the_world_does_not_have(capivara: Capivara) -> None:
    result = capivara("demo", "there", "--lang", "yo")
    assert result.returncode == 1
    assert "--lang hi, pt or xh" in result.stderr


def test_the_shipped_model_is_small_and_names_no_path() -> None:
    assert sum(path.stat().st_size for path in BASE.iterdir()) < 3_000_000
    config = json.loads((BASE / "open_clip_config.json").read_text())
    assert config["model_cfg"]["text_cfg"]["hf_model_name"] == "capivara-demo"
