"""Runs that are stopped, as processes of their own."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from capivara_cli.models import checkpoint
from tests.forks import Fork, Forks

BATCH = 32
SETTINGS = ["optimizer.lr=5e-3", "optimizer.warmup_steps=3", f"batch_size={BATCH}", "eval_every=40", "save_seconds=0"]
FLAGS = [part for setting in SETTINGS for part in ("--set", setting)]


class Run:
    """A run in `folder/run`, started by the same command line each time."""

    def __init__(self, forks: Forks, folder: Path, data: Path, base: Path, method: str = "--lora") -> None:
        flags = ["--data", str(data), "--model", f"local-dir:{base}", "--max-steps", "160", *FLAGS]
        self.line = ["train", "--lang", "hi", method, *flags, "-o", "run"]
        self.forks, self.folder = forks, folder

    def start(self, *flags: str) -> Fork:
        """Start it, with more flags."""
        return self.forks.start([*self.line, *flags], self.folder)

    def stop(self, step: int, number: int, steps: float = 0) -> tuple[int, str]:
        """Start it and send a signal `steps` after a step is logged. Return the exit code and standard error."""
        process = self.start()
        self.wait_for_step(step, process)
        if steps:  # a fixed time would be the whole run on a fast machine
            *_, rate = (line["samples_per_second"] for line in self._metrics() if "samples_per_second" in line)
            time.sleep(steps * BATCH / rate)
        process.send_signal(number)
        ended = process.wait()
        return ended.returncode, ended.stderr

    def wait_for_step(self, step: int, process: Fork) -> None:
        """Wait until a step is logged."""
        deadline = time.monotonic() + 120
        while self._last_step() < step and process.is_running() and time.monotonic() < deadline:
            time.sleep(0.001)

    def refusal(self, *flags: str) -> str:
        """Run it with more flags, and return the one line that it is refused with."""
        result = self.start(*flags).wait()
        assert result.returncode == 1, result.stderr
        assert result.stderr.count("error: ") == 1
        return result.stderr

    def finish(self) -> str:
        """Run it to its end, and return standard error."""
        result = self.start().wait()
        assert result.returncode == 0, result.stderr
        return result.stderr

    def outcome(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return the adapter's weights, and the metrics without those that are times."""
        run = self.folder / "run"
        assert (run / "run.json").is_file()
        assert not (run / "state.safetensors").exists()
        assert not [path for path in run.rglob("*") if path.name.endswith((".tmp", ".old"))]
        metrics = [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]
        for line in metrics:
            line.pop("samples_per_second", None)
            line.pop("memory_gib", None)
        return load_file(run / "adapter" / "adapter_model.safetensors"), metrics

    def _last_step(self) -> int:
        return max((int(line["step"]) for line in self._metrics()), default=0)

    def _metrics(self) -> list[dict[str, Any]]:
        """Return the lines that are complete."""
        path = self.folder / "run" / "metrics.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]


