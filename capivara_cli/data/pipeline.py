"""The loop of every command that turns records into records: read, split by rank, skip, batch, work, write."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic

from capivara_cli import console
from capivara_cli.data import records
from capivara_cli.data.output import Output, R, RecordResult, Tally
from capivara_cli.progress import progress
from capivara_cli.runtime import Runtime


class Job(ABC, Generic[R]):
    """What a command does with its records.

    Attributes:
        label: what the progress bar says.
        columns: names of the figures beside the bar; `figures` gives them.
        seconds: time since the work began.
        ranks: processes that share the work.
        refresh: shows the figures now; for jobs that work on one batch for long.
    """

    label: str
    columns: tuple[str, ...] = ("rate",)
    seconds: float = 0.0
    ranks: int = 1
    refresh: Callable[[], None] = staticmethod(lambda: None)

    @abstractmethod
    def process(self, batches: Iterator[list[R]], expected: int | None) -> Iterator[list[RecordResult]]:
        """Turn batches of records into batches of results, in the same order.

        Args:
            batches: of up to a window of records each; reading the next one may wait for the input.
            expected: records to come, if known.
        """

    def figures(self) -> dict[str, str]:
        """Return the figures beside the bar."""
        return {}

    def per_second(self, count: int) -> float:
        """Return the rate of something that this rank has counted; the other ranks have done about as much."""
        return count * self.ranks / max(self.seconds, 1e-9)


def read(
    sources: Sequence[str | Path], total: int | None, captions: Counter[str] | None = None
) -> Iterator[records.Record]:
    """Read records of several sources; what `validate` could not do with standard input is done now.

    Args:
        total, captions: what `validate` returned. If it is None, ids are checked and captions are counted here.
    """
    if total is not None:
        yield from itertools.chain.from_iterable(map(records.read, sources))
        return
    for record in records.stream(sources):
        if captions is not None:
            captions.update(caption["lang"] for caption in record.captions)
        yield record


def run(
    job: Job[R], stream: Iterator[R], out: Output, runtime: Runtime, *, window: int, total: int | None, live: bool
) -> Tally | None:
    """Run a job over the records that are not done yet, and put the result in its place.

    Args:
        stream: all records.
        window: records per batch; `out.begin` got the same.
        total: number of records, if known.
        live: whether the records come from a pipe.

    Returns:
        the tally on the first rank, None on the others.
    """
    done, todo = out.skip_done(share_by_rank(stream, window, runtime))
    done *= runtime.world_size  # the other ranks were about as far
    if total is not None:
        done = min(done, total)
    if done:
        console.say(f"resuming after {done:,} records")
    if live and out.streams:
        batches = drain(todo, window)
    elif live:
        batches = batched(prefetch(todo, window), window)
    else:
        batches = batched(todo, window)
    started, rejected = time.monotonic(), 0
    with progress(*job.columns, "rejected") as bar:
        texts: dict[str, Any] = dict.fromkeys([*job.columns, "rejected"], "")
        task = bar.add_task(job.label, total=total, completed=done, **texts)

        def refresh(advance: int = 0) -> None:
            job.seconds = time.monotonic() - started
            texts["rejected"] = f"{rejected:,} rejected" if rejected else ""
            texts.update(job.figures())
            bar.update(task, advance=advance, **texts)

        job.refresh, job.ranks = refresh, runtime.world_size
        for results in job.process(batches, None if total is None else total - done):
            out.write(results)
            rejected += sum(result.reason is not None for result in results)
            refresh(len(results) * runtime.world_size)  # the other ranks are about as far
    return out.finish()


def share_by_rank(stream: Iterable[R], window: int, runtime: Runtime) -> Iterator[R]:
    """Yield this rank's records: whole batches in turn, as the first rank will put them together again."""
    for number, record in enumerate(stream):
        if number // window % runtime.world_size == runtime.rank:
            yield record


def batched(stream: Iterator[R], window: int) -> Iterator[list[R]]:
    """Yield whole batches; the last one may be smaller."""
    while batch := list(itertools.islice(stream, window)):
        yield batch


def prefetch(stream: Iterator[R], window: int) -> Iterator[R]:
    """Read ahead in a thread, so that the process that writes into our pipe need not wait while we work."""
    for batch in drain(stream, window):
        yield from batch


def drain(stream: Iterator[R], window: int) -> Iterator[list[R]]:
    """Yield what has come in since the last batch, 1 to `window` records; so a pipe keeps flowing."""
    ready: queue.Queue[R | BaseException | None] = queue.Queue(4 * window)

    def fill() -> None:
        try:
            for record in stream:
                ready.put(record)
            ready.put(None)
        except BaseException as error:
            ready.put(error)

    threading.Thread(target=fill, daemon=True).start()
    ended = False
    while not ended:
        batch: list[R] = []
        while not ended and len(batch) < window and (not batch or not ready.empty()):
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                ended = True
            else:
                batch.append(item)
        if batch:
            yield batch
