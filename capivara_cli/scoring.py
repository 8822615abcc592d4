"""`score`: how well each caption fits its image, by CLIP, and which of them are worth learning from."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capivara_cli import console, filters, outputs, records, subjects, windows
from capivara_cli.errors import CapivaraError
from capivara_cli.filters import MIN_CAPTIONS, Strategy
from capivara_cli.outputs import REJECTED, Outcome, Output
from capivara_cli.records import Record
from capivara_cli.runtime import Runtime
from capivara_cli.scoring_report import NOTHING_LEFT, PAIR, Report

if TYPE_CHECKING:
    import numpy as np

    from capivara_cli.clip import Clip

WINDOW = 1024  # records at once: enough texts to sort by length, few enough to hold
HUMAN = ("human",)


@dataclass(frozen=True)
class Asked:
    """Which captions are judged, and how.

    Attributes:
        langs: languages whose captions are dropped; none means all.
        by: language of the captions that are scored, whose verdict falls on what was translated from them; None
            scores each caption itself.
        pair_score: an image whose human captions all score less is dropped.
        human: sources that are people; a caption without a source is a person's too.
        keep_all: mark instead of dropping.
    """

    langs: tuple[str, ...] = ()
    by: str | None = None
    strategy: Strategy = field(default_factory=Strategy)
    pair_score: float | None = None
    human: tuple[str, ...] = HUMAN
    keep_all: bool = False

    def covers(self, lang: str) -> bool:
        """Whether captions in this language may be dropped."""
        return not self.langs or lang in self.langs

    def judges(self, lang: str) -> bool:
        """Whether captions in this language are scored."""
        return lang == self.by if self.by else self.covers(lang)


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
    min_captions: int = MIN_CAPTIONS,
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
    strategy = Strategy(first, min_score, top_k, diverse, min_captions)
    asked = Asked(tuple(dict.fromkeys(lang)), by, strategy, pair_score, tuple(human), keep_all)
    _check(asked, sources, output, plot)
    total = records.count(sources, [by] if by else asked.langs)
    subject = None if scored else subjects.pick(model, pretrained, adapter)
    runtime = Runtime("cpu", "fp32", seed) if scored else Runtime.pick(device, precision, seed)
    settings = {
        "sources": [str(source) for source in sources],
        "lang": list(asked.langs),
        "model": str(subject) if subject else "--scored",
        "by": by,
        "min_score": min_score,
        "top_k": top_k,
        "first": first,
        "diverse": diverse,
        "min_captions": min_captions,
        "pair_score": pair_score,
        "human": list(human),
        "keep_all": keep_all,
        "precision": precision,
        "batch_size": WINDOW,
    }
    report = Report(asked)
    with outputs.open_output(output, settings, runtime, overwrite=overwrite, look=report) as out:
        clip = subject.load(runtime) if subject else None
        out.begin(min_score=min_score, by=by)
        tally = _Job(asked, clip, strict).run(sources, out, total, workers, runtime)
    if tally is not None:
        report.show(output)
        if plot is not None:
            report.plot(plot)
        if not tally.kept:
            outputs.report(tally, output, parts=None)  # an error
        report.warn(output)


def _check(asked: Asked, sources: Sequence[str | Path], output: Path | None, plot: Path | None) -> None:
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
    if asked.by in asked.langs and len(asked.langs) == 1:
        raise CapivaraError(f"--by {asked.by} is --lang {asked.by}", "leave --by out: each caption is judged by itself")
    if plot is not None and (plot.suffix.lower() != ".png" or plot.is_dir()):
        raise CapivaraError(f"--plot {plot}: not the name of a .png file", "--plot scores.png")
    outputs.check_not_read(sources, output)


@dataclass
class _Job:
    """One run over the records; `clip` is None when the captions have their scores."""

    asked: Asked
    clip: Clip | None
    strict: bool

    def run(
        self, sources: Sequence[str | Path], out: Output, total: int | None, workers: int | None, runtime: Runtime
    ) -> outputs.Tally | None:
        """Score what is not scored yet. Gives the tally on the first rank."""
        found = records.stream(sources) if total is None else itertools.chain.from_iterable(map(records.read, sources))
        own = outputs.share(found, WINDOW, runtime)
        begun = out.pass_over(own) * runtime.world_size
        if begun:
            console.say(f"going on after {begun:,} records")
        flowing = total is None and out.streams
        parts = windows.as_they_come(own, WINDOW) if flowing else windows.whole(own, WINDOW)
        captions, started = 0, time.monotonic()
        with console.progress("rate") as bar:
            task = bar.add_task("scoring", total=total, completed=begun, rate="")
            for window, scores, reasons in self._scores(parts, None if total is None else total - begun, workers):
                out.write([self._outcome(*each, out.folder) for each in zip(window, scores, reasons, strict=True)])
                captions += sum(value is not None for own_scores in scores for value in own_scores)
                rate = captions * runtime.world_size / (time.monotonic() - started)
                bar.update(task, advance=len(window) * runtime.world_size, rate=f"{rate:,.0f} captions/s")
        return out.finish()

    def _scores(
        self, parts: Iterator[list[Record]], expected: int | None, workers: int | None
    ) -> Iterator[tuple[list[Record], list[list[float | None]], list[str | None]]]:
        """Windows of records, the score of each caption that is judged, and why an image cannot be used."""
        from capivara_cli.embeddings import embed_windows

        if self.clip is None:
            for window in parts:
                yield window, [self._there(record) for record in window], [None] * len(window)
            return
        waiting: deque[list[Record]] = deque()

        def refs() -> Iterator[list[Any]]:
            for window in parts:
                waiting.append(window)
                yield [record.image for record in window]

        for kept, images, errors in embed_windows(self.clip, refs(), expected, workers):
            window = waiting.popleft()
            scores = self._cosines([window[i] for i in kept], images)
            places = dict(zip(kept, scores, strict=True))
            everywhere = range(len(window))
            yield window, [places.get(i, []) for i in everywhere], [errors.get(i) for i in everywhere]

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
                raise CapivaraError(
                    f"{record.where}: caption {number} ({caption['lang']}) has no score",
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
                result[row][i] = round(float(cosine), 4)
        return result

    def _outcome(self, record: Record, scores: list[float | None], reason: str | None, folder: Path) -> Outcome:
        data = record.for_folder(folder)
        if reason is not None:
            if self.strict:
                raise CapivaraError(f"{record.where}: {record.image}: {reason}", "without --strict it is left out")
            return Outcome(data, reason)
        return decide(data, record.captions, scores, self.asked)


def decide(
    data: dict[str, Any], captions: Sequence[dict[str, Any]], scores: Sequence[float | None], asked: Asked
) -> Outcome:
    """What becomes of a record, by the scores of those captions that are judged (None of the others).

    Args:
        data: the record to write, its captions put in here.
        captions: those that it came with.
    """
    if not captions:
        return Outcome(data)
    fresh = [dict(caption) for caption in captions]
    for caption, value in zip(fresh, scores, strict=True):
        if value is not None:
            caption["score"] = value
        if value is not None or asked.covers(caption["lang"]):
            caption.pop(REJECTED, None)  # of an earlier verdict
    roots = [records.lineage(captions, i)[-1] for i in range(len(captions))]
    human = [captions[root].get("source") in (None, *asked.human) for root in roots]
    pair = _pair_reason(scores, human, asked.pair_score)
    reasons = [pair] * len(fresh) if pair else _reasons(fresh, scores, human, asked)
    marked = [
        {**caption, REJECTED: reason} if reason else caption for caption, reason in zip(fresh, reasons, strict=True)
    ]
    if asked.keep_all:
        return Outcome(data | {"captions": marked})
    kept = [i for i, reason in enumerate(reasons) if reason is None]
    if not kept:
        return Outcome(data | {"captions": marked}, pair or NOTHING_LEFT)
    dropped = tuple({"id": data["id"], **marked[i]} for i, reason in enumerate(reasons) if reason)
    return Outcome(data | {"captions": records.without(fresh, kept)}, parts=dropped)


def _pair_reason(scores: Sequence[float | None], human: Sequence[bool], least: float | None) -> str | None:
    """Why the whole image goes: the paper's filter of CC3M. One without a human caption stays."""
    own = [value for value, is_human in zip(scores, human, strict=True) if value is not None and is_human]
    if least is None or not own or max(own) >= least:
        return None
    return f"{PAIR} {least:g}"


