"""Ctrl-C, SIGTERM and closed pipes, to processes as they are started by a shell, and in a terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Process, command

# The functions stand in for work in places where Python cannot be interrupted, and for workers that do not end.
STUCK = """
import multiprocessing, sys, threading, time
from capivara_cli import commands, interrupts

def work():
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    child.start()
    print(child.pid, flush=True)
    WORK

commands.app.command("work")(work)
sys.argv = ["capivara", "work"]
commands.main()
"""
WORK = {
    "python": "while True: time.sleep(0.01)",
    "a library that holds the main thread": "import sqlite3; sqlite3.connect(':memory:').execute("
    "'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n').fetchall()",
    "an exception handler that swallows everything": "\n".join(
        ["", "    while True:", "        try: time.sleep(600)", "        except BaseException: pass"]
    ),
    "a wait for a thread": "thread = threading.Thread(target=time.sleep, args=(600,)); thread.start(); thread.join()",
}


def is_running(process: int) -> bool:
    """Whether it runs; a zombie, whose parent has not asked for its exit code, does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("what", WORK)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_command_and_its_workers_with_one_line(number: int, code: int, what: str) -> None:
    script = STUCK.replace("WORK", WORK[what])
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        process.send_signal(number)
        _, messages = process.communicate(timeout=60)
    assert process.returncode == code
    assert messages.startswith("interrupted: ")
    assert messages.count("\n") == 1
    assert not is_running(worker)


def interrupt(line: list[str], number: int, folder: Path, when: Callable[[], bool]) -> tuple[int, str]:
    """Send a signal as soon as something is so; return the exit code and the messages."""
    with subprocess.Popen(line, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 100
        while not when() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        _, messages = process.communicate(timeout=60)
    return process.returncode, messages


def test_a_data_command_says_what_is_kept_and_the_same_line_resumes_it(
    world: Path, base: Path, capivara: Callable[..., Process], tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in (world / "train.jsonl").read_text().splitlines()]
    source = tmp_path / "in.jsonl"
    with source.open("w") as file:
        for row in rows * 5:
            row = {**row, "id": f"{file.tell()}", "image": str(world / row["image"])}
            file.write(json.dumps(row) + "\n")
    line = ["score", str(source), "--lang", "en", "--model", f"local-dir:{base}", "-o", "out.jsonl", "--workers", "0"]
    partial = tmp_path / "out.jsonl.partial"
    code, messages = interrupt(
        command(*line), signal.SIGTERM, tmp_path, lambda: partial.is_file() and partial.stat().st_size > 0
    )
    assert code == 143, messages
    assert messages.splitlines()[-1] == (
        "interrupted: what is done is kept in out.jsonl.partial: run the same command again to resume"
    )
    result = capivara(*line)
    assert result.returncode == 0, result.stderr
    assert "resuming after " in result.stderr
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == len(rows) * 5


def test_the_bar_is_cleared_in_a_terminal_and_the_cursor_is_back() -> None:
    script = STUCK.replace(
        "WORK",
        """
    from capivara_cli.progress import progress
    with progress() as bar:
        task = bar.add_task("working", total=10)
        bar.update(task, advance=3)
        bar.refresh()
        time.sleep(600)
""",
    )
    controller, terminal = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", script], stdout=terminal, stderr=terminal, stdin=terminal) as process:
        os.close(terminal)
        seen = b""
        while b"3/10" not in seen:
            assert select.select([controller], [], [], 60)[0], seen
            seen += os.read(controller, 4096)
        process.send_signal(signal.SIGINT)
        try:
            while chunk := os.read(controller, 4096):
                seen += chunk
        except OSError:  # Linux: the other end is closed
            pass
        assert process.wait(60) == 130
    os.close(controller)
    screen, _, rest = seen.rpartition(b"3/10")
    assert b"\x1b[2K" in rest  # the line with the bar is erased
    assert b"\x1b[?25l" in screen
    assert b"\x1b[?25h" in rest
    assert rest.rstrip().endswith(b"run the same command again")


@pytest.mark.parametrize(
    "line", [["help"], ["translate", "--languages"], ["import", "--formats"], ["train", "--help"], ["export", "csv"]]
)
def test_a_closed_pipe_is_silent(line: list[str], tmp_path: Path) -> None:
    if line[0] == "export":
        rows = [{"id": str(i), "image": "a.png", "captions": [{"text": "a dog", "lang": "en"}]} for i in range(5000)]
        (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        line = [*line, "in.jsonl", "-o", "-"]
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(
        command(*line), cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, timeout=100
    )
    os.close(writer)
    assert (result.returncode, result.stderr) == (141, "")
