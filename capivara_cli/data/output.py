"""Results of a command, one per record, and where they are written: to a file (`resumable`) or to standard output."""

from __future__ import annotations

import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol, Self, TypeGuard, TypeVar

from capivara_cli import console, interrupts
from capivara_cli.data import records
from capivara_cli.data.captions import REJECTED
from capivara_cli.data.records import Record
from capivara_cli.errors import BadOption, CapivaraError, explained
from capivara_cli.files import is_stream, refuse_folder
from capivara_cli.options import Summarised

R = TypeVar("R", bound=Record)  # the kind of record that a job works on

KEPT, REJECTED_MARK, PART = b"+", b"-", b"~"
"""Marks of a line: a record that was kept, a record that was rejected, a rejected part of the record that follows."""

SHOWN = 5  # number of rejected records to print; FILE.rejected.jsonl has all of them

UNDECIDED: Any = object()
"""Placeholder for a setting whose option is `auto`. The command chooses the value and passes it to `Output.begin`. When
a run is resumed, `settings` has the value of the interrupted run, and `begin` refuses another one."""


def undecided_if_auto(value: Any) -> Any:
    """Return UNDECIDED for `auto` (and for None, which `AutoOrCount` has for `auto`); any other value unchanged."""
    return UNDECIDED if value in (None, "auto") else value


