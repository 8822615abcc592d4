"""`import`: read a data set of any format, check its images, and write records."""

from __future__ import annotations

import hashlib
import itertools
import os
import shlex
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from capivara_cli import console
from capivara_cli.data import images, pipeline
from capivara_cli.data.captions import problem_of, with_keys
from capivara_cli.data.images import ImageRef, ImageRejected
from capivara_cli.data.languages import LIST_HINT, bcp47, find, suggestion
from capivara_cli.data.loading import load_images
from capivara_cli.data.output import RecordResult, check_json, check_not_a_source, report
from capivara_cli.data.readers.formats import Format, WrongFormat, check_options, choose, guess
from capivara_cli.data.readers.rows import Row, join
from capivara_cli.data.readers.tables import write_images
from capivara_cli.data.records import Record
from capivara_cli.data.resumable import open_output
from capivara_cli.data.spill import Spill
from capivara_cli.errors import CapivaraError
from capivara_cli.importing.formats import FORMATS
from capivara_cli.importing.options import ImportOptions
from capivara_cli.importing.summary import Summary
from capivara_cli.importing.translations import Translations
from capivara_cli.runtime import Runtime

WINDOW = 1024  # records per batch
_RECORD_KEYS = ("id", "image", "file_name", "captions", "rejected")


@dataclass(frozen=True, slots=True)
class Item(Record):
    """A record, or what should have become one.

    Attributes:
        problem: why it is not a record.
    """

    problem: str | None = None


def import_data(sources: Sequence[str | Path], output: str | Path | None, options: ImportOptions) -> None:
    """Read sources of any format, and write records.

    Args:
        sources: files, folders, or brace patterns of shards, all of one format.
        output: JSONL file to write; None is standard output. An interrupted run is resumed.
        options: see `ImportOptions`.

    Raises:
        CapivaraError: a source that is not of the format, other settings than those the output was begun with,
            nothing left, or with `strict` something that cannot be used.
    """
    names = [str(source) for source in sources]
    path = Path(output) if output is not None else None
    _check_files(names, path, options)
    name = options.format or choose(names, options, FORMATS)
    format_ = FORMATS[name]
    check_options(name, format_, options)
    if options.format is None:
        console.say(f"reading {name}: {format_.description}")
    # --images may also name the folder to which the images inside a table are written.
    if options.images is not None and not options.images.is_dir() and name not in ("parquet", "huggingface"):
        raise CapivaraError(f"--images {options.images}: no such folder", "the folder that has the annotated images")
    extracted = options.images
    if extracted is None and path is not None and str(path) != "-":
        extracted = path.with_name(f"{path.stem}-images")
    translations = _translations(options)
    settings = options.settings() | {"sources": names, "format": name}
    job = _ImportJob(options)
    runtime = Runtime("cpu", "fp32")
    with open_output(path, settings, runtime, overwrite=options.overwrite, observer=job.summary) as out:
        out.begin(WINDOW)
        job.folder = out.folder
        items = job.watch(_unique(_items(_rows(names, format_, options, translations, extracted))))
        try:
            tally = pipeline.run(job, items, out, runtime, window=WINDOW, total=None, live=False)
        except WrongFormat as error:
            raise _looks_like(error) from error
    if translations is not None:
        translations.report()
    if tally is not None:
        job.summary.show(path, verified=options.verify and not job.skipped)  # the sizes of all, or none
        report(tally, path, summary=job.summary.as_json() if options.json else None)


def _check_files(sources: Sequence[str], path: Path | None, options: ImportOptions) -> None:
    """Raise CapivaraError for what is known to be wrong before anything is read."""
    if find(options.lang) is None:
        raise CapivaraError(f"--lang {options.lang}: not a language{suggestion(options.lang)}", LIST_HINT)
    for source in sources:
        file = Path(source)
        if not file.exists() and "{" not in source:
            raise CapivaraError(f"{source}: no such file")
        if file.exists() and not file.is_file() and not file.is_dir():
            raise CapivaraError(f"{source} is not a file", "a pipe can be read only once: save it first")
    check_json(options, path)
    check_not_a_source([*sources, *([options.translations] if options.translations else [])], path)


def _translations(options: ImportOptions) -> Translations | None:
    """Return the file of translations. Raises CapivaraError if it or its language is missing or wrong."""
    file, to = options.translations, options.to
    if file is None and to is None:
        return None
    if file is None or to is None:
        raise CapivaraError("--translations FILE and --to LANG belong together")
    if not file.is_file():
        raise CapivaraError(f"{file}: no such file")
    if to == options.lang:
        raise CapivaraError(f"--to {to}: the language is the captions' own (--lang)", "--to hi")
    if find(to) is None:
        raise CapivaraError(f"--to {to}: not a language{suggestion(to)}", LIST_HINT)
    return Translations(file, options.lang, to, options.encoding)


def _looks_like(error: WrongFormat) -> CapivaraError:
    """Return the error with the format that the source looks like."""
    name = guess(error.path, FORMATS)
    if name in (None, error.format):
        return error
    return CapivaraError(
        f"{error.message}: it looks like {name}", f"capivara import --format {name} {shlex.quote(str(error.path))}"
    )


