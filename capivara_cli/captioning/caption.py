"""`caption`: describe each image once for each prefix, and write records with the captions added."""

from __future__ import annotations

import importlib.resources
import itertools
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capivara_cli import console
from capivara_cli.captioning import captioner as captioners
from capivara_cli.captioning.captioner import DEFAULT_MODEL, Asked, Captioner
from capivara_cli.data import output as outputs
from capivara_cli.data import records
from capivara_cli.data.loading import load_images
from capivara_cli.data.output import OPEN, Outcome, Output, Tally
from capivara_cli.data.records import Record
from capivara_cli.errors import CapivaraError
from capivara_cli.models import hub
from capivara_cli.runtime import Runtime

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

SAMPLES = 3  # captions that are shown at the end


def caption(
    sources: Sequence[str | Path],
    output: Path | None = None,
    *,
    model: str = DEFAULT_MODEL,
    prefixes: str | Path | None = None,
    lang: str = "en",
    batch_size: int | None = None,
    max_new_tokens: int = 50,
    num_beams: int = 1,
    workers: int | None = None,
    strict: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    precision: str = "auto",
    seed: int = 0,
) -> None:
    """Caption the images of several sources.

    Args:
        sources: images, folders, JSONL files, shards, brace patterns of shards, or `-`.
        output: JSONL file to write; None is standard output. What an interrupted run left is gone on with.
        model: a captioner's name on the hub, or its folder.
        prefixes: YAML list or text file of what captions begin with, `none`, or None for the recipe's.
        lang: BCP-47 code of the language that the captions are in.
        batch_size: images at once; None finds it.
        max_new_tokens: after the prefix.
        num_beams: 1 is greedy.
        workers: processes that decode images; None takes one a core, none for a few images.
        strict: stop at the first image that cannot be used.
        overwrite: begin anew.

    Raises:
        CapivaraError: bad records, no such model or prefixes, other settings than those the output was begun with,
            no image left, or with `strict` an image that cannot be used.
    """
    runtime = Runtime.start(device, precision, seed)
    asked = Asked(read_prefixes(prefixes, lang), lang, max_new_tokens, num_beams)
    _check(sources, output, batch_size=batch_size, max_new_tokens=max_new_tokens, num_beams=num_beams)
    settings = {
        "sources": [str(source) for source in sources],
        "model": model,
        "prefixes": list(asked.prefixes),
        "lang": lang,
        "max_new_tokens": max_new_tokens,
        "num_beams": num_beams,
        "model_files": hub.identity_of(model),
        "batch_size": batch_size or OPEN,
        "precision": OPEN if precision == "auto" else precision,
    }
    total = records.count(sources)
    with outputs.open_output(output, settings, runtime, overwrite=overwrite) as out:
        captioner = captioners.load(model, asked, runtime)
        chosen = out.settings["batch_size"]
        size = runtime.min_over_ranks(captioner.batch_size()) if chosen is OPEN else chosen
        out.begin(batch_size=size, precision=captioner.runtime.precision)
        console.say(f"{model} on {captioner.runtime.describe()}, {size} images at once")
        job = _Job(captioner, source=model, strict=strict, size=size)
        tally = job.run(sources, out, total, workers)
    if tally is not None:
        job.summary(tally, output)


def read_prefixes(given: str | Path | None, lang: str) -> tuple[str, ...]:
    """What captions begin with: of a YAML list or a text file, the recipe's (None), or one empty one (`none`).

    Raises CapivaraError when the file is not that, or when there is no list for the language.
    """
    import yaml

    if str(given) == "none":
        return ("",)
    if given is None:
        packaged = importlib.resources.files("capivara_cli.configs") / "prefixes" / f"{lang}.yaml"
        if "/" in lang or not packaged.is_file():
            raise CapivaraError(f"no prefixes for {lang} come with capivara", "--prefixes FILE, or --prefixes none")
        text, name = packaged.read_text(encoding="utf-8"), f"{lang}.yaml"
    else:
        try:
            text, name = Path(given).read_text(encoding="utf-8-sig"), str(given)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise CapivaraError(f"cannot read {given}: {reason}", "--prefixes none goes without") from error
    try:
        found = text.splitlines() if name.endswith(".txt") else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: of a date that is none
        raise CapivaraError(f"{name} is not YAML: {' '.join(str(error).split())}", "- a photo of") from error
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise CapivaraError(f"{name}: not a list of texts", "one a line in a .txt, or a YAML list: - a photo of")
    cleaned = [" ".join(each.split()) for each in found]
    if result := tuple(dict.fromkeys(filter(None, cleaned))):
        return result
    raise CapivaraError(f"{name}: no prefixes in it", "--prefixes none goes without")


def _check(sources: Sequence[str | Path], output: Path | None, **numbers: int | None) -> None:
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise CapivaraError(f"--{name.replace('_', '-')} {number}: at least 1")
    outputs.check_not_read(sources, output)


