"""`score`: how well each caption fits its image, by CLIP, and which of them are worth learning from."""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capivara_cli import artifacts, console
from capivara_cli.data import records
from capivara_cli.data import selection as verdicts
from capivara_cli.data.filters import MIN_CAPTIONS, Strategy
from capivara_cli.data.images import ImageRef
from capivara_cli.data.records import Record
from capivara_cli.data.selection import HUMAN, Asked
from capivara_cli.data.output import OPEN, RecordResult, Output, Tally, check_not_read, raise_if_empty
from capivara_cli.data.resumable import open_output
from capivara_cli.data.pipeline import share_by_rank, batched, drain
from capivara_cli.errors import CapivaraError
from capivara_cli.models import checkpoint
from capivara_cli.models.spec import ModelSpec
from capivara_cli.runtime import Runtime
from capivara_cli.scoring.report import Report

if TYPE_CHECKING:
    import numpy as np

    from capivara_cli.models.clip import Clip

WINDOW = 1024  # records at once: enough texts to sort by length, few enough to hold


def score(
    sources: Sequence[str | Path],
    output: Path | None = None,
    *,
    lang: Sequence[str] = (),
    model: str | None = None,
    pretrained: str | None = None,
    adapter: Path | None = None,
    by: str | None = None,
    min_score: float | None = None,
    top_k: int | None = None,
    first: int | None = None,
    diverse: float | None = None,
    min_captions: int | None = None,
    pair_score: float | None = None,
    human: Sequence[str] = HUMAN,
    scored: bool = False,
    keep_all: bool = False,
    plot: Path | None = None,
    workers: int | None = None,
    strict: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    precision: str = "auto",
    seed: int = 0,
) -> None:
    """Write a score on each caption, and drop those that the strategies leave out. Arguments as `capivara score`.

    Args:
        sources: JSONL files, folders, shards, `-`.
        output: JSONL file to write; None is standard output. What an interrupted run left is gone on with.
        scored: take the scores that the captions have, without a model.
        lang, by, pair_score, human, keep_all: see `Asked`.
        min_score, top_k, first, diverse, min_captions: see `Strategy`.
        plot: PNG of the scores' histogram.

    Raises:
        CapivaraError: bad records, no caption in a language, a model that cannot be loaded, other settings than those
            the output was begun with, nothing left, or with `strict` an image that cannot be used.
    """
    strategy = Strategy(first, min_score, top_k, diverse, MIN_CAPTIONS if min_captions is None else min_captions)
    asked = Asked(tuple(dict.fromkeys(lang)), by, strategy, pair_score, tuple(human), keep_all)
    _check(asked, sources, output)
    if min_captions is not None and diverse is None:
        raise CapivaraError(f"--min-captions {min_captions}: only --diverse leaves so many", "--diverse 0.3")
    if scored and ((model, pretrained, adapter) != (None,) * 3 or (device, precision) != ("auto",) * 2):
        raise CapivaraError("--scored takes the scores that are there", "leave out what is said about a model")
    if plot is not None:
        _check_plot(plot, sources, output, overwrite=overwrite)
    total = records.validate(sources, asked.needed)
    spec = None if scored else ModelSpec.pick(model, pretrained, adapter)
    runtime = Runtime.start("cpu", "fp32", seed) if scored else Runtime.start(device, precision, seed)
    settings = {
        "sources": [str(source) for source in sources],
        "lang": list(asked.langs),
        "model": str(spec) if spec else "--scored",
        "model_files": spec.identity() if spec else None,
        "by": by,
        "min_score": min_score,
        "top_k": top_k,
        "first": first,
        "diverse": diverse,
        "min_captions": min_captions,
        "pair_score": pair_score,
        "human": list(human),
        "keep_all": keep_all,
        "precision": OPEN if precision == "auto" else precision,
    }
    report = Report(asked)
    with open_output(output, settings, runtime, overwrite=overwrite, observer=report) as out:
        clip = checkpoint.load(spec, runtime, role="model") if spec else None
        out.begin(WINDOW, precision=clip.runtime.precision if clip else runtime.precision)
        job = _Job(asked, clip, strict)
        tally = job.run(sources, out, total, workers, runtime)
    if tally is None:
        return
    report.show(output)
    if pair_score is not None:
        job.say_without_human(report)
    if not tally.kept:
        raise_if_empty(tally, output)
    report.warn(output)
    if plot is not None:
        report.plot(plot)


