"""Where a command that works through records writes them: a file that survives being killed, or standard output.

FILE.partial grows by whole batches while the work goes on, in the order of the input. Its lines are JSON behind a
mark: `+` a record, `-` a record that was rejected, with the reason, `~` a part of the next record that was. Beside it
FILE.partial.json says with which settings it was begun. At the end the lines become FILE and FILE.rejected.jsonl, byte
for byte the same however often the work was interrupted. With several ranks each has a partial file of its own, and
the first one puts their batches together.
"""

from __future__ import annotations

import glob
import itertools
import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol, Self

from capivara_cli import artifacts, console
from capivara_cli.errors import CapivaraError
from capivara_cli.records import Record
from capivara_cli.runtime import Runtime

REJECTED = "rejected"  # key of the reason
_KEPT, _REJECTED, _PART = b"+", b"-", b"~"
SHOWN = 5  # of what was rejected, named on the screen; the file has all


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

    def lines(self) -> bytes:
        """Lines of a partial file, that of the record itself last: when it is there, all are."""
        data = {key: value for key, value in self.data.items() if key != REJECTED}
        last = _KEPT + _json(data) if self.reason is None else _REJECTED + _json({REJECTED: self.reason, **data})
        return b"".join(_PART + _json(part) for part in self.parts) + last


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


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

    def add(self, line: bytes) -> None:
        """Count a line of a partial file."""
        mark = line[:1]
        self.kept += mark == _KEPT
        self.rejected += mark == _REJECTED
        self.parts += mark == _PART
        names = self.first_parts if mark == _PART else self.first
        named = mark != _KEPT and len(names) < SHOWN
        if not named and self.look is None:
            return
        data = json.loads(line[1:])
        if named:
            names.append(f"{data['id']}: {data[REJECTED]}")
        if self.look is not None:
            self.look.part(data) if mark == _PART else self.look.record(data, data.get(REJECTED))


class Output(ABC):
    """Takes outcomes batch by batch, in the order of the input.

    Attributes:
        folder: what relative image paths in it are relative to.
        settings: what the work was begun with, `auto` settled as it was then.
        streams: whether what is written is read at once: batches may be of any size.
    """

    streams = False
    folder: Path
    settings: dict[str, Any]

    @abstractmethod
    def begin(self, **settled: Any) -> None:
        """Start to write, with what was left open in the settings chosen for this run and those that go on with it."""

    @abstractmethod
    def pass_over(self, records: Iterator[Record]) -> int:
        """Skip the records of this rank that are there already, and give their number.

        Raises CapivaraError when they are others than before.
        """

    @abstractmethod
    def write(self, outcomes: Sequence[Outcome]) -> None:
        """Add a batch. Raises CapivaraError when there is no room."""

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
        settings: all that the result depends on; `batch_size` is one of them, and the lines of a batch go together.
            A value of None is taken from what an interrupted run had.
        runtime: whose rank this is.
        overwrite: begin anew.
        look: is shown all that was written, by this run and those that it goes on with.

    Raises:
        CapivaraError: FILE is there, or was begun with other settings, which are named.
    """
    if path is None or str(path) == "-":
        if runtime.world_size > 1:
            raise CapivaraError("several ranks cannot share standard output", "give -o FILE")
        return _Stream(settings, look)
    return _File(path, settings, runtime, look, overwrite=overwrite)


def share(found: Iterator[Record], size: int, runtime: Runtime) -> Iterator[Record]:
    """This rank's records: whole batches in turn, as the first rank puts them together again."""
    for number, record in enumerate(found):
        if number // size % runtime.world_size == runtime.rank:
            yield record


def check_not_read(sources: Iterable[str | Path], path: Path | None) -> None:
    """Raise CapivaraError when FILE is one of the sources."""
    if path is not None and path.exists():
        for source in sources:
            if Path(source).exists() and Path(source).samefile(path):
                raise CapivaraError(f"{path} is read and cannot be written too", "-o another file")


