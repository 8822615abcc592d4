"""Fixtures of all tests: a small world, the demo's base model and a run on them, and ways to run `capivara`."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from capivara_cli.commands import main

from capivara_cli.demo import BASE
from capivara_cli.demo.world import write_classes, write_world
from capivara_cli.models import checkpoint
from capivara_cli.models.clip import Clip
from capivara_cli.models.spec import ModelSpec
from capivara_cli.runtime import Runtime
from capivara_cli.training.options import train_options
from capivara_cli.training.train import train
from tests.forks import Forks

if TYPE_CHECKING:
    from torch import Tensor

# Two workers share two cores: with two threads each, they would wait for each other and take three times as long.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

# A shell starts background jobs with Ctrl-C ignored, and the commands that tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

Process = subprocess.CompletedProcess[str]
Refused = Callable[..., str]

# A training run of a few seconds: settings for `train_options`, and the same as flags.
SETTINGS = ["optimizer.lr=5e-3", "optimizer.warmup_steps=3", "batch_size=64", "max_steps=20", "eval_every=10"]
FLAGS = [part for setting in SETTINGS for part in ("--set", setting)]

# The files that take longest run first, so that both workers finish at about the same time.
LONGEST = ["demo", "resume", "distributed", "caption", "interrupted", "golden", "import_data", "google"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the test files; the tests of a file stay together because they share fixtures."""
    ranks = {f"test_{name}.py": rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(ranks)))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAPIVARA_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("HF_HUB_OFFLINE", "1")  # no test may depend on a hub, not even by waiting for it
        yield


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 training and 60 test scenes."""
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, train=400, test=60)
    return folder


@pytest.fixture(scope="session")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of one thing: shapes and colours to classify."""
    folder = tmp_path_factory.mktemp("things")
    (folder / "images").mkdir()
    write_classes(folder, per_scene=2)
    return folder


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's base model, as `capivara demo` puts it into a folder."""
    folder = tmp_path_factory.mktemp("models") / "base"
    shutil.copytree(BASE, folder)
    return folder


@pytest.fixture
def clip(base: Path) -> Clip:
    """The base model, loaded again for each test."""
    return checkpoint.load(ModelSpec(f"local-dir:{base}"), Runtime.start("cpu", "fp32"))


@pytest.fixture(scope="session")
def run(world: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short LoRA run in Hindi that replays English."""
    data, model = [str(world / "train.jsonl")], f"local-dir:{base}"
    options = train_options("lora", lang=["hi"], data=data, model=model, set=SETTINGS)
    return train(options, tmp_path_factory.mktemp("runs") / "hi-lora")


def command(*arguments: str | Path | int) -> list[str]:
    """Return the command line that runs `capivara` in a new process."""
    return [sys.executable, "-m", "capivara_cli", *map(str, arguments)]


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    server = Forks(tmp_path_factory.mktemp("forks"))
    yield server
    server.close()


@pytest.fixture
def capivara(tmp_path: Path, forks: Forks) -> Callable[..., Process]:
    """Run `capivara` in an empty folder; return exit code, standard output and standard error."""

    def call(*arguments: str | Path | int, cwd: Path = tmp_path, **how: Any) -> Process:
        return forks.run(arguments, cwd, **how)

    return call


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command line that must fail with one error and at most one hint, and write no file; return its messages."""

    def call(*arguments: str) -> str:
        before = sorted(tmp_path.rglob("*"))
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["capivara", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        messages = capsys.readouterr().err
        assert ended.value.code in (1, 2), messages  # 2: a usage error
        lines = [line for line in messages.splitlines() if not line.startswith(("reading ", "note: "))]
        assert lines[0].startswith("error: ")
        assert len(lines) <= 2
        assert sorted(tmp_path.rglob("*")) == before
        return messages

    return call


PEAK = """
def peak():
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))) / 1024

open("/proc/self/clear_refs", "w").write("5")  # the peak is what is in use now
before = peak()
CODE
print(peak() - before)
"""


def peak_memory(forks: Forks, code: str, *arguments: str | Path) -> float:
    """Run Python code in a fork, and return how much its memory grew at most, in MB. Linux only, from /proc."""
    result = forks.run(arguments, Path.cwd(), code=PEAK.replace("CODE", code))
    assert result.returncode == 0, result.stderr
    return float(result.stdout.split()[-1])


def distance(one: dict[str, Tensor], other: dict[str, Tensor], start: dict[str, Tensor]) -> float:
    """Return the distance between two trained models, as a share of their distance from the start.

    Elements cannot be compared: Adam's first steps move each by the sign of its gradient, and the sign of a gradient
    near zero depends on rounding.
    """
    assert one.keys() == other.keys() == start.keys()
    between = sum(float((one[name] - other[name]).float().norm() ** 2) for name in start)
    travelled = sum(float((one[name] - start[name]).float().norm() ** 2) for name in start)
    return float((between / travelled) ** 0.5)