@dataclass(frozen=True)
class RecordResult:
    """What became of a record.

    Attributes:
        data: the record to write, also if it was rejected.
        reason: why it was rejected; None if it was kept.
        parts: rejected pieces of a kept record, such as captions or translations. Each is an object with the record's
            `id`, and the reason under `rejected`.
    """

    data: dict[str, Any]
    reason: str | None = None
    parts: tuple[dict[str, Any], ...] = ()

    @classmethod
    def rejected(cls, record: Record, folder: Path, reason: str, *, strict: bool) -> RecordResult:
        """Return the result of a record that is rejected as a whole. Raises CapivaraError if `strict`."""
        if strict:
            raise CapivaraError(f"{record.where}: {record.image}: {reason}", "without --strict it is left out")
        return cls(record.for_folder(folder), reason)

    def lines(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield (mark, JSON line) pairs: first the rejected parts, then the record.

        If the record's line is in a file, its parts are too: a run that was killed is resumed after the last record.
        """
        for part in self.parts:
            yield PART, _json(part)
        # A file of rejected records may be the input: its old reasons are dropped.
        data = {key: value for key, value in self.data.items() if key != REJECTED}
        yield (KEPT, _json(data)) if self.reason is None else (REJECTED_MARK, _json({REJECTED: self.reason, **data}))


def _json(value: dict[str, Any]) -> bytes:
    # "backslashreplace", because a lone surrogate has no bytes in UTF-8: as \udc80 it stays valid JSON.
    return records.to_json(value).encode("utf-8", "backslashreplace") + b"\n"


class Observer(Protocol):
    """Is shown every record and rejected part.

    Those of a file are shown at the end, when the partial files are merged, those of earlier, interrupted runs
    included; those of standard output while they are written.
    """

    def add_record(self, data: dict[str, Any], reason: str | None) -> None:
        """Take a record; `reason` is None if it was kept."""

    def add_part(self, data: dict[str, Any]) -> None:
        """Take a rejected part, with the reason under `rejected`; its record comes after it."""


@dataclass
class Tally:
    """Count the records that were kept and rejected, and their rejected parts.

    Attributes:
        kept, rejected: number of records.
        parts: number of rejected parts.
        first, first_parts: `ID: REASON` of the first SHOWN rejected records, and of the first rejected parts.
    """

    kept: int = 0
    rejected: int = 0
    parts: int = 0
    first: list[str] = field(default_factory=list)
    first_parts: list[str] = field(default_factory=list)
    observer: Observer | None = None

    def add(self, mark: bytes, line: bytes) -> None:
        """Count a line."""
        self.kept += mark == KEPT
        self.rejected += mark == REJECTED_MARK
        self.parts += mark == PART
        names = self.first_parts if mark == PART else self.first
        named = mark != KEPT and len(names) < SHOWN
        if not named and self.observer is None:
            return
        data = json.loads(line)
        if named:
            names.append(f"{data['id']}: {data[REJECTED]}".replace("\n", "\\n"))
        if self.observer is not None and mark == PART:
            self.observer.add_part(data)
        elif self.observer is not None:
            self.observer.add_record(data, data.get(REJECTED))


class Output(ABC):
    """Where results are written, batch by batch, in the order of the input.

    Attributes:
        folder: base of the relative image paths in the output.
        settings: settings of this run; of the interrupted run, if this one resumes it. After `begin` none is
            `UNDECIDED`.
        streams: whether another process may read the output while it is written. Batches may then have any size.
    """

    streams = False
    folder: Path
    settings: dict[str, Any]

    @abstractmethod
    def begin(self, window: int, **decided: Any) -> None:
        """Start to write.

        Args:
            window: records per batch. A batch that was not written completely is dropped when the run is resumed.
            decided: the value of every setting that is `UNDECIDED`. A run that resumes this one must have the same.

        Raises:
            CapivaraError: the interrupted run had other values.
        """

    @abstractmethod
    def skip_done(self, records: Iterator[R]) -> tuple[int, Iterator[R]]:
        """Skip this rank's records that are already written. Return their number, and an iterator over the rest.

        Raises CapivaraError if a skipped record has changed since then, in any key.
        """

    @abstractmethod
    def write(self, results: Sequence[RecordResult]) -> None:
        """Add a batch: one result for each of the next records. Raises CapivaraError when the disk is full."""

    @abstractmethod
    def finish(self) -> Tally | None:
        """Write the final files. Return the tally on the first rank, None on the others.

        `close` then removes the partial files.
        """

    def close(self) -> None:  # noqa: B027
        """Close the files. A run that was not finished can be resumed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def rejected_file(path: Path) -> Path:
    """Return the file for the rejected records of an output."""
    return path.with_name(f"{path.name}.rejected.jsonl")


def is_file(path: Path | None) -> TypeGuard[Path]:
    """Return whether the output is a file, which can be resumed, and not standard output or another stream."""
    return path is not None and str(path) != "-" and not is_stream(path)


def check_not_a_source(sources: Iterable[str | Path], path: Path | None) -> None:
    """Raise CapivaraError if `path`, or its file of rejected records, is also an input."""
    if path is None:
        return
    refuse_folder(path)
    outputs = [file for file in (path, rejected_file(path)) if file.exists()]
    if not outputs:
        return
    for source in sources:
        for name in records.expand(str(source)):
            metadata = name / records.METADATA
            file = metadata if metadata.is_file() else name
            for output in outputs:
                if file.exists() and file.samefile(output):
                    raise CapivaraError(f"{output} is both input and output", "-o another file")


class StandardOutput(Output):
    """Standard output, or another device or named pipe; cannot be resumed."""

    streams = True

    def __init__(self, settings: dict[str, Any], observer: Observer | None, path: Path | None = None) -> None:
        self.folder = Path.cwd()
        self.settings = settings
        if path is None:
            self._stream: IO[bytes] = sys.stdout.buffer  # a progress bar may replace sys.stdout
        else:
            with explained(f"cannot write {path}"):
                self._stream = path.open("ab")  # not "wb": /dev/stdout may be a file to which the shell appends
        self._tally = Tally(observer=observer)
        interrupts.note("standard output cannot be resumed; with -o FILE it could")

    def begin(self, window: int, **decided: Any) -> None:  # noqa: ARG002
        """See `Output`."""
        self.settings |= {key: value for key, value in decided.items() if self.settings.get(key) is UNDECIDED}

    def skip_done(self, records: Iterator[R]) -> tuple[int, Iterator[R]]:
        """See `Output`."""
        return 0, records

    def write(self, results: Sequence[RecordResult]) -> None:
        """See `Output`."""
        try:
            for result in results:
                for mark, line in result.lines():
                    self._tally.add(mark, line)
                    if mark == KEPT:
                        self._stream.write(line)
            self._stream.flush()
        except BrokenPipeError:  # the reader has read enough, as `head` does
            interrupts.end_now(interrupts.CLOSED_PIPE)

    def finish(self) -> Tally:
        """See `Output`."""
        return self._tally


def raise_if_empty(tally: Tally, path: Path | None) -> None:
    """Raise CapivaraError when no record came in, or none was kept."""
    if not tally.kept and not tally.rejected:
        raise CapivaraError("no records came in", "one line is one image: docs/data.md")
    if not tally.kept:
        raise CapivaraError(f"nothing was left: {tally.rejected:,} of {tally.rejected:,} rejected{_names(tally, path)}")


def check_json(options: Summarised, path: Path | None) -> None:
    """Raise BadOption for `--json` when the records themselves go to standard output."""
    if options.json and not is_file(path):
        raise BadOption("--json without -o: standard output has the records then", "-o FILE.jsonl")


def report(
    tally: Tally, path: Path | None, *, parts: str = "captions", summary: Mapping[str, Any] | None = None
) -> None:
    """Print a warning with the number of rejected records and parts, and the first few of them.

    Args:
        parts: noun for rejected parts in the message.
        summary: what `--json` prints besides the counts, on standard output; None for no JSON.

    Raises:
        CapivaraError: nothing is left.
    """
    raise_if_empty(tally, path)
    if summary is not None:
        totals = {"output": str(path), "records": tally.kept, "rejected": tally.rejected, "parts_rejected": tally.parts}
        console.answer(records.to_json(totals | dict(summary)))
    total = tally.kept + tally.rejected
    counts = [f"{tally.rejected:,} of {total:,} records rejected"] if tally.rejected else []
    counts += [f"{tally.parts:,} {parts} rejected"] if tally.parts else []
    if counts:
        console.warn(f"{', '.join(counts)}{_names(tally, path)}")


def _names(tally: Tally, path: Path | None) -> str:
    """Return the end of a message: the file of rejected records, and the first records and parts, one per line."""
    where = f"; all are in {rejected_file(path)}" if is_file(path) else ""
    shown = [*tally.first, *tally.first_parts][:SHOWN]
    more = tally.rejected + tally.parts - len(shown)
    return "".join([where, *(f"\n  {line}" for line in shown), f"\n  and {more:,} more" if more else ""])