def _rows(
    sources: Sequence[str], format_: Format, options: ImportOptions, added: Translations | None, extracted: Path | None
) -> Iterator[Row]:
    """Yield all rows, those of one image joined, with translations.

    Args:
        extracted: folder for images that are inside a table.
    """
    read = itertools.chain.from_iterable(format_.read(Path(source), options) for source in sources)
    rows = write_images(read, extracted)
    if added is not None and added.by_line:
        rows = added.to_lines(rows)
    # A file of lines that turns out too short or too long must be known before the first record is written.
    if format_.scattered or added is not None:
        rows = join(rows, scattered=format_.scattered)
    if added is not None:
        rows = added.add_lines(rows) if added.by_line else added.by_key(rows)
    return rows


def _items(rows: Iterable[Row]) -> Iterator[Item]:
    folder = Path.cwd()
    for row in rows:
        image = _as_on_disk(row.image or row.key or row.where)
        data: dict[str, Any] = {"id": row.id or row.key or row.where, "image": image}
        problem = row.problem or problem_of(row.captions)
        if row.captions:
            captions = row.captions if problem else [with_keys(c, lang=bcp47(c["lang"])) for c in row.captions]
            data["captions"] = list(captions)
        for key, value in row.extra.items():
            data[f"{key}_" if key in _RECORD_KEYS else key] = value  # a column of a name that means something else here
        yield Item(data, row.where, ImageRef.parse(image, folder), problem)


def _as_on_disk(name: str) -> str:
    """Return the name in the Unicode normal form of the file: macOS decomposes what others compose."""
    path, tar, member = name.partition(".tar#")
    path += ".tar" if tar else ""
    if name.isascii() or os.path.exists(path):
        return name
    for form in (unicodedata.normalize("NFC", path), unicodedata.normalize("NFD", path)):
        if os.path.exists(form):
            path = form
            break
    return f"{path}#{member}" if tar else path


def _unique(items: Iterable[Item]) -> Iterator[Item]:
    """Yield the items; one whose id was seen before gets that as its problem."""
    with Spill() as seen:
        for item in items:
            first = seen.setdefault(item.id, item.where) if item.problem is None else None
            yield item if first is None else replace(item, problem=f"{item.where}: its id is that of {first} too")


@dataclass
class _ImageCheck:
    """What was found out about an image.

    Attributes:
        problem: why it cannot be used.
        size: width and height in pixels.
        digest: of the file's content.
    """

    problem: str | None = None
    size: tuple[int, int] | None = None
    digest: str | None = None


def _check_image(ref: ImageRef, *, verify: bool, dedupe: bool) -> _ImageCheck:
    """Check an image, in a worker process. Never raises; problems are in the returned object."""
    check = _ImageCheck()
    try:
        if dedupe:
            check.digest = hashlib.blake2b(images.content(ref), digest_size=16).hexdigest()
        if verify:
            check.size = images.load(ref).size
        if not dedupe and not verify:
            images.check(ref)
    except ImageRejected as error:
        check.problem = error.message
    return check


class _ImportJob(pipeline.Job[Item]):
    """Check the images of items.

    Attributes:
        folder: of the output.
        skipped: items that an interrupted run has written.
    """

    label = "importing"
    columns = ()

    def __init__(self, options: ImportOptions) -> None:
        self.options = options
        self.folder = Path()
        self.check = partial(_check_image, verify=options.verify, dedupe=options.dedupe)
        self.summary = Summary()
        self.skipped = 0
        self._resuming = True
        self._contents = Spill()  # digest of an image's content -> id of the first item that has it

    def watch(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the items. Those that an interrupted run has written are counted, and their images looked at again."""
        for item in items:
            if self._resuming:
                self.skipped += 1
                if self.options.dedupe and item.problem is None:
                    self._duplicate(item, self.check(item.image))
            yield item

    def process(self, batches: Iterator[list[Item]], expected: int | None) -> Iterator[list[RecordResult]]:
        """See `pipeline.Job`."""
        self._resuming = False
        for items, checks in self._checked(batches, expected):
            yield [self._result(item, check) for item, check in zip(items, checks, strict=True)]

    def _checked(
        self, batches: Iterator[list[Item]], expected: int | None
    ) -> Iterator[tuple[list[Item], list[_ImageCheck]]]:
        """Check the images of batches; on all cores if they are opened."""
        if not self.options.verify and not self.options.dedupe:
            for items in batches:
                yield items, [_ImageCheck() if item.problem else self.check(item.image) for item in items]
            return
        for batch in load_images(batches, _image_to_check, self.check, expected, self.options.workers):
            checks = dict(zip(batch.rows, batch.values, strict=True))
            yield batch.items, [checks.get(i, _ImageCheck()) for i in range(len(batch.items))]

    def _result(self, item: Item, check: _ImageCheck) -> RecordResult:
        data = item.for_folder(self.folder)
        problem = item.problem or self._duplicate(item, check) or check.problem
        if problem is None:
            self.summary.add_size(check.size)
        elif self.options.strict:
            raise CapivaraError(f"{item.where}: {item.id}: {problem}", "without --strict it is left out")
        return RecordResult(data, problem)

    def _duplicate(self, item: Item, check: _ImageCheck) -> str | None:
        """Return the reason for rejecting a duplicate image, or None."""
        first = self._contents.setdefault(check.digest, item.id) if check.digest is not None else None
        return None if first is None else f"the same image as {first}"


def _image_to_check(item: Item) -> ImageRef | None:
    return None if item.problem else item.image
