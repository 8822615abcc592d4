from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from capivara_cli import progress as module
from capivara_cli.progress import Estimate, duration, progress

LOOP = """
import time
from capivara_cli.progress import progress
with progress("rate") as bar:
    task = bar.add_task("training", total=4, rate="")
    for step in range(4):
        time.sleep(0.3)
        bar.update(task, advance=1, rate="3 steps/s")
"""


@pytest.mark.parametrize("seconds", [0.01, 1, 100])
@pytest.mark.parametrize("done_before", [0, 300])
def test_the_estimate_is_close_once_a_twentieth_is_done(seconds: float, done_before: int) -> None:
    """The first step takes ten times as long as the others, as that of a GPU does."""
    total, now = done_before + 200, 1000.0
    estimate = Estimate(done_before, now)
    for step in range(200):
        now += seconds * (10 if step == 0 else 1)
        estimate.update(done_before + step + 1, now)
        if step >= 10:
            rest = seconds * (199 - step)
            assert estimate.rest(total, now) == pytest.approx(rest, rel=0.25)
            assert estimate.rest(total, now + seconds / 2) == pytest.approx(max(rest - seconds / 2, 0), rel=0.25)


def test_there_is_an_estimate_after_the_first_update_and_none_before_it() -> None:
    estimate = Estimate(0, 0)
    assert estimate.rest(10, 5) is None
    estimate.update(2, 10)
    assert estimate.rest(10, 10) == 40
    assert estimate.rest(None, 10) is None  # records from a pipe: how many will come is not known
    assert estimate.rest(10, 100) == 0


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (62.4, "1:02"), (3723, "1:02:03")])
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_log_file_gets_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS_PER_LINE", 0)
    with progress("rate") as bar:
        task = bar.add_task("captioning", total=4000, rate="")
        bar.update(task, completed=1200, rate="19 images/s")
    line = capsys.readouterr().err.strip()
    assert line.startswith("captioning 1,200 of 4,000 (30%), 0:00 eta ")
    assert line.endswith(", 19 images/s")


def test_a_short_job_logs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as bar:
        task = bar.add_task("captioning", total=2)
        bar.update(task, advance=1)
        bar.update(task, advance=1)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("into_a_pipe", [False, True])
def test_a_terminal_shows_a_bar_unless_the_output_feeds_a_pipe(into_a_pipe: bool) -> None:
    terminal, screen = pty.openpty()
    output = subprocess.PIPE if into_a_pipe else screen
    with subprocess.Popen([sys.executable, "-c", LOOP], stdout=output, stderr=screen) as process:
        os.close(screen)
        shown = b""
        while True:
            try:
                shown += os.read(terminal, 65536)
            except OSError:
                break
    os.close(terminal)
    assert process.returncode == 0
    assert (b"4/4" in shown and b"eta 0:0" in shown) == (not into_a_pipe)
    assert bool(shown) == (not into_a_pipe)