def _check(asked: Asked, sources: Sequence[str | Path], output: Path | None) -> None:
    """Raise CapivaraError for what can be known to be wrong at once."""
    strategy = asked.strategy
    for name, value in (("min-score", strategy.min_score), ("pair-score", asked.pair_score)):
        if value is not None and not -1 <= value <= 1:
            raise CapivaraError(f"--{name} {value:g}: a cosine is between -1 and 1", f"--{name} 0.2 is the recipe's")
    if strategy.diverse is not None and not 0 <= strategy.diverse <= 1:
        raise CapivaraError(f"--diverse {strategy.diverse:g}: between 0 and 1", "--diverse 0.3 is the recipe's")
    for name, number in (("top-k", strategy.top_k), ("min-captions", strategy.min_captions)):
        if number is not None and number < 1:
            raise CapivaraError(f"--{name} {number}: at least 1")
    if strategy.first is not None and strategy.first < 0:
        raise CapivaraError(f"--first {strategy.first}: 0 or more")
    if asked.by is not None and not asked.by.strip():
        raise CapivaraError(f"--by '{asked.by}': no language", "--by en")
    if asked.by in asked.langs and len(asked.langs) == 1:
        raise CapivaraError(f"--by {asked.by} is --lang {asked.by}", "leave --by out: each caption is judged by itself")
    check_not_read(sources, output)


def _check_plot(plot: Path, sources: Sequence[str | Path], output: Path | None, *, overwrite: bool) -> None:
    """Raise CapivaraError for a plot that could not be written once the work is done."""
    if plot.suffix.lower() != ".png" or plot.is_dir():
        raise CapivaraError(f"--plot {plot}: not the name of a .png file", "--plot scores.png")
    if output is not None and plot.absolute() == output.absolute():
        raise CapivaraError(f"--plot {plot} is what -o names", "another name")
    check_not_read(sources, plot)
    if plot.exists() and not overwrite:
        raise CapivaraError(f"{plot} is there already", "--overwrite replaces it")
    artifacts.make_folder(plot.absolute().parent)
    if not os.access(plot.absolute().parent, os.W_OK):
        raise CapivaraError(f"cannot write {plot}: no permission", "--plot elsewhere/scores.png")


