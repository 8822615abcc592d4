"""Runs that are stopped, as real processes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.conftest import command

STEPS = 160


def line(world: Path, base: Path) -> list[str]:
    settings = ["optimizer.lr=5e-3", "optimizer.warmup_steps=3", "batch_size=32", "eval_every=40", "save_seconds=0"]
    flags = [part for setting in settings for part in ("--set", setting)]
    data = ["--data", str(world / "train.jsonl"), "--model", f"local-dir:{base}"]
    return command("train", "--lang", "hi", "--lora", *data, "--max-steps", str(STEPS), *flags, "-o", "run")


def start(arguments: list[str], folder: Path) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(arguments, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def steps_done(folder: Path) -> int:
    metrics = folder / "run" / "metrics.jsonl"
    lines = metrics.read_text().splitlines() if metrics.is_file() else []
    return int(json.loads(lines[-1])["step"]) if lines and lines[-1].endswith("}") else 0


def wait_for_step(process: subprocess.Popen[str], folder: Path, step: int) -> None:
    deadline = time.monotonic() + 120
    while steps_done(folder) < step and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


def outcome(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The adapter's weights, and the metrics without those that are times."""
    weights = load_file(folder / "run" / "adapter" / "adapter_model.safetensors")
    lines = [json.loads(text) for text in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    for each in lines:
        each.pop("samples_per_second", None)
        each.pop("memory_gib", None)
    return weights, lines


@pytest.fixture(scope="module")
def undisturbed(world: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    subprocess.run(line(world, base), cwd=folder, check=True, capture_output=True)
    return folder


def assert_same(folder: Path, undisturbed: Path) -> None:
    ours, theirs = outcome(folder), outcome(undisturbed)
    assert ours[1] == theirs[1]
    assert all(tensor.equal(theirs[0][name]) for name, tensor in ours[0].items())
    assert (folder / "run" / "run.json").is_file()
    assert not (folder / "run" / "state.safetensors").exists()
    assert not [path for path in (folder / "run").rglob("*") if path.name.endswith((".tmp", ".old"))]


def test_a_run_that_is_killed_again_and_again_ends_like_an_undisturbed_one(
    world: Path, base: Path, undisturbed: Path, tmp_path: Path
) -> None:
    rng = random.Random(0)
    for goal in (10, 60, 110):
        process = start(line(world, base), tmp_path)
        wait_for_step(process, tmp_path, goal)
        time.sleep(rng.random() * 0.3)
        process.send_signal(signal.SIGKILL)
        _, said = process.communicate()
        assert process.returncode == -signal.SIGKILL, said
    process = start(line(world, base), tmp_path)
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert "going on from step" in said
    assert_same(tmp_path, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_says_so_and_goes_on(
    number: int, world: Path, base: Path, undisturbed: Path, tmp_path: Path
) -> None:
    process = start(line(world, base), tmp_path)
    wait_for_step(process, tmp_path, 20)
    process.send_signal(number)
    _, said = process.communicate()
    assert process.returncode == 130, said
    assert "error: stopped at step" in said
    assert "Traceback" not in said
    subprocess.run(line(world, base), cwd=tmp_path, check=True, capture_output=True)
    assert_same(tmp_path, undisturbed)


def test_a_stopped_run_does_not_go_on_with_other_data(world: Path, base: Path, tmp_path: Path) -> None:
    lines = (world / "train.jsonl").read_text().splitlines()
    data = tmp_path / "train.jsonl"
    os.symlink(world / "images", tmp_path / "images")
    data.write_text("\n".join(lines))
    arguments = [str(data) if part == str(world / "train.jsonl") else part for part in line(world, base)]
    process = start(arguments, tmp_path)
    wait_for_step(process, tmp_path, 10)
    process.send_signal(signal.SIGINT)
    process.communicate()
    data.write_text("\n".join(lines[:-50]))
    result = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "begun on other data" in result.stderr
