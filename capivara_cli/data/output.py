"""What a command makes of records, one after the other, and where it goes: a file, or standard output.

The file survives being killed: see `output_files`.
"""

from __future__ import annotations

import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol, Self, TypeVar

from capivara_cli import console
from capivara_cli.data import images, records
from capivara_cli.data.records import Record
from capivara_cli.errors import CapivaraError
from capivara_cli.runtime import Runtime

R = TypeVar("R", bound=Record)

REJECTED = "rejected"  # key of the reason
KEPT, LOST, PART = b"+", b"-", b"~"  # marks: a record, a record that was rejected, a part of the next one that was
SHOWN = 5  # of what was rejected, named on the screen; the file has all
OPEN: Any = object()
"""A setting that `Output.begin` chooses, unless an interrupted run has chosen it already."""


@dataclass(frozen=True)
class Outcome:
    """What became of a record.

    Attributes:
        data: the record; as it came when it was rejected.
        reason: why it was rejected.
        parts: what of it was rejected though it was kept: objects with `id` and the reason under `rejected`.
    """

    data: dict[str, Any]
    reason: str | None = None
    parts: tuple[dict[str, Any], ...] = ()

    def lines(self) -> Iterator[tuple[bytes, bytes]]:
        """Marks and lines of JSON, that of the record itself last: when it is there, all are."""
        yield from ((PART, _json(part)) for part in self.parts)
        data = {key: value for key, value in self.data.items() if key != REJECTED}
        yield (KEPT, _json(data)) if self.reason is None else (LOST, _json({REJECTED: self.reason, **data}))


def _json(value: dict[str, Any]) -> bytes:
    return records.to_json(value).encode("utf-8", "backslashreplace") + b"\n"


class Look(Protocol):
    """What looks at a result, line by line, when it is put in its place."""

    def record(self, data: dict[str, Any], reason: str | None) -> None:
        """A record, and why it was rejected if it was."""

    def part(self, data: dict[str, Any]) -> None:
        """A part that was rejected, with the reason under `rejected`; its record comes after it."""


@dataclass
class Tally:
    """How many records were kept and rejected, how many parts of them, and the first names and reasons of each.

    Attributes:
        look: is shown each line.
    """

    kept: int = 0
    rejected: int = 0
    parts: int = 0
    first: list[str] = field(default_factory=list)
    first_parts: list[str] = field(default_factory=list)
    look: Look | None = None

    def add(self, mark: bytes, line: bytes) -> None:
        """Count a line."""
        self.kept += mark == KEPT
        self.rejected += mark == LOST
        self.parts += mark == PART
        names = self.first_parts if mark == PART else self.first
        named = mark != KEPT and len(names) < SHOWN
        if not named and self.look is None:
            return
        data = json.loads(line)
        if named:
            names.append(f"{data['id']}: {data[REJECTED]}".replace("\n", "\\n"))
        if self.look is not None:
            self.look.part(data) if mark == PART else self.look.record(data, data.get(REJECTED))


