"""A file of records that survives being killed.

FILE.partial grows by whole batches during the work, in the order of the input. Each line is a mark, a digest of the
record as it came, and JSON. Beside it FILE.partial.json holds the settings of the run that began it. At the end the
lines become FILE and FILE.rejected.jsonl, byte for byte the same however often the work was interrupted. With several
ranks each has its own partial file, and the first rank puts their batches together.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

from capivara_cli import artifacts, files, interrupts, locks
from capivara_cli.data import images, partial_files
from capivara_cli.data.output import (
    KEPT,
    UNDECIDED,
    Observer,
    Output,
    R,
    RecordResult,
    StandardOutput,
    Tally,
    is_file,
    rejected_file,
)
from capivara_cli.data.records import Record
from capivara_cli.errors import CapivaraError, explained
from capivara_cli.locks import Lock
from capivara_cli.runtime import Runtime

OTHER_SUFFIXES = (".tar", ".json", ".ipynb")  # a shard, one JSON value (often annotations), a notebook

_NAMES = {
    "sources": "sources",
    "ranks": "the number of ranks",
    "window": "records per batch",
    "model_files": "the model's files",
}
"""Settings that are not flags, for messages."""


def open_output(
    path: Path | None,
    settings: dict[str, Any],
    runtime: Runtime,
    *,
    overwrite: bool,
    observer: Observer | None = None,
) -> Output:
    """Open the output for `-o FILE`, or standard output without it.

    Args:
        path: FILE.
        settings: all that the result depends on, in JSON's types or `UNDECIDED`.
        runtime: whose rank this is.
        overwrite: start over.
        observer: is shown all that was written, by this run and those that it resumes.

    Raises:
        CapivaraError: FILE already exists, or was begun with other settings, which are named.
    """
    if path is not None and (images.is_image_name(path.name) or path.suffix.lower() in OTHER_SUFFIXES):
        raise CapivaraError(f"{path} is not the name of a file of records", "-o FILE.jsonl")
    if is_file(path):
        return OutputFile(path, settings, runtime, observer, overwrite=overwrite)
    if runtime.world_size > 1:
        raise CapivaraError("several ranks cannot share standard output", "give -o FILE")
    return StandardOutput(settings, observer, path if str(path) not in ("None", "-") else None)


def is_begun(path: Path) -> bool:
    """Return whether an interrupted run has left a part of this file."""
    return path.with_name(f"{path.name}.partial.json").is_file()


class OutputFile(Output):
    """FILE, written through its partial files."""

    def __init__(
        self, path: Path, settings: dict[str, Any], runtime: Runtime, observer: Observer | None, *, overwrite: bool
    ) -> None:
        self.path = path
        self.folder = path.absolute().parent
        self.runtime = runtime
        self.observer = observer
        self.settings = settings | {"ranks": runtime.world_size}
        self.partial = self._partial(runtime.rank, runtime.world_size)
        self._settings_file = path.with_name(f"{path.name}.partial.json")
        self._file: IO[bytes] | None = None
        self._is_complete = False
        self._is_checked = False  # whether the partial files and settings may be removed: they are ours to change
        self._lock: Lock | None = None
        self._undecided = [key for key, value in settings.items() if value is UNDECIDED]
        self._digests: deque[bytes] = deque()  # of the records that are being worked on
        self._new_folders = [folder for folder in (self.folder, *self.folder.parents) if not folder.exists()]
        artifacts.make_folder(self.folder)
        try:
            if runtime.is_main:
                self._file = self._hold()
                self._check(overwrite=overwrite)
            self._is_checked = True
            runtime.barrier()
            if not runtime.is_main:
                self._file = self._hold()
        except BaseException:
            self.close()
            raise
        self._resumes = self._settings_file.is_file()
        if self._resumes:
            self.settings = artifacts.read_json(self._settings_file)

    def begin(self, window: int, **decided: Any) -> None:
        """See `Output`."""
        now = {key: decided[key] for key in self._undecided} | {"window": window}
        if self._resumes:
            self._refuse_others({key: self.settings.get(key) for key in now}, now)
        self.settings |= now
        if self.runtime.is_main and not self._settings_file.is_file():
            artifacts.write_json(self._settings_file, self.settings)
        self.runtime.barrier()
        interrupts.note(f"what is done is kept in {self.partial}: run the same command again to resume")
        partial_files.drop_torn_batch(self.partial, window)

    def _hold(self) -> IO[bytes]:
        """Open the partial file to append to, and lock it for this process, before anything is changed or removed."""
        while True:
            with explained(f"cannot write {self.partial}", hint=artifacts.NO_ROOM):
                self._lock = locks.acquire(self.partial)
                if self._lock is None:
                    raise CapivaraError(f"{self.path} is being written by another process", "-o another file")
                file = self.partial.open("ab")
            if self._lock.is_on(self.partial):
                return file
            file.close()  # the process that held it has just finished and removed it
            self._lock.release()

    def _partial(self, rank: int, ranks: int) -> Path:
        return self.path.with_name(f"{self.path.name}.partial" + (f"-{rank}-of-{ranks}" if ranks > 1 else ""))

    def _beside(self, pattern: str) -> list[Path]:
        """Return the files in the same folder with names of exactly this form: `NAME.partial.bak` is the user's."""
        with explained(f"cannot read the folder {self.folder}"):
            return [path for path in self.path.parent.iterdir() if re.fullmatch(pattern, path.name)]

    def _partials(self) -> list[Path]:
        """Return the partial files of any run, with any number of ranks."""
        return self._beside(rf"{re.escape(self.path.name)}\.partial(-\d+-of-\d+)?")

    def _check(self, *, overwrite: bool) -> None:
        for path in self._partials():
            if not partial_files.is_partial(path):
                raise CapivaraError(f"{path} is not a partial file of this program, and is kept", "-o another file")
            if path != self.partial and not partial_files.is_free(path):
                raise CapivaraError(f"{self.path} is being written by another process", "-o another file")
        if self._settings_file.exists() and not partial_files.has_settings(self._settings_file):
            message = f"{self._settings_file} does not have the settings of an interrupted run, and is kept"
            raise CapivaraError(message, "-o another file")
        # Settings of a run that wrote nothing do not count: its model could not be loaded, for example.
        is_begun = self._settings_file.is_file() and any(path.stat().st_size for path in self._partials())
        if is_begun and not overwrite:
            self._compare()
            return
        files.check_writable(self.path, files.RECORDS, overwrite=overwrite)
        files.check_writable(rejected_file(self.path), files.REJECTED, overwrite=overwrite)
        self._remove(keep=self.partial)
        os.truncate(self.partial, 0)

    def _compare(self) -> None:
        """Refuse to resume a run that had other settings. Undecided settings are compared later, in `begin`."""
        begun = artifacts.read_json(self._settings_file)
        keys = {*begun, *self.settings} - {*self._undecided, "window"}  # `begin` compares these
        self._refuse_others({key: begun.get(key) for key in keys}, {key: self.settings.get(key) for key in keys})

    def _refuse_others(self, begun: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        differ = [
            f"{_NAMES.get(key) or '--' + key.replace('_', '-')} {_short(begun[key])}, now {_short(now[key])}"
            for key in sorted(now)
            if begun[key] != json.loads(json.dumps(now[key]))
        ]
        if differ:
            raise CapivaraError(
                f"{self.path} was begun with other settings: {'; '.join(differ)}",
                "use the same settings to resume it, or --overwrite to start over",
            )

    def _remove(self, keep: Path | None = None) -> None:
        """Remove settings, partial files, and what a run left that was killed at its end."""
        torn = self._beside(rf"\.{re.escape(self.path.name)}(\.rejected\.jsonl)?\.\d+\.tmp")
        for path in [self._settings_file, *self._partials(), *torn]:
            if path != keep:
                path.unlink(missing_ok=True)

    def skip_done(self, records: Iterator[R]) -> tuple[int, Iterator[R]]:
        """See `Output`."""
        done = 0
        with self.partial.open("rb") as file:
            for done, line in enumerate(partial_files.records_only(file), start=1):
                before, record = str(json.loads(line[partial_files.HEAD :])["id"]), next(records, None)
                if record is None:
                    change = f"({before}) is missing"
                elif record.id != before:
                    change = f"was {before}, now {record.id} ({record.where})"
                elif line[1 : partial_files.HEAD] != _digest(record):
                    change = f"({before}, {record.where}) has changed"
                else:
                    continue
                raise CapivaraError(
                    f"{self.path} was begun with other records: record {done} {change}", "--overwrite starts over"
                )
        return done, self._remembering(records)

    def _remembering(self, records: Iterator[R]) -> Iterator[R]:
        for record in records:
            self._digests.append(_digest(record))
            yield record

    def write(self, results: Sequence[RecordResult]) -> None:
        """See `Output`."""
        assert self._file is not None, "begin() comes first"
        lines = []
        for result in results:
            digest = self._digests.popleft()
            lines += [mark + digest + line for mark, line in result.lines()]
        with explained(f"cannot write {self.partial}", hint=artifacts.NO_ROOM):
            self._file.write(b"".join(lines))
            self._file.flush()

    def close(self) -> None:
        """See `Output`."""
        if self._file is None:
            return
        is_untouched = self.runtime.world_size == 1 and self.partial.is_file() and not self.partial.stat().st_size
        if is_untouched and not self._is_checked:
            self.partial.unlink()  # this process has made it; the others belong to an interrupted run, or to the user
        elif self._is_complete or is_untouched:
            # Only now: if the process is killed while it makes something of the result, the same line starts there.
            self._remove()
        with suppress(OSError):  # each batch was flushed: an error here was already raised there
            self._file.close()
        self._file = None
        if self._lock is not None:
            self._lock.release()
        if is_untouched:
            for folder in self._new_folders:
                with suppress(OSError):  # it is not empty: somebody else uses it too
                    folder.rmdir()

    def finish(self) -> Tally | None:
        """See `Output`."""
        self.runtime.barrier()
        tally = self._merge() if self.runtime.is_main else None
        self.runtime.barrier()
        return tally

    def _merge(self) -> Tally:
        tally = Tally(observer=self.observer)
        rejected = rejected_file(self.path)
        # If nothing is left, the file that --overwrite would have replaced stays.
        any_kept = any(line.startswith(KEPT) for line in self._lines())
        with ExitStack() as stack:
            paths = [self.path, rejected] if any_kept else [rejected]
            files = [stack.enter_context(stack.enter_context(artifacts.writing(path)).open("wb")) for path in paths]
            for line in self._lines():
                tally.add(line[:1], line[partial_files.HEAD :])
                files[0 if line.startswith(KEPT) else -1].write(line[partial_files.HEAD :])
        if not tally.rejected and not tally.parts:
            rejected.unlink()
        self._is_complete = True
        return tally

    def _lines(self) -> Iterator[bytes]:
        """Yield the lines of all ranks in the order of the input: a batch of each rank in turn."""
        size = self.settings["window"]
        with ExitStack() as stack:
            ranks = self.settings["ranks"]
            paths = [self._partial(rank, ranks) for rank in range(ranks)]
            files = [stack.enter_context(path.open("rb")) for path in paths if path.is_file()]
            while files:
                batches = [list(partial_files.batch(file, size)) for file in files]
                yield from itertools.chain.from_iterable(batches)
                if not all(batches):
                    return


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _digest(record: Record) -> bytes:
    """Return eight digits that change with any key of the record."""
    return b"%08x" % zlib.crc32(repr(record.data).encode("utf-8", "surrogatepass"))
