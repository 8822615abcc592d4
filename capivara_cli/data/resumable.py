"""A file of records that survives being killed.

FILE.partial grows by whole batches while the work goes on, in the order of the input. Each line is a mark, a digest of
the record as it came, and JSON. Beside it FILE.partial.json says with which settings it was begun. At the end the lines
become FILE and FILE.rejected.jsonl, byte for byte the same however often the work was interrupted. With several ranks
each has a partial file of its own, and the first one puts their batches together.
"""

from __future__ import annotations

import glob
import itertools
import json
import os
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

from capivara_cli import artifacts
from capivara_cli.data.output import KEPT, OPEN, PART, Look, Outcome, Output, R, Tally, rejected_file
from capivara_cli.data.records import Record
from capivara_cli.errors import CapivaraError
from capivara_cli.runtime import Runtime

_HEAD = 9  # bytes of a line before its JSON: the mark, and eight digits
_UNTYPED = {"sources": "sources", "ranks": "the number of ranks", "model_files": "the model's files"}


class OutputFile(Output):
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
        self._left_open = [key for key, value in settings.items() if value is OPEN]
        self._given: deque[bytes] = deque()  # digests of the records that are being worked on
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
        self._goes_on = self._begun.is_file()
        if self._goes_on:
            self.settings = artifacts.read_json(self._begun)

    def begin(self, **chosen: Any) -> None:
        """See `Output`."""
        now = {key: chosen[key] for key in self._left_open}
        if self._goes_on:
            self._refuse_others({key: self.settings.get(key) for key in now}, now)
        self.settings |= now
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
            if not artifacts.lock(file):
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
        """Refuse to go on with what was begun with other settings; what is open now may have been chosen then."""
        begun = artifacts.read_json(self._begun)
        keys = [key for key in {*begun, *self.settings} if key not in self._left_open]
        self._refuse_others({key: begun.get(key) for key in keys}, {key: self.settings.get(key) for key in keys})

    def _refuse_others(self, begun: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        differ = [
            f"{_UNTYPED.get(key) or '--' + key.replace('_', '-')} {_short(begun[key])}, now {_short(now[key])}"
            for key in sorted(now)
            if begun[key] != json.loads(json.dumps(now[key]))
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

    def pass_over(self, found: Iterator[R]) -> tuple[int, Iterator[R]]:
        """See `Output`."""
        passed = 0
        with self.partial.open("rb") as file:
            for passed, line in enumerate(_whole(file), start=1):
                before, record = str(json.loads(line[_HEAD:])["id"]), next(found, None)
                now = f"now {record.id} ({record.where})" if record else "and is no more"
                if record is not None and record.id == before:
                    if line[1:_HEAD] == _digest(record):
                        continue
                    now = f"{record.where}, and has changed since"
                raise CapivaraError(
                    f"{self.path} was begun with other records: number {passed} was {before}, {now}",
                    "--overwrite begins anew",
                )
        return passed, self._remembering(found)

    def _remembering(self, found: Iterator[R]) -> Iterator[R]:
        for record in found:
            self._given.append(_digest(record))
            yield record

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """See `Output`."""
        assert self._file is not None, "begin() comes first"
        lines = []
        for outcome in outcomes:
            digest = self._given.popleft()
            lines += [mark + digest + line for mark, line in outcome.lines()]
        try:
            self._file.write(b"".join(lines))
            self._file.flush()
        except OSError as error:
            raise CapivaraError(f"cannot write {self.partial}: {error.strerror}", artifacts.NO_ROOM) from error

    def close(self) -> None:
        """See `Output`."""
        if self._file is None:
            return
        if self.runtime.world_size == 1 and self.partial.is_file() and not self.partial.stat().st_size:
            self._remove()  # nothing was done: nothing is left behind
        with suppress(OSError):  # each batch was flushed: what fails here has failed, and been told, before
            self._file.close()
        self._file = None

    def finish(self) -> Tally | None:
        """See `Output`."""
        self.runtime.barrier()
        tally = self._merge() if self.runtime.is_main else None
        self.runtime.barrier()
        self.close()
        return tally

    def _merge(self) -> Tally:
        tally = Tally(look=self.look)
        rejected = rejected_file(self.path)
        # Where nothing is left, what was there before stays: --overwrite was no wish to have nothing.
        anything = any(line.startswith(KEPT) for line in self._lines())
        with ExitStack() as stack:
            paths = [self.path, rejected] if anything else [rejected]
            files = [stack.enter_context(stack.enter_context(artifacts.writing(path)).open("wb")) for path in paths]
            for line in self._lines():
                tally.add(line[:1], line[_HEAD:])
                files[0 if line.startswith(KEPT) else -1].write(line[_HEAD:])
        if not tally.rejected and not tally.parts:
            rejected.unlink()
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


def _is_free(path: Path) -> bool:
    with path.open("ab") as file:
        return artifacts.lock(file)


def _whole(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of records, without those of rejected parts."""
    return (line for line in lines if not line.startswith(PART))


def _batch(lines: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The lines of the next so many records, and of their parts."""
    records = 0
    for line in lines:
        yield line
        records += not line.startswith(PART)
        if records == size:
            return


def _drop_torn_batch(partial: Path, size: int) -> None:
    """Cut the file behind its last whole batch: what a killed process was writing is done again."""
    end = here = records = 0
    with partial.open("rb") as file:
        for line in file:
            here += len(line)
            records += not line.startswith(PART)
            if records % size == 0 and not line.startswith(PART) and line.endswith(b"\n"):
                end = here
    with partial.open("rb+") as file:
        file.truncate(end)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _digest(record: Record) -> bytes:
    """Eight digits that change with any key of the record."""
    return b"%08x" % zlib.crc32(repr(record.data).encode("utf-8", "surrogatepass"))