class _Stream(Output):
    """Standard output: nothing is kept of it, so nothing is gone on with."""

    streams = True

    def __init__(self, settings: dict[str, Any], look: Look | None) -> None:
        self.folder = Path.cwd()
        self.settings = settings
        self._stream: IO[bytes] = sys.stdout.buffer  # a progress bar may take sys.stdout away
        self._tally = Tally(look=look)

    def begin(self, **settled: Any) -> None:
        self.settings |= settled

    def pass_over(self, records: Iterator[Record]) -> int:  # noqa: ARG002
        return 0

    def write(self, outcomes: Sequence[Outcome]) -> None:
        for line in itertools.chain.from_iterable(outcome.lines().splitlines(True) for outcome in outcomes):
            self._tally.add(line)
            if line.startswith(_KEPT):
                self._stream.write(line[1:])
        self._stream.flush()

    def finish(self) -> Tally:
        return self._tally


class _File(Output):
    """FILE, by way of its partial files."""

    def __init__(
        self, path: Path, settings: dict[str, Any], runtime: Runtime, look: Look | None, *, overwrite: bool
    ) -> None:
        if path.is_dir():
            raise CapivaraError(f"{path} is a folder", "-o FILE.jsonl")
        self.path = path
        self.folder = path.absolute().parent
        self.runtime = runtime
        self.look = look
        self.settings = settings | {"ranks": runtime.world_size}
        self.partial = self._partial(runtime.rank, runtime.world_size)
        self._begun = path.with_name(f"{path.name}.partial.json")
        self._file: IO[bytes] | None = None
        artifacts.make_folder(self.folder)
        try:
            if runtime.is_main:
                self._file = self._hold()
                self._check(overwrite=overwrite)
            runtime.barrier()
            if not runtime.is_main:
                self._file = self._hold()
        except BaseException:
            self.close()
            raise
        if self._begun.is_file():
            self.settings = artifacts.read_json(self._begun)

    def begin(self, **settled: Any) -> None:
        self.settings |= settled
        if self.runtime.is_main and not self._begun.is_file():
            artifacts.write_json(self._begun, self.settings)
        self.runtime.barrier()
        _drop_torn_batch(self.partial, self.settings["batch_size"])

    def _hold(self) -> IO[bytes]:
        """The partial file, to append to, and for this process alone: before anything is changed or removed."""
        while True:
            try:
                file = self.partial.open("ab")
            except OSError as error:
                raise CapivaraError(f"cannot write {self.partial}: {error.strerror}", artifacts.NO_ROOM) from error
            if not _lock(file):
                file.close()
                raise CapivaraError(f"{self.path} is being written by another process", "-o another file")
            if self.partial.exists() and self.partial.stat().st_ino == os.fstat(file.fileno()).st_ino:
                return file
            file.close()  # whoever held it has just finished and removed it

    def _partial(self, rank: int, ranks: int) -> Path:
        return self.path.with_name(f"{self.path.name}.partial" + (f"-{rank}-of-{ranks}" if ranks > 1 else ""))

    def _partials(self) -> list[Path]:
        """Partial files of any run, with any number of ranks."""
        found = self.path.parent.glob(f"{glob.escape(self.path.name)}.partial*")
        return [path for path in found if path != self._begun]

    def _check(self, *, overwrite: bool) -> None:
        for path in self._partials():
            if path != self.partial and not _is_free(path):
                raise CapivaraError(f"{self.path} is being written by another process", "-o another file")
        # Settings with which nothing was done bind nobody: those of a model that could not be loaded, say.
        begun = self._begun.is_file() and any(path.stat().st_size for path in self._partials())
        if begun and not overwrite:
            self._compare()
            return
        if self.path.exists() and not overwrite:
            raise CapivaraError(f"{self.path} is there already", "--overwrite replaces it")
        self._remove(keep=self.partial)
        os.truncate(self.partial, 0)

    def _compare(self) -> None:
        """Refuse to go on with what was begun with other settings; what is left open now may have been chosen then."""
        begun = artifacts.read_json(self._begun)
        asked = {key: begun.get(key) if value is None else value for key, value in self.settings.items()}
        differ = [
            f"--{key.replace('_', '-')} {_short(begun.get(key))}, now {_short(asked.get(key))}"
            for key in sorted({*begun, *asked})
            if begun.get(key) != json.loads(json.dumps(asked.get(key)))
        ]
        if differ:
            raise CapivaraError(
                f"{self.path} was begun with other settings: {'; '.join(differ)}",
                "the same settings go on with it, --overwrite begins anew",
            )

    def _remove(self, keep: Path | None = None) -> None:
        """Remove settings, partial files, and what a run left that was killed at its very end."""
        torn = self.path.parent.glob(f".{glob.escape(self.path.name)}.*.tmp")
        for path in [self._begun, *self._partials(), *torn]:
            if path != keep:
                path.unlink(missing_ok=True)

    def pass_over(self, records: Iterator[Record]) -> int:
        passed = 0
        with self.partial.open("rb") as file:
            for passed, line in enumerate(_whole(file), start=1):
                before, record = str(json.loads(line[1:])["id"]), next(records, None)
                if record is None or record.id != before:
                    now = f"now {record.id} ({record.where})" if record else "and is no more"
                    raise CapivaraError(
                        f"{self.path} was begun with other records: number {passed} was {before}, {now}",
                        "--overwrite begins anew",
                    )
        return passed

    def write(self, outcomes: Sequence[Outcome]) -> None:
        assert self._file is not None, "begin() comes first"
        try:
            self._file.write(b"".join(outcome.lines() for outcome in outcomes))
            self._file.flush()
        except OSError as error:
            raise CapivaraError(f"cannot write {self.partial}: {error.strerror}", artifacts.NO_ROOM) from error

    def close(self) -> None:
        if self._file is None:
            return
        if self.runtime.world_size == 1 and self.partial.is_file() and not self.partial.stat().st_size:
            self._remove()  # nothing was done: nothing is left behind
        with suppress(OSError):  # each batch was flushed: what fails here has failed, and been told, before
            self._file.close()
        self._file = None

    def finish(self) -> Tally | None:
        self.runtime.barrier()
        tally = self._merge() if self.runtime.is_main else None
        self.runtime.barrier()
        self.close()
        return tally

    def _merge(self) -> Tally:
        tally = Tally(look=self.look)
        rejected = self.path.with_name(f"{self.path.name}.rejected.jsonl")
        with ExitStack() as stack:
            kept_file = stack.enter_context(stack.enter_context(artifacts.writing(self.path)).open("wb"))
            rejected_file = stack.enter_context(stack.enter_context(artifacts.writing(rejected)).open("wb"))
            for line in self._lines():
                tally.add(line)
                (kept_file if line.startswith(_KEPT) else rejected_file).write(line[1:])
        if not tally.rejected and not tally.parts:
            rejected.unlink()
        if not tally.kept:
            self.path.unlink()
        self._remove()
        return tally

    def _lines(self) -> Iterator[bytes]:
        """The lines of all ranks in the order of the input: a batch of each rank in turn."""
        size = self.settings["batch_size"]
        with ExitStack() as stack:
            ranks = self.settings["ranks"]
            paths = [self._partial(rank, ranks) for rank in range(ranks)]
            files = [stack.enter_context(path.open("rb")) for path in paths if path.is_file()]
            while files:
                batches = [list(_batch(file, size)) for file in files]
                yield from itertools.chain.from_iterable(batches)
                if not all(batches):
                    return


