"""Files that a command would write where another file is, devices, and left-overs of killed commands, as typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests import kills
from tests.conftest import Process
from tests.forks import Forks

Capivara = Callable[..., Process]

PRECIOUS = b"%PDF-1.4 my thesis"


@pytest.fixture
def evaluations(world: Path, things: Path, base: Path) -> dict[str, list[str]]:
    model = ["--model", f"local-dir:{base}"]
    classes = ["--classes", str(things / "shapes.yaml")]
    return {
        "retrieve-eval": ["--data", str(world / "test.jsonl"), "--lang", "en", *model],
        "classify-eval": ["--data", str(things / "shapes.jsonl"), "--lang", "en", *classes, *model],
    }


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("retrieve-eval", ["-o", "--ranks"]),
        ("classify-eval", ["-o", "--predictions", "--per-class"]),
    ],
)
def test_a_result_is_replaced_only_with_overwrite_and_another_file_never(
    command: str, flags: list[str], evaluations: dict[str, list[str]], capivara: Capivara, tmp_path: Path
) -> None:
    names = {flag: f"out{i}.json" for i, flag in enumerate(flags)}
    line = [command, *evaluations[command], *(part for pair in names.items() for part in pair)]
    assert capivara(*line).returncode == 0
    results = {name: (tmp_path / name).read_bytes() for name in names.values()}
    again = capivara(*line)
    assert again.returncode == 1
    assert "already exists" in again.stderr
    assert "hint: --overwrite replaces it" in again.stderr
    assert capivara(*line, "--overwrite").returncode == 0
    assert {name: (tmp_path / name).read_bytes() for name in names.values()} == results
    for flag, name in names.items():
        (tmp_path / name).write_bytes(PRECIOUS)
        refused = capivara(*line, "--overwrite")
        assert refused.returncode == 1
        assert f"{name} is not replaced" in refused.stderr, flag
        assert (tmp_path / name).read_bytes() == PRECIOUS
        (tmp_path / name).write_bytes(results[name])


@pytest.mark.parametrize(
    ("line", "output"),
    [
        (["import", "in.jsonl", "--overwrite", "-o"], "out.jsonl"),
        (["translate", "in.jsonl", "--to", "hi", "--overwrite", "-o"], "out.jsonl"),
        (["score", "in.jsonl", "--scored", "--lang", "en", "--overwrite", "-o"], "out.jsonl"),
        (["score", "in.jsonl", "--scored", "--lang", "en", "--overwrite", "-o", "new.jsonl", "--plot"], "out.png"),
        (["export", "csv", "in.jsonl", "--overwrite", "-o"], "out.csv"),
        (["export", "captions.txt", "in.jsonl", "--lang", "en", "--overwrite", "-o"], "out.txt"),
        (["translate", "classes.json", "--to", "hi", "--overwrite", "-o"], "out.json"),
    ],
)
def test_no_command_replaces_what_it_does_not_write(
    line: list[str], output: str, capivara: Capivara, tmp_path: Path
) -> None:
    captions = [{"text": "a dog", "lang": "en", "score": 0.3}]
    (tmp_path / "in.jsonl").write_text(json.dumps({"id": "a", "image": "a.png", "captions": captions}) + "\n")
    (tmp_path / "classes.json").write_text('{"set": ["dog"]}')
    (tmp_path / output).write_bytes(PRECIOUS)
    before = sorted(tmp_path.iterdir())
    result = capivara(*line, output)
    assert (result.returncode, result.stdout) == (1, "")
    assert f"error: {output} is not replaced, because it is not " in result.stderr
    assert (tmp_path / output).read_bytes() == PRECIOUS
    assert sorted(tmp_path.iterdir()) == before


def test_a_device_is_written_to_and_never_beside(
    evaluations: dict[str, list[str]], capivara: Capivara, tmp_path: Path
) -> None:
    line = ["retrieve-eval", *evaluations["retrieve-eval"], "--lang", "hi"]
    result = capivara(*line, "-o", "/dev/stdout", "--ranks", "/dev/null")
    assert result.returncode == 0, result.stderr
    assert [json.loads(row)["language"] for row in result.stdout.splitlines()] == ["en", "hi"]
    assert capivara(*line, "-o", "/dev/null").returncode == 0
    assert not list(Path("/dev").glob("null?*"))
    assert not list(tmp_path.iterdir())


def put_record(folder: Path) -> None:
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    (folder / "in.jsonl").write_text('{"id": "a", "image": "a.png", "captions": [{"text": "a dog", "lang": "en"}]}\n')


@pytest.mark.parametrize("line", [["import", "in.jsonl"], ["export", "csv", "in.jsonl"]])
def test_a_named_pipe_gets_what_a_file_would(line: list[str], capivara: Capivara, tmp_path: Path) -> None:
    put_record(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    piped = capivara(*line, "-o", "pipe")
    reader.join(timeout=60)
    assert piped.returncode == 0, piped.stderr
    assert capivara(*line, "-o", "file.csv" if "csv" in line else "file.jsonl").returncode == 0
    (file,) = tmp_path.glob("file.*")
    assert received == [file.read_bytes()]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["a.png", "in.jsonl", "pipe", file.name])


def test_standard_output_that_the_shell_appends_to_a_file_is_not_emptied(capivara: Capivara, tmp_path: Path) -> None:
    put_record(tmp_path)
    log = tmp_path / "log"
    log.write_text("precious\n")
    for line in (["import", "in.jsonl"], ["export", "csv", "in.jsonl"]):
        shell = f"{sys.executable} -m capivara_cli {' '.join(line)} -o /dev/stdout >> log"
        subprocess.run(shell, shell=True, cwd=tmp_path, check=True, capture_output=True)
    assert log.read_text().startswith("precious\n{")
    assert "filepath,title" in log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["retrieve-eval", "classify-eval"])
def test_an_evaluation_killed_at_random_moments_leaves_a_whole_result_or_the_old_one(
    command: str, evaluations: dict[str, list[str]], forks: Forks, tmp_path: Path
) -> None:
    setup = """
from capivara_cli.commands import main
def run(output, overwrite=True):  # it always overwrites
    sys.argv = ["capivara", *sys.argv[2:], "--overwrite", "-o", str(output)]
    main()
"""
    kills.survive(forks, setup, tmp_path / "killed", command, *evaluations[command], kills=8)
