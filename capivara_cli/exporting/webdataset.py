"""WebDataset shards, written shard by shard, so that an interrupted export is resumed.

The shards of `-o FOLDER` are written to FOLDER.partial, which becomes FOLDER at the end. FOLDER.partial.json says which
shards are done.
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

from capivara_cli import artifacts
from capivara_cli.data.output import raise_if_empty
from capivara_cli.data.records import Record, to_json
from capivara_cli.errors import CapivaraError
from capivara_cli.exporting.job import ExportJob

SIZES = "sizes.json"  # shard -> images; open_clip's trainer reads it


def names(prefix: str) -> str:
    """Return a pattern of the names in the folder, and of temporary files in FOLDER.partial."""
    return rf"\.?({re.escape(prefix)}\d{{5,}}\.tar|{re.escape(SIZES)})(\.\d+\.tmp)?"


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
    artifacts.make_folder(partial)
    with _locked(partial, job.output):
        records = _Counted(job.records())
        sizes = _resume(job, records, partial, progress_file)
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
            artifacts.write_json(progress_file, _progress(job, records, sizes))
        raise_if_empty(job.tally, None)
        artifacts.write_json(partial / SIZES, sizes)
        artifacts.swap_in(partial, job.output.resolve())
        progress_file.unlink()


@contextmanager
def _locked(partial: Path, output: Path) -> Iterator[None]:
    folder = os.open(partial, os.O_RDONLY)
    try:
        if not artifacts.lock(folder):
            raise CapivaraError(f"{output} is being written by another process", "-o another folder")
        yield
    finally:
        os.close(folder)
        with suppress(OSError):
            partial.rmdir()  # if it is empty: nothing was done, so nothing is left behind


class _Counted:
    """Counts the records that are read, and digests them."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.count = 0
        self.digest = 0
        self._records = iter(records)

    def __iter__(self) -> Iterator[Record]:
        for record in self._records:
            self.count += 1
            self.digest = zlib.crc32(repr(record.data).encode("utf-8", "surrogatepass"), self.digest)
            yield record


def _progress(job: ExportJob, records: _Counted, sizes: dict[str, int]) -> dict[str, Any]:
    return {
        "settings": {"source": job.source, **job.options.settings()},
        "sizes": sizes,
        "records": records.count,
        "digest": records.digest,
        "rejected": job.tally.rejected,
        "first": job.tally.first,
    }


def _resume(job: ExportJob, records: _Counted, partial: Path, progress_file: Path) -> dict[str, int]:
    """Skip the records of the shards that are done, and return the sizes of these shards; or start over."""
    progress = artifacts.read_json(progress_file) if progress_file.is_file() else None
    if progress is None or job.options.overwrite or not all((partial / name).is_file() for name in progress["sizes"]):
        progress_file.unlink(missing_ok=True)
        for path in partial.iterdir():
            path.unlink()
        return {}
    if progress["settings"] != _progress(job, records, {})["settings"]:
        raise CapivaraError(f"{job.output} was begun with other settings", "--overwrite starts over")
    artifacts.remove_leftovers(partial)  # of the shard that was being written
    for _ in itertools.islice(records, progress["records"]):
        pass
    if records.digest != progress["digest"]:
        raise CapivaraError(f"{job.output} was begun with other records", "--overwrite starts over")
    sizes: dict[str, int] = progress["sizes"]
    job.tally.kept, job.tally.rejected, job.tally.first = sum(sizes.values()), progress["rejected"], progress["first"]
    return sizes


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
