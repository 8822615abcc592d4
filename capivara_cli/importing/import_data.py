"""`import`: any data set as records, each checked, and what is wrong with the others said by name."""

from __future__ import annotations

import hashlib
import itertools
import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from capivara_cli import console
from capivara_cli.data import images
from capivara_cli.data.captions import is_caption
from capivara_cli.data.images import ImageRef, ImageRejected
from capivara_cli.data.languages import find, table
from capivara_cli.data.loading import load_images
from capivara_cli.data.output import Output, RecordResult, Tally, check_not_read, report
from capivara_cli.data.pipeline import batched
from capivara_cli.data.readers.formats import choose
from capivara_cli.data.readers.rows import Options, Row, join
from capivara_cli.data.records import Record
from capivara_cli.data.resumable import open_output
from capivara_cli.data.spill import Spill
from capivara_cli.errors import CapivaraError, nearest
from capivara_cli.importing.formats import FORMATS, guess
from capivara_cli.importing.summary import Summary
from capivara_cli.importing.translations import Translations
from capivara_cli.runtime import Runtime

WINDOW = 1024  # records at once
_RECORDS = ("id", "image", "file_name", "captions", "rejected")  # keys of a record


@dataclass(frozen=True, slots=True)
class Item(Record):
    """A record, or what should have become one.

    Attributes:
        problem: why it is none.
    """

    problem: str | None = None


def import_data(
    sources: Sequence[str],
    output: Path | None = None,
    *,
    format: str | None = None,
    images: Path | None = None,
    split: str | None = None,
    lang: str = "en",
    column: Sequence[str] = (),
    labels: bool | None = None,
    translations: Path | None = None,
    to: str | None = None,
    encoding: str | None = None,
    verify: bool = False,
    dedupe: bool = False,
    workers: int | None = None,
    strict: bool = False,
    overwrite: bool = False,
) -> None:
    """Read sources of a foreign format and write records. Arguments as `capivara import`.

    Raises:
        CapivaraError: a source that is not of the format, another setting than the output was begun with, nothing
            left, or with `strict` something that cannot be used.
    """
    asked = _options(output, images, split, lang, column, labels, encoding)
    if format is not None and format not in FORMATS:
        raise CapivaraError(
            f"the format {format} is not known{nearest(format, list(FORMATS))}", "capivara import --formats lists them"
        )
    for source in sources:
        if not Path(source).exists() and "{" not in source:
            raise CapivaraError(f"{source}: no such file")
        if Path(source).exists() and not Path(source).is_file() and not Path(source).is_dir():
            raise CapivaraError(f"{source} is no file", "a pipe can be read once only: save it first")
    check_not_read([*sources, *([translations] if translations else [])], output)
    chosen = choose(list(sources), format, asked, guess)
    given = {"images": images, "split": split, "column": column, "labels": labels is not None, "encoding": encoding}
    FORMATS[chosen].refuse(chosen, given)
    if images is not None and not images.is_dir() and chosen not in ("parquet", "huggingface"):  # which put some there
        raise CapivaraError(f"--images {images}: no such folder", "the folder of the images that the annotations name")
    if format is None:
        console.say(f"reading {chosen}: {FORMATS[chosen].what}")
    added = None
    if (translations is None) != (to is None):
        raise CapivaraError("--translations FILE and --to LANG belong together")
    if translations is not None and to is not None:
        if not translations.is_file():
            raise CapivaraError(f"{translations}: no such file")
        if find(to) is None or to == lang:
            reason = "is the captions' own (--lang)" if to == lang else f"is not known{nearest(to, list(table()))}"
            raise CapivaraError(f"--to {to}: the language {reason}", "--to hi")
        added = Translations(translations, to, asked)
    settings = {
        "sources": list(sources),
        "format": chosen,
        "images": str(images) if images else None,
        "split": split,
        "lang": lang,
        "column": list(column),
        "labels": labels,
        "translations": str(translations) if translations else None,
        "to": to,
        "encoding": encoding,
        "verify": verify,
        "dedupe": dedupe,
    }
    job = _Job(verify=verify, dedupe=dedupe, strict=strict, workers=workers)
    with open_output(output, settings, Runtime("cpu", "fp32"), overwrite=overwrite, observer=job.summary) as out:
        out.begin(WINDOW)
        items = _unique(_items(_rows(sources, chosen, asked, added)))
        tally = job.run(items, out)
    if added is not None:
        added.report()
    if tally is not None:
        job.summary.show(output, verified=verify and not job.begun)  # the sizes of all, or none
        report(tally, output)


def _options(
    output: Path | None,
    folder: Path | None,
    split: str | None,
    lang: str,
    column: Sequence[str],
    labels: bool | None,
    encoding: str | None,
) -> Options:
    """What the readers are told. Raises CapivaraError for what can be known to be wrong at once."""
    if find(lang) is None:
        raise CapivaraError(f"the language {lang} is not known", "capivara translate --languages lists them")
    columns = {}
    for given in column:
        what, equals, name = given.partition("=")
        if not equals or not what or not name:
            raise CapivaraError(f"--column {given}: not WHAT=COLUMN", "--column image=path --column hi=caption_hi")
        columns[what] = name
    named = output is not None and str(output) != "-"
    extracted = folder or (output.with_name(f"{output.stem}-images") if output is not None and named else None)
    return Options(folder, split, lang, columns, labels, encoding, extracted)


