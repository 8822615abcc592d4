"""`export`: records in the forms that other tools read."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from capivara_cli import artifacts, console, images, records
from capivara_cli.errors import CapivaraError, nearest
from capivara_cli.images import ImageRejected
from capivara_cli.importers.tables import MORE, OWN, kind
from capivara_cli.outputs import REJECTED, SHOWN
from capivara_cli.records import Record

SHARD_SIZE = 10_000  # images in a shard, as img2dataset's and the recipe's shards have
FOLDER_SIZE = 10_000  # files in a folder: more make some file systems slow
SETTINGS = "export.json"


@dataclass
class _Export:
    """One run.

    Attributes:
        lang: language of the one caption that readers of one caption take; None takes any.
        rejected: records that could not be written.
    """

    source: str
    output: Path
    lang: str | None
    shard_size: int
    prefix: str
    overwrite: bool
    strict: bool
    written: int = 0
    rejected: list[dict[str, str]] = field(default_factory=list)

    def records(self) -> Iterator[Record]:
        """The records, with a bar."""
        total = records.count([self.source])
        found = records.stream([self.source]) if total is None else records.read(self.source)
        with console.progress() as bar:
            task = bar.add_task("exporting", total=total)
            for record in found:
                yield record
                bar.update(task, advance=1)

    def content(self, record: Record) -> bytes | None:
        """The image's bytes as they are; None when they cannot be had, which is told at the end."""
        try:
            return images.content(record.image)
        except ImageRejected as error:
            reason = error.message
        except OSError as error:
            reason = "no such file" if isinstance(error, FileNotFoundError) else str(error.strerror or error)
        if self.strict:
            raise CapivaraError(f"{record.where}: {record.image}: {reason}", "without --strict it is left out")
        self.rejected.append({"id": record.id, REJECTED: reason})
        return None

    def text(self, record: Record) -> str | None:
        """The first caption, in the language if one is asked for."""
        texts = (caption for caption in record.captions if REJECTED not in caption)
        return next((each["text"] for each in texts if self.lang in (None, each["lang"])), None)


def export(
    format: str,
    source: str,
    output: Path,
    *,
    lang: str | None = None,
    shard_size: int = SHARD_SIZE,
    prefix: str = "",
    overwrite: bool = False,
    strict: bool = False,
) -> None:
    """Write records in another form. Arguments as `capivara export`.

    Raises:
        CapivaraError: no such format, a place that holds something already, no caption in the language, nothing left,
            or with `strict` an image that cannot be read.
    """
    if format not in FORMATS:
        raise CapivaraError(
            f"the format {format} is not known{nearest(format, list(FORMATS))}", f"one of {', '.join(FORMATS)}"
        )
    if shard_size < 1:
        raise CapivaraError(f"--shard-size {shard_size}: at least 1")
    if "/" in prefix or "\\" in prefix or prefix.startswith("."):
        raise CapivaraError(f"--prefix {prefix}: the beginning of a file's name", "--prefix train-")
    resumes = format == "webdataset" and (output / SETTINGS).is_file()
    if output.exists() and not overwrite and not resumes and not (output.is_dir() and not any(output.iterdir())):
        raise CapivaraError(f"{output} is there already", "--overwrite replaces it")
    if source != "-" and Path(source).exists() and output.exists() and Path(source).samefile(output):
        raise CapivaraError(f"{output} is read and cannot be written too", "-o another place")
    if lang is not None:
        records.count([source], [lang])
    job = _Export(source, output, lang, shard_size, prefix, overwrite, strict)
    FORMATS[format](job)
    _report(job)


def _report(job: _Export) -> None:
    if job.rejected:
        names = "".join(f"\n  {each['id']}: {each[REJECTED]}" for each in job.rejected[:SHOWN])
        left = len(job.rejected) - SHOWN
        names += f"\n  and {left:,} more" if left > 0 else ""
        if not job.written:
            raise CapivaraError(f"nothing was left: {len(job.rejected):,} rejected{names}")
        console.warn(f"{len(job.rejected):,} images left out{names}")
    console.say(f"wrote {job.output}: {job.written:,} {'captions' if job.output.is_file() else 'images'}")


def _webdataset(job: _Export) -> None:
    """Shards of `shard_size` images; each appears whole, so an interrupted export goes on with the next."""
    from webdataset import TarWriter

    settings = {"source": job.source, "lang": job.lang, "shard_size": job.shard_size, "prefix": job.prefix}
    if job.overwrite:
        for path in [*job.output.glob("*.tar"), job.output / SETTINGS]:
            path.unlink(missing_ok=True)
    if (job.output / SETTINGS).is_file() and artifacts.read_json(job.output / SETTINGS) != settings:
        raise CapivaraError(f"{job.output} was begun with other settings", "--overwrite begins anew")
    artifacts.write_json(job.output / SETTINGS, settings)
    artifacts.remove_leftovers(job.output)  # of a shard that a killed process was writing
    samples = _samples(job)
    for number in range(10**9):
        shard = job.output / f"{job.prefix}{number:05d}.tar"
        first = next(samples, None)
        if first is None:
            break
        own = (sample for sample in _part(first, samples, job.shard_size))
        if shard.is_file():
            for _ in own:
                pass
            continue
        with (
            artifacts.writing(shard) as temporary,
            temporary.open("wb") as file,
            # Neither the time nor who wrote it: the same records make the same shards.
            TarWriter(file, encoder=False, mtime=0, user="", group="") as writer,
        ):
            for sample in own:
                writer.write(sample)
    (job.output / SETTINGS).unlink()


