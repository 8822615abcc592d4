"""What is around a command: files without permission, and a terminal."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from capivara_cli.demo import TRANSLATOR
from tests.conftest import command
from tests.forks import Forks

DROP_FROM_BOUNDING_SET, DAC_OVERRIDE, DAC_READ_SEARCH = 24, 1, 2  # of Linux' prctl and capabilities


def obey_permissions() -> None:
    """Take from the next program of this process what lets root read and write everything."""
    libc = ctypes.CDLL(None)
    for capability in (DAC_OVERRIDE, DAC_READ_SEARCH):
        libc.prctl(DROP_FROM_BOUNDING_SET, capability, 0, 0, 0)


def put_records(folder: Path, *names: str) -> None:
    for name in names:
        Image.new("RGB", (16, 16), hash(name) % 2**24).save(folder / "image.png")
        (folder / "image.png").rename(folder / f"{name}.png")
    rows = [
        {"id": name, "image": f"{name}.png", "captions": [{"text": "a dog", "lang": "en", "score": 0.3}]}
        for name in names
    ]
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.skipif(sys.platform != "linux", reason="drops capabilities")
@pytest.mark.parametrize(
    ("line", "protected", "mode", "message"),
    [
        (["import", "in.jsonl", "-o", "out.jsonl"], "in.jsonl", 0o000, "in.jsonl: Permission denied"),
        (["import", "in.jsonl", "-o", "out.jsonl"], ".", 0o555, "cannot write"),
        (["export", "csv", "in.jsonl", "-o", "out.csv"], ".", 0o555, "cannot write out.csv: no permission"),
        (["export", "csv", "in.jsonl", "-o", "deep/out.csv"], ".", 0o555, "cannot write deep/out.csv: no permission"),
        (["score", "in.jsonl", "--scored", "-o", "o.jsonl", "--plot", "ro/p.png"], "ro", 0o555, "write ro/p.png"),
        (["import", "photos", "-o", "out.jsonl"], "photos", 0o000, "photos"),
    ],
)
def test_what_may_not_be_read_or_written_is_one_line(
    line: list[str], protected: str, mode: int, message: str, tmp_path: Path
) -> None:
    put_records(tmp_path, "a")
    (tmp_path / "ro").mkdir()
    (tmp_path / "photos").mkdir()
    before = sorted(tmp_path.rglob("*"))
    (tmp_path / protected).chmod(mode)
    result = subprocess.run(
        command(*line),
        cwd=tmp_path,
        preexec_fn=obey_permissions,  # no other thread is busy
        capture_output=True,
        text=True,
        check=False,
    )
    (tmp_path / protected).chmod(0o777)
    assert result.returncode == 1, result.stderr
    assert message in result.stderr
    errors = [row for row in result.stderr.splitlines() if row.startswith("error: ")]
    assert len(errors) == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert sorted(tmp_path.rglob("*")) == before


HOSTILE = [
    "\x1b]0;owned\x07",  # the title of the window
    "\x1b[2J\x1b[31m",  # clear the screen, and write in red
    "a\rerror: everything is lost",
    "a\n\nerror: everything is lost",
    "\x9b31m",  # the one-byte form of an escape sequence
    "\u202eevil",  # right to left
    "[red]markup[/red] :smile:",
]


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_file_name_does_not_control_the_terminal(name: str, forks: Forks, tmp_path: Path) -> None:
    put_records(tmp_path, "good")
    with (tmp_path / "in.jsonl").open("a") as file:
        file.write(json.dumps({"id": name, "image": f"{name}.png", "captions": [{"text": name, "lang": "en"}]}) + "\n")
    text = forks.run_in_terminal(["import", "in.jsonl", "--verify", "-o", "out.jsonl"], tmp_path)
    text += forks.run_in_terminal(["import", f"{name}.jsonl", "-o", "new.jsonl"], tmp_path)
    assert "no such file" in text
    assert "\x1b[1;31merror:" in text  # our own, in bold red: it is a terminal
    for sequence in ("\x1b]0;", "\x1b[2J", "\x1b[31m", "\x07", "\x9b", "\u202e"):
        assert sequence not in text, text
    assert not any(row.startswith("error: everything") for row in text.replace("\r\n", "\n").splitlines()), text


def test_two_processes_on_each_cache_give_what_one_gives(world: Path, base: Path, forks: Forks, tmp_path: Path) -> None:
    """On the indices of shards, the embeddings of images, and the memory of translations."""
    exported = forks.run(["export", "webdataset", world / "test.jsonl", "-o", "shards"], tmp_path)
    assert exported.returncode == 0, exported.stderr
    lines: dict[str, list[str | Path]] = {
        "evaluate": [
            *("retrieve-eval", "--data", tmp_path / "shards" / "00000.tar", "--lang", "en"),
            *("--model", f"local-dir:{base}", "-o"),
        ],
        "translate": ["translate", world / "test.jsonl", "--to", "hi", "--model", TRANSLATOR, "-o"],
    }
    for name, line in lines.items():
        both, alone = ({"CAPIVARA_CACHE": str(tmp_path / f"{name}-{cache}")} for cache in ("both", "alone"))
        pair = [forks.start([*line, f"{name}.{i}"], tmp_path, env=both) for i in range(2)]
        ends = [process.wait() for process in pair]
        ends += [forks.run([*line, f"{name}.2"], tmp_path, env=both)]
        ends += [forks.run([*line, f"{name}.3"], tmp_path, env=alone)]
        for end in ends:
            assert end.returncode == 0, end.stderr
            assert "damaged" not in end.stderr
            assert "removed" not in end.stderr
        contents = {(tmp_path / f"{name}.{i}").read_bytes() for i in range(4)}
        assert len(contents) == 1
        assert not list((tmp_path / f"{name}-both").rglob("*.tmp"))