def _reasons(
    captions: Sequence[dict[str, Any]], scores: Sequence[float | None], human: Sequence[bool], asked: Asked
) -> list[str | None]:
    """Why each caption is dropped: judged by itself, or by what it was translated from."""
    verdicts: dict[int, str | None] = {}
    judged = [i for i, value in enumerate(scores) if value is not None]
    for lang in dict.fromkeys(captions[i]["lang"] for i in judged):
        own = [i for i in judged if captions[i]["lang"] == lang]
        items = [filters.Caption(captions[i]["text"], scores[i] or 0.0, not human[i]) for i in own]
        verdicts |= zip(own, filters.judge(items, asked.strategy), strict=True)
    if asked.by is None:
        return [verdicts.get(i) for i in range(len(captions))]
    reasons: list[str | None] = [None] * len(captions)
    for i, caption in enumerate(captions):
        judge = next((place for place in records.lineage(captions, i) if place in verdicts), None)
        if judge is not None and asked.covers(caption["lang"]):
            reasons[i] = verdicts[judge]
    # What was judged goes with its translations, unless one in another language still stands on it.
    needed = {place for i, reason in enumerate(reasons) if reason is None for place in records.lineage(captions, i)[1:]}
    for i, verdict in verdicts.items():
        if verdict and i not in needed:
            reasons[i] = verdict
    return reasons
