"""The loop of `import`, `caption`, `translate` and `score`.

It reads the records, splits them by rank, skips finished ones, batches, processes, and writes the results.
"""

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
    """What a command does with its records. `run` sets `seconds`, `ranks` and `refresh`; a job only reads them.

    Attributes:
        label: what the progress bar says.
        columns: names of the values beside the progress bar; `figures` returns the values.
        seconds: time since the work began.
        ranks: processes that share the work.
        refresh: updates the progress bar now. A job calls it while a batch takes long.
    """

    label: str
    columns: tuple[str, ...] = ("rate",)
    seconds: float = 0.0
    ranks: int = 1
    refresh: Callable[[], None] = staticmethod(lambda: None)

    @abstractmethod
    def process(self, batches: Iterator[list[R]], expected: int | None) -> Iterator[list[RecordResult]]:
        """Turn batches of records into batches of results, in the same order. Yield exactly one result per record.

        Args:
            batches: lists of at most `window` records. Taking the next batch may block until input arrives.
            expected: number of records to come; None if the records come from a pipe.
        """

    def figures(self) -> dict[str, str]:
        """Return the values beside the progress bar, by the names in `columns`."""
        return {}

    def per_second(self, count: int) -> float:
        """Return the rate of something that this rank has counted; the other ranks have done about as much."""
        return count * self.ranks / max(self.seconds, 1e-9)


def read(
    sources: Sequence[str | Path], total: int | None, captions: Counter[str] | None = None
) -> Iterator[records.Record]:
    """Read the records of several sources.

    Standard input, which `validate` cannot read in advance, is checked for repeated ids here, and its captions are
    counted.

    Args:
        total: as `validate` returned it; None for standard input.
        captions: number of captions per language, as `validate` returned it. **Changed in place** while standard input
            is read, otherwise unused.
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
    """Process the records that are not done yet, and write the final output.

    Args:
        stream: all records.
        window: maximum number of records per batch. It must equal the one given to `out.begin`.
        total: number of records, if known.
        live: whether the records come from a pipe.

    Returns:
        the tally on the first rank, None on the others.
    """
    done, todo = out.skip_done(share_by_rank(stream, window, runtime))
    done *= runtime.world_size  # an estimate: assume that the other ranks did as many
    if total is not None:
        done = min(done, total)
    if done:
        console.say(f"resuming after {console.counted(done, 'record')}")
    # From pipe to pipe, process what has arrived instead of waiting for a full batch. From a pipe to a file, batches
    # must be full, because a file is resumed after whole batches; read ahead meanwhile. From files, just cut batches.
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
    """Yield this rank's records: batch i goes to rank i mod ranks. `resumable` merges the ranks' files accordingly."""
    for number, record in enumerate(stream):
        if number // window % runtime.world_size == runtime.rank:
            yield record


def batched(stream: Iterator[R], window: int) -> Iterator[list[R]]:
    """Yield whole batches; the last one may be smaller."""
    while batch := list(itertools.islice(stream, window)):
        yield batch


def prefetch(stream: Iterator[R], window: int) -> Iterator[R]:
    """Read ahead in a thread, so that the process that writes to our standard input does not block while we work."""
    for batch in drain(stream, window):
        yield from batch


def drain(stream: Iterator[R], window: int) -> Iterator[list[R]]:
    """Yield the records that arrived since the last batch, 1 to `window`: output does not wait for a full batch.

    A thread reads the stream.
    """
    # Read at most 4 windows ahead: a fast source must not fill the memory.
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