def _lock(file: IO[bytes]) -> bool:
    """Lock the file for this process; whether it was free."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # Windows has no such locks
        return True
    except OSError:
        return False
    return True


def _is_free(path: Path) -> bool:
    with path.open("ab") as file:
        return _lock(file)


def _whole(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of records, without those of rejected parts."""
    return (line for line in lines if not line.startswith(_PART))


def _batch(lines: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The lines of the next so many records, and of their parts."""
    records = 0
    for line in lines:
        yield line
        records += not line.startswith(_PART)
        if records == size:
            return


def _drop_torn_batch(partial: Path, size: int) -> None:
    """Cut the file behind its last whole batch: what a killed process was writing is done again."""
    end = here = records = 0
    with partial.open("rb") as file:
        for line in file:
            here += len(line)
            records += not line.startswith(_PART)
            if records % size == 0 and not line.startswith(_PART) and line.endswith(b"\n"):
                end = here
    with partial.open("rb+") as file:
        file.truncate(end)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def report(tally: Tally, path: Path | None, *, parts: str | None = "captions") -> None:
    """Name what was rejected, and call its parts by this name; None passes over them.

    Raises CapivaraError when nothing was left.
    """
    if not tally.kept and not tally.rejected:
        raise CapivaraError("no records came in", "one line is one image: docs/data.md")
    lost = tally.parts if parts else 0
    if not tally.rejected and not lost:
        return
    where = f"; all are in {path}.rejected.jsonl" if path is not None and str(path) != "-" else ""
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
