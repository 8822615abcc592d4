"""The loop of the commands that turn records into records."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from capivara_cli.data import pipeline
from capivara_cli.data.output import RecordResult, Tally
from capivara_cli.data.records import Record
from capivara_cli.data.resumable import open_output
from capivara_cli.errors import CapivaraError
from capivara_cli.runtime import Runtime
from tests.data.resumable_runs import ONE, both, records, work
from tests.data.resumable_runs import run as undisturbed


class Job(pipeline.Job[Record]):
    """Does the work of `test_resumable`.

    Attributes:
        breaks_at: id of a record at which it fails.
        sizes: of the batches that came.
    """

    label = "working"

    def __init__(self, breaks_at: str = "") -> None:
        self.breaks_at = breaks_at
        self.sizes: list[int] = []
        self.expected: int | None = None

    def process(self, batches: Iterator[list[Record]], expected: int | None) -> Iterator[list[RecordResult]]:
        self.expected = expected
        for batch in batches:
            self.sizes.append(len(batch))
            if self.breaks_at in [record.id for record in batch]:
                raise CapivaraError("broken")
            yield [work(record) for record in batch]

    def figures(self) -> dict[str, str]:
        return {"rate": f"{self.per_second(sum(self.sizes)):.0f}"}


def run(job: Job, path: Path | None, *, runtime: Runtime = ONE, total: int | None = 11) -> Tally | None:
    with open_output(path, {}, runtime, overwrite=False) as out:
        out.begin(3)
        return pipeline.run(job, records(), out, runtime, window=3, total=total, live=total is None)


@pytest.mark.parametrize("total", [11, None])
def test_a_job_that_failed_is_resumed(total: int | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    undisturbed(tmp_path / "whole.jsonl")
    with pytest.raises(CapivaraError, match="broken"):
        run(Job(breaks_at="n7"), tmp_path / "out.jsonl", total=total)
    job = Job()
    tally = run(job, tmp_path / "out.jsonl", total=total)
    assert "resuming after 6 records" in capsys.readouterr().err
    assert job.sizes == [3, 2]
    assert job.expected == (None if total is None else 5)
    assert job.seconds > 0
    assert tally is not None
    assert (tally.kept, tally.rejected, tally.parts) == (7, 4, 4)
    assert both(tmp_path / "out.jsonl") == both(tmp_path / "whole.jsonl")


def test_a_pipe_gets_each_record_when_it_is_done(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    job = Job()
    run(job, None, total=None)
    assert sum(job.sizes) == 11
    assert max(job.sizes) <= 3
    assert capfdbinary.readouterr().out.count(b"\n") == 7


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_ranks_share_the_records_by_whole_batches(ranks: int) -> None:
    shares = []
    for rank in range(ranks):
        runtime = Runtime("cpu", "fp32", rank=rank, world_size=ranks)
        shares.append([record.id for record in pipeline.share_by_rank(records(23), 3, runtime)])
    batches = [[f"n{number}" for number in range(start, min(start + 3, 23))] for start in range(0, 23, 3)]
    assert shares == [list(chain.from_iterable(batches[rank::ranks])) for rank in range(ranks)]


def test_batches_are_whole_but_the_last() -> None:
    assert [len(batch) for batch in pipeline.batched(records(7), 3)] == [3, 3, 1]
    assert list(pipeline.batched(records(0), 3)) == []


def test_a_batch_of_a_pipe_is_what_has_come_in() -> None:
    more = threading.Event()

    def pipe() -> Iterator[Record]:
        for record in records(5):
            assert record.id != "n3" or more.wait(10)
            yield record

    seen: list[str] = []
    for batch in pipeline.drain(pipe(), 2):
        assert len(batch) <= 2
        seen += [record.id for record in batch]
        if len(seen) == 3:
            more.set()
    assert seen == ["n0", "n1", "n2", "n3", "n4"]


def test_an_error_of_the_input_is_raised_here() -> None:
    def pipe() -> Iterator[Record]:
        yield from records(2)
        raise CapivaraError("not JSON")

    with pytest.raises(CapivaraError, match="not JSON"):
        list(pipeline.prefetch(pipe(), 3))