@pytest.fixture(scope="module")
def undisturbed(forks: Forks, world: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(forks, tmp_path_factory.mktemp("undisturbed"), world / "train.jsonl", base)
    run.finish()
    return run


@pytest.fixture
def run_here(forks: Forks, world: Path, base: Path, tmp_path: Path) -> Run:
    return Run(forks, tmp_path, world / "train.jsonl", base)


def assert_same(run: Run, undisturbed: Run) -> None:
    (weights, metrics), (expected_weights, expected_metrics) = run.outcome(), undisturbed.outcome()
    assert metrics == expected_metrics
    assert all(tensor.equal(expected_weights[name]) for name, tensor in weights.items())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_full_run_is_merged_as_it_stands(
    number: int, forks: Forks, world: Path, base: Path, tmp_path: Path
) -> None:
    """Before its first validation, when its only weights are those of the state."""
    run = Run(forks, tmp_path, world / "train.jsonl", base, "--full")
    run.line += ["--set", "eval_every=1000"]
    run.stop(20, number, steps=2)
    assert not (tmp_path / "run" / "model").exists()
    state = load_file(tmp_path / "run" / "state.safetensors")
    (tmp_path / "elsewhere").mkdir()
    merged = forks.run(["merge-lora", "../run", "-o", "merged"], tmp_path / "elsewhere")
    assert merged.returncode == 0, merged.stderr
    assert re.search(r"run is not complete: it stands at step \d+ of 160, and its weights of that step", merged.stderr)
    weights = load_file(tmp_path / "elsewhere" / "merged" / checkpoint.WEIGHTS)
    base_weights = load_file(base / checkpoint.WEIGHTS)
    trained = {name.removeprefix("weight/") for name in state if name.startswith("weight/")}
    assert trained
    for name, tensor in weights.items():
        assert tensor.equal(state[f"weight/{name}"] if name in trained else base_weights[name].to(tensor.dtype)), name


def test_an_interrupted_lora_run_without_weights_says_so(run_here: Run, forks: Forks, tmp_path: Path) -> None:
    run_here.line += ["--set", "eval_every=1000"]
    run_here.stop(20, signal.SIGKILL, steps=2)
    refused = forks.run(["merge-lora", "run", "-o", "merged"], tmp_path)
    assert refused.returncode == 1
    said = r"^error: run has no weights to merge: it stands at step \d+ of 160, and no validation yet$"
    assert re.search(said, refused.stderr, re.MULTILINE)


def test_a_run_that_is_killed_again_and_again_ends_like_an_undisturbed_one(run_here: Run, undisturbed: Run) -> None:
    rng = random.Random(0)
    for step in (10, 60, 110):
        code, said = run_here.stop(step, signal.SIGKILL, steps=rng.random() * 20)
        assert code == -signal.SIGKILL, said
    assert "resuming from step" in run_here.finish()
    assert_same(run_here, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_says_so_and_resumes(number: int, run_here: Run, undisturbed: Run) -> None:
    code, said = run_here.stop(20, number)
    assert code == 128 + number, said
    assert "stopping after this step" in said
    assert "error: stopped at step" in said
    assert "hint: run the same command again to resume" in said
    assert "Traceback" not in said
    run_here.finish()
    assert_same(run_here, undisturbed)


def test_a_second_signal_ends_a_run_at_once_and_the_last_saved_state_stands(run_here: Run, undisturbed: Run) -> None:
    process = run_here.start()
    run_here.wait_for_step(20, process)
    process.send_signal(signal.SIGSTOP)  # so that it gets both signals within a step
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    ended = process.wait()
    said = ended.stderr
    assert ended.returncode == 128 + signal.SIGTERM, said
    assert "stopping after this step; press Ctrl-C again to stop at once" in said
    assert "interrupted: the last saved state stands: run the same command again to resume" in said
    assert "Traceback" not in said
    assert "resuming from step" in run_here.finish()
    assert_same(run_here, undisturbed)


def test_a_run_that_is_interrupted_before_its_first_step_ends_with_one_line(
    run_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPIVARA_CACHE", str(tmp_path / "cache"))  # so that images are to be encoded
    process = run_here.start()
    while not (tmp_path / "run" / ".capivara.json").is_file():
        assert process.is_running()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    ended = process.wait()
    said = ended.stderr
    assert ended.returncode == 128 + signal.SIGINT, said
    assert said.count("interrupted: ") == 1
    assert "Traceback" not in said
    run_here.finish()


def test_a_stopped_run_is_not_resumed_on_other_data_or_from_other_weights(
    forks: Forks, world: Path, base: Path, tmp_path: Path
) -> None:
    lines = (world / "train.jsonl").read_text().splitlines()
    data = tmp_path / "train.jsonl"
    images = shutil.copytree(world / "images", tmp_path / "images")
    data.write_text("\n".join(lines))
    model = Path(shutil.copytree(base, tmp_path / "model"))
    run = Run(forks, tmp_path, data, model)
    run.stop(10, signal.SIGINT)
    data.write_text("\n".join(lines[:-50]))
    assert "was started on other data" in run.refusal()
    data.write_text("\n".join(lines))
    first, second = sorted(images.glob("train-*"))[:2]
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    assert "was started on other data" in run.refusal()
    first.write_bytes(kept)
    data.write_text("\n".join(lines))
    weights = load_file(model / checkpoint.WEIGHTS)
    save_file(weights | {"logit_scale": weights["logit_scale"] + 1}, model / checkpoint.WEIGHTS)
    assert "was started from other weights" in run.refusal()


def test_a_folder_that_is_trained_in_is_refused(run_here: Run) -> None:
    process = run_here.start()
    run_here.wait_for_step(10, process)
    process.send_signal(signal.SIGSTOP)  # else it would be complete when the others have started
    for flags in ([], ["--overwrite"]):
        assert "run is being written by another process" in run_here.refusal(*flags)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run_here.finish()  # at once: the lock died with its process
