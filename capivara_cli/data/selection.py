"""What becomes of a record by the scores of its captions: which of them go, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from capivara_cli.data.output import RecordResult
from capivara_cli.data.captions import REJECTED, select, lineage
from capivara_cli.data import filters, records
from capivara_cli.data.filters import Strategy

HUMAN = ("human",)

NOTHING_LEFT = "every caption was dropped"
PAIR = "human caption's score below"
"""Reasons why a whole image goes; any other is that it cannot be used."""

JUDGED = "judged"  # key of a dropped caption: the one that was scored in its stead


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

    def judges_any(self, captions: Sequence[dict[str, Any]]) -> bool:
        """Whether one of the captions is scored."""
        return any(self.judges(caption["lang"]) for caption in captions)

    @property
    def needed(self) -> list[str]:
        """Languages that the data must have."""
        return list(dict.fromkeys([*([self.by] if self.by else []), *self.langs]))


def is_verdict(reason: str) -> bool:
    """Whether an image goes for its captions' sake, and not because it cannot be used."""
    return reason == NOTHING_LEFT or reason.startswith(PAIR)


def decide(
    data: dict[str, Any], captions: Sequence[dict[str, Any]], scores: Sequence[float | None], asked: Asked
) -> RecordResult:
    """What becomes of a record, by the scores of those captions that are judged (None of the others).

    Args:
        data: the record to write, its captions put in here.
        captions: those that it came with.
    """
    if not captions:
        return RecordResult(data)
    fresh = [dict(caption) for caption in captions]
    for caption, value in zip(fresh, scores, strict=True):
        if value is not None:
            caption["score"] = value
        if value is not None or asked.covers(caption["lang"]):
            caption.pop(REJECTED, None)  # of an earlier verdict
    own = human_scores(captions, scores, asked)
    apart = asked.pair_score is not None and own and max(own) < asked.pair_score
    pair = f"{PAIR} {asked.pair_score:g}" if apart else None
    reasons = [pair] * len(fresh) if pair else _reasons(fresh, scores, asked)
    marked = [
        {**caption, REJECTED: reason} if reason else caption for caption, reason in zip(fresh, reasons, strict=True)
    ]
    if asked.keep_all:
        return RecordResult(data | {"captions": marked})
    kept = [i for i, reason in enumerate(reasons) if reason is None]
    if not kept:
        return RecordResult(data | {"captions": marked}, pair or NOTHING_LEFT)
    dropped = tuple(_part(data["id"], marked, i, asked) for i, reason in enumerate(reasons) if reason)
    return RecordResult(data | {"captions": select(fresh, kept)}, parts=dropped)


def human_scores(captions: Sequence[dict[str, Any]], scores: Sequence[float | None], asked: Asked) -> list[float]:
    """Scores of those captions that a person wrote, or that were translated from one's: `--pair-score` goes by them."""
    return [value for i, value in enumerate(scores) if value is not None and _is_human(captions, i, asked)]


def judge_of(captions: Sequence[dict[str, Any]], i: int, asked: Asked) -> int | None:
    """The caption whose score decides on this one: itself, or with `by` what it was made from in that language."""
    places = lineage(captions, i) if asked.by else [i]
    return next((place for place in places if asked.judges(captions[place]["lang"])), None)


def _is_human(captions: Sequence[dict[str, Any]], i: int, asked: Asked) -> bool:
    return captions[lineage(captions, i)[-1]].get("source") in (None, *asked.human)


def _part(id_: object, captions: Sequence[dict[str, Any]], i: int, asked: Asked) -> dict[str, Any]:
    """A dropped caption by itself: with its record's id, and in place of a parent that is not here what was judged."""
    caption = {("caption_id" if key == "id" else key): value for key, value in captions[i].items() if key != "parent"}
    judge = judge_of(captions, i, asked)
    if judge is None or judge == i:
        return {"id": id_, **caption}
    return {"id": id_, **caption, JUDGED: {key: captions[judge][key] for key in ("text", "lang", "score")}}


def _reasons(captions: Sequence[dict[str, Any]], scores: Sequence[float | None], asked: Asked) -> list[str | None]:
    """Why each caption is dropped: judged by itself, or by what it was translated from."""
    verdicts: dict[int, str | None] = {}
    judged = [i for i, value in enumerate(scores) if value is not None]
    for lang in dict.fromkeys(captions[i]["lang"] for i in judged):
        own = [i for i in judged if captions[i]["lang"] == lang]
        items = [filters.Caption(captions[i]["text"], scores[i] or 0.0, not _is_human(captions, i, asked)) for i in own]
        verdicts |= zip(own, filters.judge(items, asked.strategy), strict=True)
    if asked.by is None:
        return [verdicts.get(i) for i in range(len(captions))]
    reasons: list[str | None] = [None] * len(captions)
    for i, caption in enumerate(captions):
        judge = judge_of(captions, i, asked)
        if judge is not None and asked.covers(caption["lang"]):
            reasons[i] = verdicts[judge]
    # What was judged goes with its translations, unless one in another language still stands on it.
    needed = {place for i, reason in enumerate(reasons) if reason is None for place in lineage(captions, i)[1:]}
    for i, verdict in verdicts.items():
        if verdict and i not in needed:
            reasons[i] = verdict
    return reasons
