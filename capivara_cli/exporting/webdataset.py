"""WebDataset shards, written shard by shard, so that an interrupted export is resumed.

The shards of `-o FOLDER` are written to FOLDER.partial, which becomes FOLDER at the end. FOLDER.partial.json says how
many shards are done.
"""

from __future__ import annotations

import itertools
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from capivara_cli import artifacts, locks
from capivara_cli.data.output import raise_if_empty
from capivara_cli.data.records import Record, to_json
from capivara_cli.errors import CapivaraError
from capivara_cli.exporting.job import ExportJob
from capivara_cli.folders import MARKER, FolderKind, marker_text

SIZES = "sizes.json"  # shard -> images; open_clip's trainer reads it


def kind(prefix: str) -> FolderKind:
    """Return the kind of the folder, for shards of this prefix."""
    return FolderKind("WebDataset export", rf"{re.escape(prefix)}\d{{5,}}\.tar|{re.escape(SIZES)}", required=(SIZES,))


def partial_folder(output: Path) -> Path:
    """Return where shards are until the export is complete."""
    path = output.resolve()  # of a link to a folder, the folder is replaced and the link stays
    return path.with_name(f"{path.name}.partial")


def write(job: ExportJob) -> None:
    """Write shards of `shard_size` images.

    Raises CapivaraError when another process is writing there, when an interrupted export had other settings or
    records, or when nothing is left.
    """
    from webdataset import TarWriter

    partial = partial_folder(job.output)
    progress_file = partial.with_name(f"{partial.name}.json")
    sizes: dict[str, int] = {}
    settings = {"source": job.source, **job.options.settings()}
    progress: dict[str, Any] = {"settings": settings, "sizes": sizes, "records": 0, "digest": 0}
    artifacts.make_folder(partial)
    with _locked(partial, job.output):
        records = _counting(job.records(), progress)
        _resume(job, records, progress, partial, progress_file)
        samples = _samples(job, records)
        for first in samples:
            shard = partial / f"{job.options.prefix}{len(sizes):05d}.tar"
            before = job.tally.kept - 1
            with (
                artifacts.writing(shard) as temporary,
                temporary.open("wb") as file,
                # No time and no user, so that the same records make the same shards.
                TarWriter(file, encoder=False, mtime=0, user="", group="") as writer,
            ):
                for sample in itertools.chain([first], itertools.islice(samples, job.options.shard_size - 1)):
                    writer.write(sample)
            sizes[shard.name] = job.tally.kept - before
            progress |= {"rejected": job.tally.rejected, "first": job.tally.first}
            artifacts.write_json(progress_file, progress)
        raise_if_empty(job.tally, None)
        artifacts.write_json(partial / SIZES, sizes)
        artifacts.write_text(partial / MARKER, marker_text(kind(job.options.prefix)))
        output = job.output.resolve()
        # First another name: if this process is killed when both are exchanged, PARTIAL must not be the old export.
        complete = output.with_name(f".{output.name}.{os.getpid()}.tmp")
        os.replace(partial, complete)
        progress_file.unlink()
        artifacts.swap_in(complete, output)


@contextmanager
def _locked(partial: Path, output: Path) -> Iterator[None]:
    lock = locks.acquire(partial)
    if lock is None:
        raise CapivaraError(f"{output} is being written by another process", "-o another folder")
    try:
        yield
    finally:
        lock.release()
        with suppress(OSError):
            partial.rmdir()  # if it is empty: nothing was done, so nothing is left behind


def _counting(records: Iterator[Record], progress: dict[str, Any]) -> Iterator[Record]:
    """Yield the records; `progress` has the number and a digest of those that were read."""
    for record in records:
        progress["records"] += 1
        progress["digest"] = zlib.crc32(repr(record.data).encode("utf-8", "surrogatepass"), progress["digest"])
        yield record


def _resume(
    job: ExportJob, records: Iterator[Record], progress: dict[str, Any], partial: Path, progress_file: Path
) -> None:
    """Skip the records of the shards that are done; or start over."""
    artifacts.remove_stale(progress_file)
    begun = artifacts.read_json(progress_file) if progress_file.is_file() else {"sizes": {}}
    sizes = begun["sizes"]
    if job.options.overwrite or not sizes or not all((partial / name).is_file() for name in sizes):
        progress_file.unlink(missing_ok=True)
        for path in partial.iterdir():
            path.unlink()
        return
    if begun["settings"] != progress["settings"]:
        raise CapivaraError(f"{job.output} was begun with other settings", "--overwrite starts over")
    artifacts.remove_leftovers(partial)  # of the shard that was being written
    for _ in itertools.islice(records, begun["records"]):
        pass
    if progress["digest"] != begun["digest"]:
        raise CapivaraError(f"{job.output} was begun with other records", "--overwrite starts over")
    progress["sizes"] |= sizes
    job.tally.kept, job.tally.rejected, job.tally.first = sum(sizes.values()), begun["rejected"], begun["first"]


def _samples(job: ExportJob, records: Iterable[Record]) -> Iterator[dict[str, Any]]:
    """Yield the image, `.json` with all that the record has, and the `.txt` and `.cls` that other readers look for."""
    for record, content, extension in job.with_images(records):
        rest = {key: value for key, value in record.data.items() if key not in ("image", "file_name")}
        data = {"id": record.id, "captions": [], **rest}
        # Keys are numbers, because WebDataset cuts a key at its first dot, and an id may have dots and slashes.
        sample: dict[str, Any] = {"__key__": f"{job.tally.kept - 1:09d}", extension.lstrip("."): content}
        sample["json"] = to_json(data).encode("utf-8", "backslashreplace")
        text, label = job.first_text(record), str(record.data.get("label", ""))
        if text is not None:
            sample["txt"] = text.encode("utf-8", "backslashreplace")
        if label.isdecimal():
            sample["cls"] = label.encode()
        yield sample