def _rows(sources: Sequence[str], format: str, asked: Options, added: Translations | None) -> Iterator[Row]:
    """All rows, those of one image put together, with translations."""
    chosen = FORMATS[format]
    rows: Iterable[Row] = itertools.chain.from_iterable(chosen.read(Path(source), asked) for source in sources)
    if added is not None and added.by_line:
        rows = added.to_lines(iter(rows))
    # A file of lines that turns out too short or too long must be known before the first record is written.
    if chosen.scattered or added is not None:
        rows = join(rows, scattered=chosen.scattered)
    if added is not None:
        rows = added.expand(rows) if added.by_line else added.by_key(rows)
    return iter(rows)


def _items(rows: Iterable[Row]) -> Iterator[Item]:
    folder = Path.cwd()
    for row in rows:
        image = _as_on_disk(row.image or row.key or row.where)
        data: dict[str, Any] = {"id": row.id or row.key or row.where, "image": image}
        if row.captions:
            data["captions"] = list(row.captions)
        # A column of a name that a record has another use for.
        rest = {f"{key}_" if key in _RECORDS else key: value for key, value in row.extra.items()}
        problem = row.problem
        if problem is None and not all(map(is_caption, row.captions)):
            problem = "a caption without a text or a language"
        yield Item(data | rest, row.where, ImageRef.parse(image, folder), problem)


def _as_on_disk(name: str) -> str:
    """The name in the normal form that the file has: macOS decomposes what others compose."""
    path, tar, member = name.partition(".tar#")
    path += ".tar" if tar else ""
    if name.isascii() or os.path.exists(path):
        return name
    forms = [unicodedata.normalize("NFC", path), unicodedata.normalize("NFD", path)]
    found = next((form for form in forms if os.path.exists(form)), path)
    return f"{found}#{member}" if tar else found


def _unique(items: Iterable[Item]) -> Iterator[Item]:
    """The same items; one whose id came before has that as its problem."""
    with Spill() as seen:
        for item in items:
            first = seen.setdefault(item.id, item.where) if item.problem is None else None
            yield item if first is None else replace(item, problem=f"{item.where}: its id is that of {first} too")


@dataclass
class _Found:
    """What was found out about an image.

    Attributes:
        problem: why it cannot be used.
        size: width and height in pixels.
        digest: of the file's content.
    """

    problem: str | None = None
    size: tuple[int, int] | None = None
    digest: bytes | None = None


@dataclass(frozen=True)
class _Check:
    """Looks at an image, in a worker process."""

    verify: bool
    dedupe: bool

    def __call__(self, ref: ImageRef) -> _Found:
        """Never raises: what is wrong is in what it gives."""
        found = _Found()
        try:
            if self.dedupe:
                found.digest = hashlib.blake2b(images.content(ref), digest_size=16).digest()
            if self.verify:
                found.size = images.load(ref).size
            if not self.dedupe and not self.verify:
                images.check(ref)
        except ImageRejected as error:
            found.problem = error.message
        return found


def _image_to_check(item: Item) -> ImageRef | None:
    return None if item.problem else item.image


class _Job:
    """One run over the items."""

    def __init__(self, *, verify: bool, dedupe: bool, strict: bool, workers: int | None) -> None:
        self.check = _Check(verify, dedupe)
        self.strict = strict
        self.workers = workers
        self.summary = Summary()
        self.begun = 0
        self._passing = True
        self._contents = Spill()

    def run(self, items: Iterator[Item], out: Output) -> Tally | None:
        """Write what is not written yet."""
        own = self._remembering(items) if self.check.dedupe else items
        self.begun, own = out.skip_done(own)
        self._passing = False
        if self.begun:
            console.say(f"going on after {self.begun:,} records")
        with console.progress("rejected") as bar:
            task = bar.add_task("importing", total=None, completed=self.begun, rejected="")
            lost = 0
            for window, found in self._checked(batched(own, WINDOW)):
                outcomes = [self._outcome(*each, out.folder) for each in zip(window, found, strict=True)]
                out.write(outcomes)
                lost += sum(outcome.reason is not None for outcome in outcomes)
                bar.update(task, advance=len(window), rejected=f"{lost:,} rejected" if lost else "")
        return out.finish()

    def _remembering(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items; the contents of those that an interrupted run has written are looked at again."""
        for item in items:
            if self._passing and item.problem is None:
                self._same(item, self.check(item.image))
            yield item

    def _checked(self, parts: Iterator[list[Record]]) -> Iterator[tuple[list[Item], list[_Found]]]:
        """Windows of items, and what was found out about their images; by all cores when they are opened."""
        if not self.check.verify and not self.check.dedupe:
            for window in parts:
                own = cast("list[Item]", window)
                yield own, [_Found() if item.problem else self.check(item.image) for item in own]
            return
        windows = cast("Iterator[list[Item]]", parts)
        for batch in load_images(windows, _image_to_check, self.check, workers=self.workers):
            checked = dict(zip(batch.rows, batch.values, strict=True))
            yield batch.items, [checked.get(i, _Found()) for i in range(len(batch.items))]

    def _outcome(self, item: Item, found: _Found, folder: Path) -> RecordResult:
        data = item.for_folder(folder)
        problem = item.problem or self._same(item, found) or found.problem
        if problem is None:
            self.summary.sizes.add(found.size)
            return RecordResult(data)
        if self.strict:
            raise CapivaraError(f"{item.where}: {item.id}: {problem}", "without --strict it is left out")
        return RecordResult(data, problem)

    def _same(self, item: Item, found: _Found) -> str | None:
        """That the image's content came before, and where."""
        first = self._contents.setdefault(found.digest.hex(), item.id) if found.digest is not None else None
        return f"the same image as {first}" if first is not None else None