class Output(ABC):
    """Takes outcomes batch by batch, in the order of the input.

    Attributes:
        folder: what relative image paths in it are relative to.
        settings: what the work was begun with; what was `OPEN` as it was chosen then.
        streams: whether what is written is read at once: batches may be of any size.
    """

    streams = False
    folder: Path
    settings: dict[str, Any]

    @abstractmethod
    def begin(self, **chosen: Any) -> None:
        """Start to write, with a choice for all settings that are `OPEN`: it holds for those that go on with it too.

        Raises CapivaraError when an interrupted run had another.
        """

    @abstractmethod
    def pass_over(self, found: Iterator[R]) -> tuple[int, Iterator[R]]:
        """Skip those of this rank's records that are there already: their number, and those to do.

        Raises CapivaraError when they are others than before, or other in any key.
        """

    @abstractmethod
    def write(self, outcomes: Sequence[Outcome]) -> None:
        """Add a batch: of the next records of those to do. Raises CapivaraError when there is no room."""

    @abstractmethod
    def finish(self) -> Tally | None:
        """Put the result in its place; None on every rank but the first."""

    def close(self) -> None:  # noqa: B027
        """Let go of the files; what is there can be gone on with."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_output(
    path: Path | None, settings: dict[str, Any], runtime: Runtime, *, overwrite: bool, look: Look | None = None
) -> Output:
    """The output for `-o FILE`, or standard output without it.

    Args:
        path: FILE.
        settings: all that the result depends on, in JSON's types or `OPEN`; `batch_size` is one of them, and the
            lines of a batch go together.
        runtime: whose rank this is.
        overwrite: begin anew.
        look: is shown all that was written, by this run and those that it goes on with.

    Raises:
        CapivaraError: FILE is there, or was begun with other settings, which are named.
    """
    if path is not None and (images.is_image_name(path.name) or path.suffix == ".tar"):
        raise CapivaraError(f"{path} is not the name of a file of records", "-o FILE.jsonl")
    if path is None or str(path) == "-":
        if runtime.world_size > 1:
            raise CapivaraError("several ranks cannot share standard output", "give -o FILE")
        return _Stream(settings, look)
    from capivara_cli.data.resumable import OutputFile

    return OutputFile(path, settings, runtime, look, overwrite=overwrite)


def share(found: Iterator[Record], size: int, runtime: Runtime) -> Iterator[Record]:
    """This rank's records: whole batches in turn, as the first rank puts them together again."""
    for number, record in enumerate(found):
        if number // size % runtime.world_size == runtime.rank:
            yield record


def rejected_file(path: Path) -> Path:
    """Where what was rejected goes."""
    return path.with_name(f"{path.name}.rejected.jsonl")


def check_not_read(sources: Iterable[str | Path], path: Path | None) -> None:
    """Raise CapivaraError when FILE, or the file of what is rejected, is one of the sources' files."""
    if path is None:
        return
    written = [each for each in (path, rejected_file(path)) if each.exists()]
    read = (name for source in sources for name in records.expand(str(source)) if written)
    for name in read:
        inside = name / records.METADATA
        file = inside if inside.is_file() else name
        for each in written:
            if file.exists() and file.samefile(each):
                raise CapivaraError(f"{each} is read and cannot be written too", "-o another file")


class _Stream(Output):
    """Standard output: nothing is kept of it, so nothing is gone on with."""

    streams = True

    def __init__(self, settings: dict[str, Any], look: Look | None) -> None:
        self.folder = Path.cwd()
        self.settings = settings
        self._stream: IO[bytes] = sys.stdout.buffer  # a progress bar may take sys.stdout away
        self._tally = Tally(look=look)

    def begin(self, **chosen: Any) -> None:
        self.settings |= {key: value for key, value in chosen.items() if self.settings.get(key) is OPEN}

    def pass_over(self, found: Iterator[R]) -> tuple[int, Iterator[R]]:
        return 0, found

    def write(self, outcomes: Sequence[Outcome]) -> None:
        try:
            for outcome in outcomes:
                for mark, line in outcome.lines():
                    self._tally.add(mark, line)
                    if mark == KEPT:
                        self._stream.write(line)
            self._stream.flush()
        except BrokenPipeError:  # whoever reads has enough, as `head` has
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            sys.exit(141)

    def finish(self) -> Tally:
        return self._tally


def report(tally: Tally, path: Path | None, *, parts: str | None = "captions") -> None:
    """Name what was rejected, and call its parts by this name; None passes over them.

    Raises CapivaraError when nothing was left.
    """
    if not tally.kept and not tally.rejected:
        raise CapivaraError("no records came in", "one line is one image: docs/data.md")
    lost = tally.parts if parts else 0
    if not tally.rejected and not lost:
        return
    where = f"; all are in {rejected_file(path)}" if path is not None and str(path) != "-" else ""
    total = tally.kept + tally.rejected
    shown = [*tally.first, *(tally.first_parts if parts else [])][:SHOWN]
    names = "".join(f"\n  {line}" for line in shown)
    left = tally.rejected + lost - len(shown)
    names += f"\n  and {left:,} more" if left else ""
    if not tally.kept:
        raise CapivaraError(f"nothing was left: {tally.rejected:,} of {total:,} rejected{where}{names}")
    what = [f"{tally.rejected:,} of {total:,} records rejected"] if tally.rejected else []
    what += [f"{lost:,} {parts} rejected"] if lost else []
    console.warn(f"{', '.join(what)}{where}{names}")
