"""Runs that write a file of records, and stop where they should."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from capivara_cli.data.images import ImageRef
from capivara_cli.data.output import UNDECIDED, Output, RecordResult, Tally
from capivara_cli.data.pipeline import batched
from capivara_cli.data.records import Record
from capivara_cli.data.resumable import open_output
from capivara_cli.runtime import Runtime

SETTINGS = {"model": "m", "prefixes": ["a photo of"]}
ONE = Runtime("cpu", "fp32")


def records(count: int = 11) -> Iterator[Record]:
    for number in range(count):
        yield Record({"id": f"n{number}", "image": f"{number}.png"}, f"in.jsonl:{number + 1}", ImageRef("/x"))


def work(record: Record) -> RecordResult:
    """Every third record is rejected, and every fifth has a part that is."""
    number = int(record.id[1:])
    if number % 3 == 1:
        return RecordResult(record.data, "not an image")
    part = {"id": record.id, "rejected": "empty", "text": "ए"}
    return RecordResult(record.data | {"text": "ओ\n\u2028"}, parts=(part, part) if number % 5 == 0 else ())


def run(
    path: Path | None,
    *,
    stop: int | None = None,
    overwrite: bool = False,
    count: int = 11,
    window: int = 3,
    **settings: Any,
) -> Tally | None:
    """Work through the records; stop before a batch as if killed, or after the last one if there are no more."""
    with open_output(path, SETTINGS | settings, ONE, overwrite=overwrite) as out:
        out.begin(window, **{key: window for key, value in settings.items() if value is UNDECIDED})
        _, todo = out.skip_done(records(count))
        for number, batch in enumerate(batched(todo, window)):
            if number == stop:
                return None
            out.write([work(record) for record in batch])
        return out.finish() if stop is None else None


def both(path: Path) -> tuple[bytes, bytes]:
    """Return what is in FILE and in its FILE.rejected.jsonl."""
    return path.read_bytes(), path.with_name(f"{path.name}.rejected.jsonl").read_bytes()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def begun(path: Path, *, overwrite: bool = False) -> Output:
    out = open_output(path, SETTINGS, ONE, overwrite=overwrite)
    out.begin(3)
    return out


def put(out: Output, *results: RecordResult) -> None:
    """Write the results of records that have their ids."""
    _, todo = out.skip_done(Record({"id": result.data["id"], "image": "x"}, "", ImageRef("/x")) for result in results)
    out.write([result for result, _ in zip(results, todo, strict=True)])
