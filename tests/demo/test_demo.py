from __future__ import annotations

import itertools
import json
import random
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from capivara_cli.demo import BASE
from capivara_cli.demo.language import TEMPLATES, caption
from capivara_cli.demo.scenes import training_scenes
from tests.conftest import Process
from tests.forks import Forks

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs" / "tools"))
import demo_picture  # type: ignore[import-not-found]  # noqa: E402

Capivara = Callable[..., Process]


@pytest.fixture(scope="module")
def redirected(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder that `capivara demo` makes although it is killed twice, and what it prints into a file."""
    folder = tmp_path_factory.mktemp("demo") / "my demo"
    for begun in ("data/captions.jsonl.partial", "runs/hi-lora/metrics.jsonl"):  # while it captions, while it trains
        process = forks.start(["demo", folder], folder.parent)
        while not (folder / begun).is_file():
            assert process.is_running(), process.wait().stderr
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
        assert process.wait().returncode == -signal.SIGKILL
    result = forks.run(["demo", folder], folder.parent)
    assert result.returncode == 0, result.stderr
    return folder, result.stderr


@pytest.fixture(scope="module")
def folder(redirected: tuple[Path, str]) -> Path:
    return redirected[0]


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def metric(path: Path, name: str = "mean_recall") -> float:
    return 100 * float(json.loads(path.read_text())["metrics"][name])


def test_the_language_is_learnt_and_english_is_not_forgotten(folder: Path) -> None:
    before = {lang: metric(folder / "results" / f"hi.{lang}.baseline.json") for lang in ("hi", "en")}
    after = {lang: metric(folder / "results" / f"hi.{lang}.json") for lang in ("hi", "en")}
    assert before["hi"] < 25
    assert after["hi"] > 85
    assert before["en"] > 85
    assert after["en"] > before["en"] - 3


def test_the_english_captions_are_the_captioners_own(folder: Path) -> None:
    records = read(folder / "data" / "train.jsonl")
    english = [item for record in records for item in record["captions"] if item["lang"] == "en"]
    assert {item["source"] for item in english} == {"models/captioner"}
    assert len(english) > 2.9 * len(records)


def test_the_filter_drops_mostly_wrong_captions(folder: Path) -> None:
    """The right captions are known: the scenes come from the seed."""
    scenes = list(itertools.islice(training_scenes(random.Random(0)), 4000))
    dropped_and_wrong = []
    for name, dropped in (("clean.jsonl", False), ("clean.jsonl.rejected.jsonl", True)):
        for line in read(folder / "data" / name):
            scene = scenes[int(line["id"].removeprefix("train-"))]
            right = {caption(scene, "en", template) for template in range(TEMPLATES)}
            # A line of the rejected ones is a whole record, or a single caption.
            dropped_and_wrong += [(dropped, item["text"] not in right) for item in line.get("captions", [line])]
    assert len(dropped_and_wrong) == 12_000
    caught = sum(dropped and wrong for dropped, wrong in dropped_and_wrong)
    recall = caught / sum(wrong for _, wrong in dropped_and_wrong)
    precision = caught / sum(dropped for dropped, _ in dropped_and_wrong)
    assert recall > 0.5
    assert precision > 5 * sum(wrong for _, wrong in dropped_and_wrong) / len(dropped_and_wrong)


@pytest.mark.parametrize("kind", ["shapes", "colours"])
def test_shapes_and_colours_are_told_apart_afterwards(kind: str, folder: Path) -> None:
    assert metric(folder / "results" / f"hi-{kind}.hi.baseline.json", "acc1") < 75
    assert metric(folder / "results" / f"hi-{kind}.hi.json", "acc1") > 90


def test_another_language_uses_the_existing_captions(folder: Path, capivara: Capivara) -> None:
    before = (folder / "data" / "captions.jsonl").stat().st_mtime_ns
    result = capivara("demo", folder, "--lang", "Xhosa")
    assert result.returncode == 0, result.stderr
    assert (folder / "data" / "captions.jsonl").stat().st_mtime_ns == before
    first = read(folder / "data" / "train.jsonl")[0]
    assert [item["lang"] for item in first["captions"]] == ["en"] * 3 + ["hi"] * 3 + ["xh"] * 3
    assert metric(folder / "results" / "xh.xh.baseline.json") < 25
    assert metric(folder / "results" / "xh.xh.json") > 85
    assert metric(folder / "results" / "xh.en.json") > metric(folder / "results" / "xh.en.baseline.json") - 3


def test_a_printed_line_works_in_the_folder(folder: Path, capivara: Capivara) -> None:
    result = capivara("train", "--lang", "hi", "--lora", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "runs/hi-lora\n"


def test_a_failing_line_fails_the_demo_with_its_own_error(folder: Path, capivara: Capivara) -> None:
    result = capivara("demo", folder, "--device", "cuda:99")
    assert result.returncode == 1
    last_line = result.stderr.split("\n$ ")[-1]
    assert last_line.startswith("capivara retrieve-eval ")  # the first line that computes something new
    assert "\nerror: --device cuda:99: " in last_line


def test_a_file_gets_lines_and_no_progress_bar(redirected: tuple[Path, str]) -> None:
    folder, text = redirected
    assert f"$ cd '{folder}'\n" in text
    assert "\n$ capivara train --lang hi --lora\n" in text
    assert "gain " in text
    assert "━" not in text  # a line of text comes every 30 seconds instead, on a slow machine
    assert "\x1b" not in text


def test_the_picture_in_the_readme_shows_the_commands_of_the_demo() -> None:
    """If it does not: `make demo-picture`."""
    [shown] = re.findall("<desc>(.*)</desc>", (ROOT / "docs" / "demo.svg").read_text(encoding="utf-8"))
    assert demo_picture.fingerprint() == shown


def test_progress_is_shown_in_a_terminal(folder: Path, forks: Forks) -> None:
    line = ["train", "--lang", "hi", "--lora", "--max-steps", "20", "-o", "runs/short"]
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", forks.run_in_terminal(line, folder))
    assert (folder / "runs" / "short" / "run.json").is_file()
    for part in ("training", "loss 0.", "lr ", "samples/s", "GiB", "eta"):
        assert part in text


def test_a_folder_that_is_not_a_demo_is_left_alone(capivara: Capivara, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    result = capivara("demo", "photos", "--overwrite")
    assert result.returncode == 1
    assert "photos exists and is not a demo" in result.stderr
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["a.jpg"]


def test_overwrite_replaces_nothing_but_the_demos_files(folder: Path, capivara: Capivara) -> None:
    before = (folder / "data" / "captions.jsonl").read_bytes()
    (folder / "data" / "thesis.txt").touch()
    try:
        said = capivara("demo", folder, "--overwrite").stderr
    finally:
        (folder / "data" / "thesis.txt").unlink()
    assert "has files that are not those of a demo's data: thesis.txt" in said
    assert "capivara demo FOLDER" in said
    assert (folder / "data" / "captions.jsonl").read_bytes() == before


def test_a_language_that_the_world_does_not_have_is_a_usage_error(capivara: Capivara, tmp_path: Path) -> None:
    result = capivara("demo", "new", "--lang", "yo")
    assert result.returncode == 2
    assert "--lang yo: the demo's world has hi, pt, xh" in result.stderr
    assert not list(tmp_path.iterdir())


def test_the_shipped_model_is_small_and_names_no_path() -> None:
    assert sum(path.stat().st_size for path in BASE.iterdir()) < 3_000_000
    config = json.loads((BASE / "open_clip_config.json").read_text())
    assert config["model_cfg"]["text_cfg"]["hf_model_name"] == "capivara-demo"
