"""`score`: compute the CLIP score of each caption, and select the captions to keep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from capivara_cli import console, files
from capivara_cli.data import pipeline, records
from capivara_cli.data.images import ImageRef
from capivara_cli.data.output import (
    RecordResult,
    Tally,
    check_json,
    check_not_a_source,
    raise_if_empty,
    report,
    undecided_if_auto,
)
from capivara_cli.data.records import Record
from capivara_cli.data.resumable import is_begun, open_output
from capivara_cli.data.selection import human_scores, select_captions
from capivara_cli.errors import CapivaraError
from capivara_cli.models import checkpoint
from capivara_cli.models.cut_texts import CutTexts
from capivara_cli.models.embedding_cache import embed_windows
from capivara_cli.models.spec import ModelSpec
from capivara_cli.runtime import Runtime
from capivara_cli.scoring.options import ScoreOptions
from capivara_cli.scoring.origins import Origins
from capivara_cli.scoring.report import Report

if TYPE_CHECKING:
    import numpy as np

    from capivara_cli.models.clip import Clip

WINDOW = 1024  # records per batch: enough texts to sort by length, few enough to hold in memory


def score(sources: Sequence[str | Path], output: str | Path | None, options: ScoreOptions) -> None:
    """Score captions, and drop or mark those that the options do not keep.

    Args:
        sources: JSONL files, folders, shards, `-`.
        output: JSONL file to write; None is standard output. An interrupted run is resumed.
        options: see `ScoreOptions`.

    Raises:
        CapivaraError: bad records, no caption in a language, a model that cannot be loaded, settings that differ from
            those of the interrupted run, nothing left, or with `strict` an image that cannot be used.
    """
    path = Path(output) if output is not None else None
    options.check()
    check_json(options, path)
    check_not_a_source(sources, path)
    if options.plot is not None:
        _check_plot(options.plot, sources, path, overwrite=options.overwrite)
    origins = Origins()
    total, captions_by_lang = records.validate(sources, origins.add if options.by is not None else None)
    # The languages of a pipe are not known yet: the counter is empty, `pipeline.read` fills it while it reads, and
    # `_ScoreJob.process` checks it at the end. `pt` is then not replaced by `pt-BR`.
    if total is not None:
        options = _in_languages_of(captions_by_lang, sources, options)
        origins.report(options)
    spec = None if options.scored else ModelSpec.pick(options.model, options.pretrained, options.adapter)
    device, precision = ("cpu", "fp32") if options.scored else (options.device, options.precision)
    runtime = Runtime.start(device, precision, options.seed)
    settings = options.settings() | {
        "sources": [str(source) for source in sources],
        "model": str(spec) if spec else None,
        "model_files": spec.identity() if spec else None,
        "precision": undecided_if_auto(options.precision),
    }
    summary = Report(options)
    with open_output(path, settings, runtime, overwrite=options.overwrite, observer=summary) as out:
        clip = checkpoint.load(spec, runtime, role="model", verify_cache=options.verify_cache) if spec else None
        out.begin(WINDOW, precision=clip.runtime.precision if clip else runtime.precision)
        # From pipe to pipe, load images in this process: workers would read several windows ahead before the first
        # result is written.
        workers = 0 if total is None and out.streams and options.workers is None else options.workers
        job = _ScoreJob(options, clip, out.folder, workers, captions_by_lang)
        stream = pipeline.read(sources, total, captions_by_lang)
        tally = pipeline.run(job, stream, out, runtime, window=WINDOW, total=total, live=total is None)
        job.truncated.warn("captions scored in this session")
        if tally is not None:
            _show(summary, job, tally, path)


def _show(summary: Report, job: _ScoreJob, tally: Tally, path: Path | None) -> None:
    """Show what became of the captions, and draw the plot. Raises CapivaraError if nothing is left."""
    summary.show(path)
    if job.options.pair_score is not None:
        job.say_without_human(summary)
    raise_if_empty(tally, path)
    # Warn only of images that could not be loaded: what is below a threshold was dropped on purpose.
    counts = {"records": tally.kept, "rejected": tally.rejected, "parts_rejected": tally.parts}
    report(summary.image_tally, path, summary=counts | summary.as_json() if job.options.json else None)
    if job.options.plot is not None:
        summary.plot(job.options.plot)


def _in_languages_of(captions: Counter[str], sources: Sequence[str | Path], options: ScoreOptions) -> ScoreOptions:
    """Return the options with each language replaced by the code that the data uses (`pt` by `pt-BR`).

    Raises CapivaraError if the data has no captions in a language.
    """
    langs = options.required_langs()
    resolved = dict(zip(langs, records.resolve_languages(captions, langs, sources), strict=True))
    by = None if options.by is None else resolved[options.by]
    return options.replace(lang=[resolved[lang] for lang in options.lang], by=by)


def _check_plot(plot: Path, sources: Sequence[str | Path], output: Path | None, *, overwrite: bool) -> None:
    """Raise CapivaraError now if the plot could not be written at the end."""
    if plot.suffix.lower() != ".png":
        raise CapivaraError(f"--plot {plot}: not the name of a .png file", "--plot scores.png")
    if output is not None and plot.absolute() == output.absolute():
        raise CapivaraError(f"--plot {plot} is also the file of -o", "--plot another.png")
    check_not_a_source(sources, plot)
    # A process that was killed right after the plot left it beside its unfinished output.
    is_resumed = output is not None and is_begun(output)
    files.check_writable(plot, files.PLOT, overwrite=overwrite or is_resumed, flag="--plot")


@dataclass
class _ScoreJob(pipeline.Job[Record]):
    """Score captions.

    Attributes:
        clip: the model; None with `--scored`.
        languages: number of captions per language. For a pipe it is filled while reading, and complete only at the end.
        captions: number of captions that this rank judged.
        truncated: counts the captions that are longer than the model's context.
        images: number of records that this rank processed.
        images_without_human: how many of these have no judged human caption.
    """

    label = "scoring"

    options: ScoreOptions
    clip: Clip | None
    folder: Path
    workers: int | None
    languages: Counter[str]
    captions: int = 0
    truncated: CutTexts = field(default_factory=CutTexts)
    images: int = 0
    images_without_human: int = 0

    def process(self, batches: Iterator[list[Record]], expected: int | None) -> Iterator[list[RecordResult]]:
        """See `pipeline.Job`."""
        if self.clip is None:
            for batch in batches:
                yield [self._result(record, self._scores_in(record)) for record in batch]
        else:
            yield from self._process_with(self.clip, batches, expected)
        if expected is None:  # a pipe cannot be checked before it has been read
            records.check_languages(self.languages, self.options.required_langs())

    def _process_with(
        self, clip: Clip, batches: Iterator[list[Record]], expected: int | None
    ) -> Iterator[list[RecordResult]]:
        for batch in embed_windows(clip, batches, self._image_of, expected, self.workers):
            usable = [batch.items[i] for i in batch.rows]
            scores = dict(zip(batch.rows, self._cosines(clip, usable, batch.features), strict=True))
            results = []
            for i, record in enumerate(batch.items):
                if i in batch.reasons:
                    reason, strict = batch.reasons[i], self.options.strict
                    results.append(RecordResult.rejected(record, self.folder, reason, strict=strict))
                else:  # without an embedding no caption of this record is judged
                    results.append(self._result(record, scores.get(i) or [None] * len(record.captions)))
            yield results

    def _image_of(self, record: Record) -> ImageRef | None:
        """Return the record's image, or None if no caption is judged and the image is not needed."""
        judged = any(self.options.judges(caption["lang"]) for caption in record.captions)
        return record.image if judged else None

    def _cosines(self, clip: Clip, batch: Sequence[Record], images: np.ndarray) -> list[list[float | None]]:
        """Return the cosines of captions and images, rounded to the four digits that a file holds; None if not judged.

        The texts of every batch are encoded again, and no embeddings are kept from one batch to the next: the last bits
        of an embedding depend on the other texts in its batch, and a resumed run must give the same scores as an
        uninterrupted one.

        Args:
            batch: B records.
            images: (B, D) float32 embeddings of their images, normalised.
        """
        import numpy as np

        scores: list[list[float | None]] = [[None] * len(record.captions) for record in batch]
        judged = [  # (index of the record, index of the caption)
            (record_index, i)
            for record_index, record in enumerate(batch)
            for i, caption in enumerate(record.captions)
            if self.options.judges(caption["lang"])
        ]
        if not judged:
            return scores
        judged_texts = [batch[record_index].captions[i]["text"] for record_index, i in judged]
        texts = clip.encode_texts(judged_texts).numpy()  # (judged, D); a repeated text is encoded once
        self.truncated.add(clip, judged_texts)
        clip.cut.clear()  # otherwise the set would hold every truncated text of a large file
        image_rows = [record_index for record_index, _ in judged]
        cosines = np.einsum("nd,nd->n", texts, images[image_rows])  # (judged,)
        for (record_index, i), cosine in zip(judged, cosines, strict=True):
            if not np.isfinite(cosine):
                raise CapivaraError(
                    f"{batch[record_index].where}: the model's score of caption {i} is not a number ({cosine})",
                    "the model's weights may be broken; or try --precision fp32",
                )
            scores[record_index][i] = round(float(cosine), 4)
        return scores

    def _scores_in(self, record: Record) -> list[float | None]:
        """Return the stored score of each caption, None for captions that are not judged.

        Raises CapivaraError if a judged caption has no score.
        """
        scores: list[float | None] = []
        for i, caption in enumerate(record.captions):
            score: object = caption.get("score")
            if not self.options.judges(caption["lang"]):
                scores.append(None)
            elif isinstance(score, int | float) and not isinstance(score, bool) and -1 <= score <= 1:
                scores.append(float(score))
            else:
                problem = f"{score!r} is not a cosine (-1 to 1)" if "score" in caption else "has no score"
                raise CapivaraError(
                    f"{record.where}: caption {i} ({caption['lang']}): {problem}",
                    "leave out --scored, and CLIP computes the scores",
                )
        return scores

    def _result(self, record: Record, scores: list[float | None]) -> RecordResult:
        self.images += 1
        self.captions += len(scores) - scores.count(None)
        self.images_without_human += not human_scores(record.captions, scores, self.options)
        return select_captions(record.for_folder(self.folder), record.captions, scores, self.options)

    def figures(self) -> dict[str, str]:
        """See `pipeline.Job`."""
        return {"rate": f"{self.per_second(self.captions):,.0f} captions/s"}

    def say_without_human(self, summary: Report) -> None:
        """Say how many images `--pair-score` could not judge, because they have no judged human caption."""
        if self.images_without_human == self.images:
            names = ", ".join(summary.caption_sources) or "none"
            console.warn(f"--pair-score had no effect: no judged caption is human (caption sources: {names})")
            console.say("hint: --human SOURCE marks captions with that `source` as human")
        elif self.images_without_human:
            images = f"{self.images_without_human:,} of {self.images:,} images"
            console.say(f"--pair-score: {images} have no judged human caption")