def _part(first: dict[str, Any], samples: Iterator[dict[str, Any]], size: int) -> Iterator[dict[str, Any]]:
    yield first
    for _ in range(size - 1):
        sample = next(samples, None)
        if sample is None:
            return
        yield sample


def _samples(job: _Export) -> Iterator[dict[str, Any]]:
    """Image, `.json` with all that the record has, and the `.txt` and `.cls` that other readers look for."""
    for record in job.records():
        content = job.content(record)
        if content is None:
            continue
        data = {
            "id": record.id,
            **{key: value for key, value in record.data.items() if key not in ("image", "file_name")},
        }
        # Keys are numbers: WebDataset ends a key at its first dot, and ids have slashes and what not.
        sample: dict[str, Any] = {"__key__": f"{job.written:09d}", _ending(record, content): content}
        sample["json"] = _json(data).encode("utf-8", "backslashreplace")
        text, label = job.text(record), str(record.data.get("label", ""))
        if text is not None:
            sample["txt"] = text.encode("utf-8", "backslashreplace")
        if label.isdecimal():
            sample["cls"] = label.encode()
        job.written += 1
        yield sample


def _ending(record: Record, content: bytes) -> str:
    """`jpg`, `png` or `webp`, as open_clip's loader knows them; by the content where it says, not by the name."""
    found = kind(content)
    return (found if found != ".img" else Path(record.image.member or record.image.path).suffix.lower()).lstrip(".")


def _image_folder(job: _Export) -> None:
    """Hugging Face's ImageFolder: images, and `metadata.jsonl` with all that the records have."""
    if job.output.is_dir() and any(job.output.iterdir()) and not (job.output / "metadata.jsonl").is_file():
        raise CapivaraError(f"{job.output} holds something else than an ImageFolder", "-o another folder")
    with artifacts.writing(job.output) as temporary:
        temporary.mkdir()
        with (temporary / "metadata.jsonl").open("w", encoding="utf-8", errors="backslashreplace") as file:
            for record in job.records():
                content = job.content(record)
                if content is None:
                    continue
                folder = f"{job.written // FOLDER_SIZE:05d}"
                name = f"{folder}/{job.prefix}{job.written:09d}.{_ending(record, content)}"
                (temporary / folder).mkdir(exist_ok=True)
                (temporary / name).write_bytes(content)
                data = {key: value for key, value in record.data.items() if key not in ("image", "file_name", "id")}
                text = job.text(record)
                head = {"file_name": name, "id": record.id} | ({"text": text} if text is not None else {})
                file.write(_json(head | data) + "\n")
                job.written += 1


def _table(job: _Export) -> None:
    """A row for each caption; open_clip's trainer reads `filepath` and `title`."""
    columns = ["filepath", "title", "lang", "id", "label", *OWN, MORE]
    delimiter = "\t" if job.output.suffix == ".tsv" else ","
    folder = job.output.absolute().parent
    with (
        artifacts.writing(job.output) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        writer, careful = (
            csv.DictWriter(file, columns, delimiter=delimiter, lineterminator="\n", quoting=quoting)
            for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)
        )
        writer.writeheader()
        for record in job.records():
            data = record.for_folder(folder)
            head = {"filepath": data.get("image") or data["file_name"], "id": data["id"], "label": data.get("label")}
            known = ("image", "file_name", "id", "captions") + (
                ("label",) if isinstance(data.get("label"), str) else ()
            )
            rest = {key: value for key, value in data.items() if key not in known}
            own: list[dict[str, Any] | None] = [*_in_language(record.captions, job.lang)] or [None]
            for number, caption in enumerate(own):
                row: dict[str, Any] = dict(head)
                more = {"record": rest} if rest and number == 0 else {}
                if caption is not None:
                    row |= {"title": caption["text"], "lang": caption["lang"]}
                    # What is written as it is must be read back as it was.
                    plain = {key: caption[key] for key in OWN if _is_plain(key, caption.get(key))}
                    row |= plain
                    odd = {key: value for key, value in caption.items() if key not in ("text", "lang", *plain)}
                    more |= {"caption": odd} if odd else {}
                row[MORE] = _json(more) if more else None
                odd_end = any("\r" in value for value in row.values() if isinstance(value, str))
                (careful if odd_end else writer).writerow(row)  # the csv module does not see that "\r" wants quotes
                job.written += caption is not None


def _in_language(captions: list[dict[str, Any]], lang: str | None) -> list[dict[str, Any]]:
    if lang is None:
        return captions
    return records.without(captions, [i for i, caption in enumerate(captions) if caption["lang"] == lang])


def _is_plain(key: str, value: Any) -> bool:
    if key in ("parent", "score"):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, str) and bool(value)


def _lines(job: _Export) -> None:
    """A caption a line, for people or services that translate; `capivara import --translations` takes them back."""
    if job.lang is None:
        raise CapivaraError("captions.txt is of one language", "--lang en")
    with (
        artifacts.writing(job.output) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file,
    ):
        for record in job.records():
            for caption in record.captions:
                if caption["lang"] == job.lang:
                    file.write(" ".join(caption["text"].split()) + "\n")
                    job.written += 1


_json: Callable[[Any], str] = partial(json.dumps, ensure_ascii=False)

FORMATS: dict[str, Callable[[_Export], None]] = {
    "webdataset": _webdataset,
    "imagefolder": _image_folder,
    "csv": _table,
    "captions.txt": _lines,
}