@dataclass
class _Job:
    """One run over the records.

    Attributes:
        size: images at once; halved when memory runs out, which changes no result.
        source: what the captions say that they come from.
    """

    captioner: Captioner
    source: str
    strict: bool
    size: int
    images: int = 0
    captions: int = 0
    seconds: float = 0.0
    samples: list[tuple[str, str]] = field(default_factory=list)

    def run(self, sources: Sequence[str | Path], out: Output, total: int | None, workers: int | None) -> Tally | None:
        """Describe what is not described yet. Gives the tally on the first rank."""
        runtime, batch = self.captioner.runtime, out.settings["batch_size"]
        found = records.stream(sources) if total is None else itertools.chain.from_iterable(map(records.read, sources))
        own = outputs.share(found, batch, runtime)
        begun, own = out.pass_over(own)
        if begun:
            console.say(f"going on after {begun * runtime.world_size:,} records")
        waiting: deque[list[Record]] = deque()
        started = time.monotonic()
        with console.progress("rate", "rejected") as bar:
            task = bar.add_task("captioning", total=total, completed=begun * runtime.world_size, rate="", rejected="")
            refs = _refs(own, batch, waiting)
            expected = total - begun if total is not None else None
            for good, images, reasons in load_images(refs, self.captioner.prepare, expected, workers):
                texts = dict(zip(good, self._describe(images), strict=True))
                outcomes = [
                    self._outcome(record, out.folder, reasons.get(i), texts.get(i, []))
                    for i, record in enumerate(waiting.popleft())
                ]
                out.write(outcomes)
                self.seconds = time.monotonic() - started
                self._show(bar, task, outcomes, runtime)
        return out.finish()

    def _describe(self, images: Any) -> list[list[str]]:
        """Captions of N prepared images, in smaller parts when memory runs out."""
        result: list[list[str]] = []
        while len(result) < len(images):
            part = images[len(result) : len(result) + self.size]
            try:
                result += self.captioner.captions(part)
            except RuntimeError as error:
                self.size = self.captioner.runtime.halve_on_oom(error, len(part))
                console.warn(f"out of memory: {self.size} images at once from here on")
        return result

    def _outcome(self, record: Record, folder: Path, reason: str | None, texts: list[str]) -> Outcome:
        data = record.for_folder(folder)
        lang, prefixes = self.captioner.asked.lang, self.captioner.asked.prefixes
        if reason is None:
            seen = set(record.texts(lang))
            new = []
            for prefix, text in zip(prefixes, texts, strict=True):
                clean = " ".join(text.split())
                if clean and clean not in seen and clean.lower() != prefix.lower():
                    seen.add(clean)
                    made = {"text": clean, "lang": lang, "source": self.source}
                    new.append(made | ({"prefix": prefix} if prefix else {}))
            if new or record.captions:
                self.images += 1
                self.captions += len(new)
                if new and len(self.samples) < SAMPLES:
                    self.samples.append((record.id, new[-1]["text"]))
                return Outcome(data | {"captions": [*record.captions, *new]})
            reason = "the model said nothing about it"
        if self.strict:
            raise CapivaraError(f"{record.where}: {record.image}: {reason}", "without --strict it is left out")
        return Outcome(data, reason)

    def _show(self, bar: Progress, task: TaskID, outcomes: list[Outcome], runtime: Runtime) -> None:
        done = len(outcomes) * runtime.world_size  # the other ranks are as far, about
        rejected = sum(outcome.reason is not None for outcome in outcomes)
        before = bar.tasks[task].fields["rejected"]
        count = rejected + (int(before.split()[0]) if before else 0)
        bar.update(
            task,
            advance=done,
            rate=f"{self.images * runtime.world_size / max(self.seconds, 1e-9):.1f} images/s",
            rejected=f"{count} rejected" if count else "",
        )
        kept = [outcome.data["captions"] for outcome in outcomes if outcome.reason is None]
        if kept and kept[-1]:
            bar.update(task, note=kept[-1][-1]["text"])

    def summary(self, tally: Tally, output: Path | None) -> None:
        """What was done, a few samples, and what was rejected."""
        from rich.table import Table
        from rich.text import Text

        world = self.captioner.runtime.world_size
        if self.images:
            rate = f"{self.images * world / max(self.seconds, 1e-9):.1f} images/s"
            where = f" in {output}" if output is not None else ""
            each = f"{self.captions / self.images:.1f} captions each"
            console.say(f"{tally.kept:,} images{where}, {each}, {rate}")
        if self.samples:
            table = Table("image", "caption", box=None, padding=(0, 2, 0, 0))
            for name, text in self.samples:
                table.add_row(Text(console.clean(name), overflow="ellipsis", no_wrap=True), console.clean(text))
            console.show(table)
        outputs.report(tally, output)


def _refs(own: Iterator[Record], size: int, waiting: deque[list[Record]]) -> Iterator[list[Any]]:
    """Batches of images to load. Their records are put aside until the images come back."""
    while batch := list(itertools.islice(own, size)):
        waiting.append(batch)
        yield [record.image for record in batch]