@dataclass
class _Job:
    """One run over the records.

    Attributes:
        clip: None when the captions have their scores.
        images, without_human: how many were judged in this run, and those that no person's caption speaks for.
        there: captions in each language, of records that come from a pipe.
    """

    asked: Asked
    clip: Clip | None
    strict: bool
    images: int = 0
    without_human: int = 0
    there: Counter[str] = field(default_factory=Counter)

    def run(
        self, sources: Sequence[str | Path], out: Output, total: int | None, workers: int | None, runtime: Runtime
    ) -> Tally | None:
        """Score what is not scored yet. Gives the tally on the first rank."""
        read = itertools.chain.from_iterable(map(records.read, sources))
        found = self._noting(records.stream(sources)) if total is None else read
        passed, own = out.skip_done(share_by_rank(found, WINDOW, runtime))
        begun = passed * runtime.world_size
        if begun:
            console.say(f"going on after {begun:,} records")
        flowing = total is None and out.streams
        parts = drain(own, WINDOW) if flowing else batched(own, WINDOW)
        if flowing and workers is None:
            workers = 0  # they would be given some windows before the first comes back
        captions, started = 0, time.monotonic()
        with console.progress("rate") as bar:
            task = bar.add_task("scoring", total=total, completed=begun, rate="")
            for window, scores, reasons in self._scores(parts, None if total is None else total - begun, workers):
                out.write([self._outcome(*each, out.folder) for each in zip(window, scores, reasons, strict=True)])
                captions += sum(value is not None for own_scores in scores for value in own_scores)
                rate = captions * runtime.world_size / max(time.monotonic() - started, 1e-9)
                bar.update(task, advance=len(window) * runtime.world_size, rate=f"{rate:,.0f} captions/s")
        if total is None:
            records.check_languages(self.there, self.asked.needed)
        return out.finish()

    def _noting(self, found: Iterator[Record]) -> Iterator[Record]:
        for record in found:
            self.there.update(caption["lang"] for caption in record.captions)
            yield record

    def say_without_human(self, report: Report) -> None:
        """How many images `--pair-score` could not judge."""
        if self.without_human == self.images:
            sources = ", ".join(report.sources) or "none"
            console.warn(f"--pair-score judged no image: no caption is by a person (there are: {sources})")
            console.say("hint: --human SOURCE names who is one")
        elif self.without_human:
            console.say(f"--pair-score: {self.without_human:,} of {self.images:,} images have no caption by a person")

    def _scores(
        self, parts: Iterator[list[Record]], expected: int | None, workers: int | None
    ) -> Iterator[tuple[list[Record], list[list[float | None]], list[str | None]]]:
        """Windows of records, the score of each caption that is judged, and why an image cannot be used."""
        from capivara_cli.models.embedding_cache import embed_windows

        if self.clip is None:
            for window in parts:
                yield window, [self._there(record) for record in window], [None] * len(window)
            return

        def image_of(record: Record) -> ImageRef | None:
            return record.image if self.asked.judges_any(record.captions) else None

        for window in embed_windows(self.clip, parts, image_of, expected, workers):
            records_of = [window.items[i] for i in window.rows]
            scores: list[list[float | None]] = [[None] * len(record.captions) for record in window.items]
            for i, cosines in zip(window.rows, self._cosines(records_of, window.features), strict=True):
                scores[i] = cosines
            yield window.items, scores, [window.reasons.get(i) for i in range(len(window.items))]

    def _there(self, record: Record) -> list[float | None]:
        """The scores that a record's captions have. Raises CapivaraError when one has none."""
        result: list[float | None] = []
        for number, caption in enumerate(record.captions):
            given = caption.get("score")
            if not self.asked.judges(caption["lang"]):
                result.append(None)
            elif isinstance(given, int | float) and not isinstance(given, bool) and -1 <= given <= 1:
                result.append(float(given))
            else:
                problem = f"{given!r} is no cosine (-1 to 1)" if "score" in caption else "has no score"
                raise CapivaraError(
                    f"{record.where}: caption {number} ({caption['lang']}): {problem}",
                    "without --scored CLIP gives one",
                )
        return result

    def _cosines(self, window: Sequence[Record], images: np.ndarray) -> list[list[float | None]]:
        """Cosines of the records' captions and their images (n, D), rounded to what a file holds: four digits.

        Texts are encoded once a window and not once ever: what stands beside a text in its batch decides its last bits,
        and a run that was killed must end with the same scores.
        """
        import numpy as np

        assert self.clip is not None, "only asked for with a model"
        places = [
            (row, i)
            for row, record in enumerate(window)
            for i, caption in enumerate(record.captions)
            if self.asked.judges(caption["lang"])
        ]
        result: list[list[float | None]] = [[None] * len(record.captions) for record in window]
        if places:
            number: dict[str, int] = {}
            rows = [number.setdefault(window[row].captions[i]["text"], len(number)) for row, i in places]
            texts = self.clip.encode_texts(list(number)).numpy()  # (distinct, D)
            cosines = np.einsum("nd,nd->n", texts[rows], images[[row for row, _ in places]])
            for (row, i), cosine in zip(places, cosines, strict=True):
                if not np.isfinite(cosine):
                    raise CapivaraError(
                        f"{window[row].where}: the model's score of caption {i} is no number ({cosine})",
                        "its weights are broken, or --precision fp32",
                    )
                result[row][i] = round(float(cosine), 4)
        return result

    def _outcome(self, record: Record, scores: list[float | None], reason: str | None, folder: Path) -> RecordResult:
        data = record.for_folder(folder)
        if reason is not None:
            if self.strict:
                raise CapivaraError(f"{record.where}: {record.image}: {reason}", "without --strict it is left out")
            return RecordResult(data, reason)
        self.images += 1
        self.without_human += not verdicts.human_scores(record.captions, scores, self.asked)
        return verdicts.decide(data, record.captions, scores, self.asked)
