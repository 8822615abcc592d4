"""`caption`: describe each image once per prefix, and write records with the captions added."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from capivara_cli import console
from capivara_cli.captioning.captioner import Captioner
from capivara_cli.captioning.load import load
from capivara_cli.captioning.options import CaptionOptions
from capivara_cli.captioning.prefixes import read_prefixes
from capivara_cli.data import pipeline, records
from capivara_cli.data.captions import Caption
from capivara_cli.data.loading import load_images
from capivara_cli.data.output import (
    UNDECIDED,
    RecordResult,
    Tally,
    check_json,
    check_not_a_source,
    report,
    undecided_if_auto,
)
from capivara_cli.data.records import Record
from capivara_cli.data.resumable import open_output
from capivara_cli.models import hub
from capivara_cli.runtime import Runtime

SAMPLES = 3  # captions that are shown at the end


def caption(sources: Sequence[str | Path], output: str | Path | None, options: CaptionOptions) -> None:
    """Caption the images of several sources.

    Args:
        sources: images, folders, JSONL files, shards, brace patterns of shards, or `-`.
        output: JSONL file to write; None is standard output. An interrupted run is resumed.
        options: see `CaptionOptions`.

    Raises:
        CapivaraError: bad records, no such model or prefixes, settings that differ from those of the interrupted run,
            no image left, or with `strict` an image that cannot be used.
    """
    path = Path(output) if output is not None else None
    runtime = Runtime.start(options.device, options.precision, options.seed)
    prefixes = read_prefixes(options.prefixes, options.lang)
    check_json(options, path)
    check_not_a_source(sources, path)
    settings = options.settings() | {
        "sources": [str(source) for source in sources],
        "prefixes": list(prefixes),
        "model_files": hub.identity_of(options.model),
        "batch_size": undecided_if_auto(options.batch_size),
        "precision": undecided_if_auto(options.precision),
    }
    total, _ = records.validate(sources)
    with open_output(path, settings, runtime, overwrite=options.overwrite) as out:
        captioner = load(options, prefixes, runtime)
        size = out.settings["batch_size"]  # a resumed run keeps the batch size of the interrupted one
        if size is UNDECIDED:
            size = runtime.min_over_ranks(captioner.batch_size())
        out.begin(size, batch_size=size, precision=captioner.runtime.precision)
        console.say(f"{options.model} on {captioner.runtime.describe()}, batches of {console.counted(size, 'image')}")
        job = _CaptionJob(captioner, options, out.folder, size)
        tally = pipeline.run(
            job, pipeline.read(sources, total), out, runtime, window=size, total=total, live=total is None
        )
    if tally is not None:
        job.show_summary(tally, path)
        report(tally, path, summary=job.as_json() if options.json else None)


@dataclass
class _CaptionJob(pipeline.Job[Record]):
    """Describe images.

    Attributes:
        size: images per forward pass. It is halved when memory runs out; the captions do not change.
        images: number of images that this rank described in this run.
        captions: number of captions that it made of them.
        samples: (image id, caption) pairs to show at the end.
        last: the last caption, for the progress bar.
    """

    label = "captioning"

    captioner: Captioner
    options: CaptionOptions
    folder: Path
    size: int
    images: int = 0
    captions: int = 0
    samples: list[tuple[str, str]] = field(default_factory=list)
    last: str = ""

    def process(self, batches: Iterator[list[Record]], expected: int | None) -> Iterator[list[RecordResult]]:
        """See `pipeline.Job`."""
        prepare = self.captioner.prepare
        for batch in load_images(batches, lambda record: record.image, prepare, expected, self.options.workers):
            texts = dict(zip(batch.rows, self._describe(batch.values), strict=True))
            yield [self._result(record, batch.reasons.get(i), texts.get(i, [])) for i, record in enumerate(batch.items)]

    def _describe(self, images: Any) -> list[list[str]]:
        """Return N lists of K texts, one per prefix. Split the batch if memory runs out."""
        texts: list[list[str]] = []
        while len(texts) < len(images):
            part = images[len(texts) : len(texts) + self.size]
            try:
                texts += self.captioner.captions(part)
            except RuntimeError as error:
                self.size = self.captioner.runtime.halve_on_oom(error, len(part))
                console.warn(
                    f"out of memory: continuing with {self.size} images per forward pass; the captions do not change"
                )
        return texts

    def _result(self, record: Record, reason: str | None, texts: list[str]) -> RecordResult:
        captions = self._new_captions(record, texts)
        if reason is None and not captions and not record.captions:
            reason = "the model produced no caption"
        if reason is not None:
            return RecordResult.rejected(record, self.folder, reason, strict=self.options.strict)
        self.images += 1
        self.captions += len(captions)
        if captions:
            self.last = captions[-1]["text"]
            if len(self.samples) < SAMPLES:
                self.samples.append((record.id, self.last))
        return RecordResult(record.for_folder(self.folder) | {"captions": [*record.captions, *captions]})

    def _new_captions(self, record: Record, texts: list[str]) -> list[Caption]:
        """Return the new captions. Leave out texts that are empty, only repeat the prefix, or that the record has."""
        if not texts:  # the image could not be loaded
            return []
        lang = self.options.lang
        # Captions that `score --keep-all` marked as rejected count too: added again, they would lose their mark.
        known = {caption["text"] for caption in record.captions if caption["lang"] == lang}
        captions: list[Caption] = []
        for prefix, text in zip(self.captioner.prefixes, texts, strict=True):
            clean = " ".join(text.split())
            if clean and clean not in known and clean.lower() != prefix.lower():
                known.add(clean)
                made: Caption = {"text": clean, "lang": lang, "source": self.options.model}
                if prefix:
                    made["prefix"] = prefix
                captions.append(made)
        return captions

    def figures(self) -> dict[str, str]:
        """See `pipeline.Job`."""
        return {"rate": f"{self.per_second(self.images):.1f} images/s", "note": self.last}

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints: of this rank and this session."""
        return {"images": self.images, "captions": self.captions, "samples": [list(pair) for pair in self.samples]}

    def show_summary(self, tally: Tally, output: Path | None) -> None:
        """Print a summary and a few captions; nothing if this run described no image.

        Args:
            tally: of all ranks, and of the runs that this one resumes.
            output: None for standard output.
        """
        if self.images:
            where = f" in {output}" if output is not None else ""
            # The average of this rank and run stands for all.
            per_image = f"{self.captions / self.images:.1f} captions per image"
            console.say(f"{console.counted(tally.kept, 'image')}{where}, {per_image}, {self.figures()['rate']}")
        if self.samples:
            table = console.table("image", "caption", text_columns=2)
            for name, text in self.samples:
                table.add_row(console.clean(name), console.clean(text))
            console.show(table)
