"""WebDataset shards: each appears whole, and an interrupted export goes on with the next."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from capivara_cli import artifacts
from capivara_cli.data.records import Record, to_json
from capivara_cli.errors import CapivaraError

if TYPE_CHECKING:
    from capivara_cli.exporting.export import Export

PROGRESS = "export.json"  # of an export that is not done: its settings, and what is in which shard
SIZES = "sizes.json"  # shard -> images, where open_clip's trainer looks for them
OWN = rf"(\.?{{prefix}}\d{{{{5,}}}}\.tar(\.\d+\.tmp)?|\.?({re.escape(PROGRESS)}|{re.escape(SIZES)})(\.\d+\.tmp)?)"


def write(job: Export) -> None:
    """Write shards of `shard_size` images.

    Raises CapivaraError when another process is writing there, when an interrupted export had other settings or
    records, or when nothing is left.
    """
    from webdataset import TarWriter

    settings = {"source": job.source, "lang": job.lang, "shard_size": job.shard_size, "prefix": job.prefix}
    new = not job.output.exists()
    artifacts.make_folder(job.output)
    folder = os.open(job.output, os.O_RDONLY)
    try:
        if not artifacts.lock(folder):
            raise CapivaraError(f"{job.output} is being written by another process", "-o another folder")
        progress = _begun(job, settings)
        artifacts.remove_leftovers(job.output)  # of a shard that a killed process was writing
        found = _Counted(job.records())
        sizes: dict[str, int] = progress["sizes"]
        _pass_over(job, found, progress)
        samples = _samples(job, found)
        artifacts.write_json(job.output / PROGRESS, progress)
        while (first := next(samples, None)) is not None:
            shard = job.output / f"{job.prefix}{len(sizes):05d}.tar"
            before = job.images - 1
            with (
                artifacts.writing(shard) as temporary,
                temporary.open("wb") as file,
                # Neither the time nor who wrote it: the same records make the same shards.
                TarWriter(file, encoder=False, mtime=0, user="", group="") as writer,
            ):
                for sample in _part(first, samples, job.shard_size):
                    writer.write(sample)
            sizes[shard.name] = job.images - before
            counts = {"records": job.seen, "digest": found.digest, "rejected": job.rejected, "first": job.first}
            artifacts.write_json(job.output / PROGRESS, progress | counts)
        if not sizes:
            (job.output / PROGRESS).unlink()
            if new:
                job.output.rmdir()
            job.check_written(0)
        artifacts.write_json(job.output / SIZES, sizes)
        for path in job.output.glob("*.tar"):  # of an export that was larger
            if path.name not in sizes:
                path.unlink()
        (job.output / PROGRESS).unlink()
    finally:
        os.close(folder)


class _Counted:
    """Records, and a digest of all that came so far."""

    def __init__(self, found: Iterator[Record]) -> None:
        self.found = found
        self.digest = 0

    def __iter__(self) -> Iterator[Record]:
        for record in self.found:
            self.digest = zlib.crc32(repr(record.data).encode("utf-8", "surrogatepass"), self.digest)
            yield record


def _begun(job: Export, settings: dict[str, Any]) -> dict[str, Any]:
    """What an interrupted export left, or an empty beginning."""
    path = job.output / PROGRESS
    empty = {"settings": settings, "sizes": {}, "records": 0, "digest": 0, "rejected": 0, "first": []}
    if job.overwrite or not path.is_file():
        return empty
    progress: dict[str, Any] = artifacts.read_json(path)
    if progress["settings"] != settings:
        raise CapivaraError(f"{job.output} was begun with other settings", "--overwrite begins anew")
    return progress


def _pass_over(job: Export, found: _Counted, progress: dict[str, Any]) -> None:
    """Skip the records of the shards that are there."""
    own = iter(found)
    for _ in range(progress["records"]):
        next(own, None)
    there = all((job.output / name).is_file() for name in progress["sizes"])
    if not there or found.digest != progress["digest"]:
        raise CapivaraError(f"{job.output} was begun with other records", "--overwrite begins anew")
    job.images, job.rejected, job.first = sum(progress["sizes"].values()), progress["rejected"], progress["first"]


def _part(first: dict[str, Any], samples: Iterator[dict[str, Any]], size: int) -> Iterator[dict[str, Any]]:
    yield first
    for _ in range(size - 1):
        sample = next(samples, None)
        if sample is None:
            return
        yield sample


def _samples(job: Export, found: _Counted) -> Iterator[dict[str, Any]]:
    """Image, `.json` with all that the record has, and the `.txt` and `.cls` that other readers look for."""
    for record in found:
        content = job.content(record)
        if content is None:
            continue
        rest = {key: value for key, value in record.data.items() if key not in ("image", "file_name")}
        data = {"id": record.id, "captions": [], **rest}
        # Keys are numbers: WebDataset ends a key at its first dot, and ids have slashes and what not.
        sample: dict[str, Any] = {"__key__": f"{job.images:09d}", content[1].lstrip("."): content[0]}
        sample["json"] = to_json(data).encode("utf-8", "backslashreplace")
        text, label = job.text(record), str(record.data.get("label", ""))
        if text is not None:
            sample["txt"] = text.encode("utf-8", "backslashreplace")
        if label.isdecimal():
            sample["cls"] = label.encode()
        job.images += 1
        job.captions += len(record.captions)
        yield sample
