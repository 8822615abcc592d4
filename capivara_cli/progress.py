"""How far a long job is: a bar in a terminal, and a line about every 30 seconds in a log file."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from capivara_cli import console

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress, Task, TaskID

SECONDS_PER_LINE = 30
WIDE = 110  # columns; in 80, the figures matter more than the bar


class Estimate:
    """When a job will end, from the times of its updates.

    rich's own estimate forgets what is older than 30 seconds: it has none for a job with a step a minute.

    Attributes:
        started: time, in seconds, and items that were done when the job began, such as those of an interrupted run.
        first: the same after the first update. The first step often takes longer than the others: it is not counted
            once there is a second one.
        last: the same after the last update.
    """

    def __init__(self, completed: float, now: float) -> None:
        self.started = self.last = (now, completed)
        self.first: tuple[float, float] | None = None

    def update(self, completed: float, now: float) -> None:
        """Note how many items are done now."""
        if completed > self.last[1]:
            self.last = (now, completed)
            self.first = self.first or self.last

    def rest(self, total: float | None, now: float) -> float | None:
        """Return the seconds to the end; None if that cannot be known yet."""
        since, before = self.started if self.first in (None, self.last) else self.first or self.started
        until, completed = self.last
        if total is None or completed <= before or until <= since:
            return None
        return max((total - completed) * (until - since) / (completed - before) - (now - until), 0)


@contextmanager
def progress(*columns: str) -> Iterator[Progress]:
    """Show how far a job is: count, elapsed time, expected time to the end, and these fields of the task.

    A field `note` of a task is shown on its own line below the bar. Where standard error is not a terminal, or standard
    output is a pipe to the next command, a line is printed every 30 seconds instead, or per update if those are slower.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn
    from rich.text import Text

    screen = console.console()
    draws = screen.is_terminal and not _feeds_a_pipe()

    class Times(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(bar.times(task), style="progress.elapsed")

    class Shown(Progress):
        printed = time.monotonic()
        estimates: dict[TaskID, Estimate] = {}  # noqa: RUF012  # the class is made anew for each bar

        def get_renderables(self) -> Iterator[RenderableType]:
            yield self.make_tasks_table(self.tasks)
            for task in self.tasks:
                if note := task.fields.get("note"):
                    yield Text(f"  {console.clean(note)}", style="dim", overflow="ellipsis", no_wrap=True)

        def update(self, task_id: TaskID, **values: Any) -> None:
            task, now = self.tasks[task_id], time.monotonic()
            estimate = self.estimates.setdefault(task_id, Estimate(task.completed, now - (task.elapsed or 0)))
            super().update(task_id, **values)
            estimate.update(task.completed, now)
            if not draws and now - self.printed >= SECONDS_PER_LINE:
                self.printed = now
                console.say(self.line(task))

        def times(self, task: Task) -> str:
            """Return elapsed time and, once it is known, the time to the end: `1:02 eta 2:25`."""
            estimate = self.estimates.get(task.id)
            rest = estimate.rest(task.total, time.monotonic()) if estimate else None
            if task.finished or rest is None:
                return duration(task.finished_time or task.elapsed or 0)
            return f"{duration(task.elapsed or 0)} eta {duration(rest)}"

        def line(self, task: Task) -> str:
            """Return how far a task is: `captioning 1,200 of 4,000 (30%), 1:02 eta 2:25, 19 images/s`."""
            total = "" if task.total is None else f" of {task.total:,.0f} ({task.percentage:.0f}%)"
            figures = [str(task.fields[column]) for column in columns if task.fields[column]]
            return f"{task.description} {', '.join([f'{task.completed:,.0f}{total}', self.times(task), *figures])}"

    bar = Shown(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24 if screen.width >= WIDE else 4),
        MofNCompleteColumn(),
        Times(),
        *(TextColumn(f"{{task.fields[{column}]}}", style="cyan", markup=False) for column in columns),
        console=screen,
        disable=not draws,
        refresh_per_second=4,
        redirect_stdout=sys.stdout.isatty(),  # rich would print what is meant for a pipe to the screen
    )
    with console.live(screen), bar if draws else nullcontext():  # a disabled bar prints an empty line at its end
        try:
            yield bar
        except KeyboardInterrupt:
            bar.live.transient = True  # clear it
            raise


def duration(seconds: float) -> str:
    """`62` -> `1:02`, `3723` -> `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _feeds_a_pipe() -> bool:
    """Whether standard output goes to another command, which has a bar of its own."""
    try:
        return stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode)
    except (OSError, ValueError):  # not a file: a notebook's, or a test's
        return False
