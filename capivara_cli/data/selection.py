"""What becomes of a record by the scores of its captions: which are dropped, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from capivara_cli.data import filters
from capivara_cli.data.captions import Caption, lineage, select, with_keys
from capivara_cli.data.filters import Candidate
from capivara_cli.data.options import SelectionOptions
from capivara_cli.data.output import RecordResult

HUMAN = "human"  # `source` of captions by people

# Why a whole image is dropped for its captions' sake; any other reason is that it cannot be used.
NOTHING_LEFT = "every caption was dropped"
PAIR = "human caption's score below"

JUDGED = "judged"  # key of a dropped caption: the original whose score decided on it


def is_verdict(reason: str) -> bool:
    """Return whether an image was dropped for its captions' sake, and not because it cannot be used."""
    return reason == NOTHING_LEFT or reason.startswith(PAIR)


def select_captions(
    data: dict[str, Any], captions: Sequence[Caption], scores: Sequence[float | None], options: SelectionOptions
) -> RecordResult:
    """Drop the captions of a record that the options do not keep, or mark them.

    Args:
        data: the record to write; its captions are replaced.
        captions: the captions that it came with.
        scores: of the captions that are judged; None for the others.
    """
    if not captions:
        return RecordResult(data)
    scored = [_with_score(caption, score, options) for caption, score in zip(captions, scores, strict=True)]
    pair_reason = _pair_reason(captions, scores, options)
    reasons = [pair_reason] * len(scored) if pair_reason else _reasons(scored, scores, options)
    marked = [
        with_keys(caption, rejected=reason) if reason else caption
        for caption, reason in zip(scored, reasons, strict=True)
    ]
    if options.keep_all:
        return RecordResult(data | {"captions": marked})
    kept = [i for i, reason in enumerate(reasons) if reason is None]
    if not kept:
        return RecordResult(data | {"captions": marked}, pair_reason or NOTHING_LEFT)
    parts = tuple(_part(data["id"], marked, i, options) for i, reason in enumerate(reasons) if reason)
    return RecordResult(data | {"captions": select(scored, kept)}, parts=parts)


def human_scores(captions: Sequence[Caption], scores: Sequence[float | None], options: SelectionOptions) -> list[float]:
    """Return the scores of human captions, and of translations of human captions: `--pair-score` goes by them."""
    return [score for i, score in enumerate(scores) if score is not None and _is_human(captions, i, options)]


def decided_by(captions: Sequence[Caption], i: int, options: SelectionOptions) -> int | None:
    """Return the index of the caption whose score decides on caption `i`: itself, or with `by` its original."""
    indices = lineage(captions, i) if options.by else [i]
    return next((index for index in indices if options.judges(captions[index]["lang"])), None)


def _is_human(captions: Sequence[Caption], i: int, options: SelectionOptions) -> bool:
    original = captions[lineage(captions, i)[-1]]
    return original.get("source") in (None, HUMAN, *options.human)


def _with_score(caption: Caption, score: float | None, options: SelectionOptions) -> Caption:
    """Return the caption with its new score, and without the mark of an earlier run if it is judged again."""
    caption = with_keys(caption) if score is None else with_keys(caption, score=score)
    if score is not None or options.covers(caption["lang"]):
        caption.pop("rejected", None)
    return caption


def _pair_reason(captions: Sequence[Caption], scores: Sequence[float | None], options: SelectionOptions) -> str | None:
    if options.pair_score is None:
        return None
    best = max(human_scores(captions, scores, options), default=options.pair_score)
    return f"{PAIR} {options.pair_score:g}" if best < options.pair_score else None


def _reasons(
    captions: Sequence[Caption], scores: Sequence[float | None], options: SelectionOptions
) -> list[str | None]:
    """Return why each caption is dropped: by its own score, or by that of what it was translated from."""
    verdicts = _verdicts(captions, scores, options)
    reasons: list[str | None] = [None] * len(captions)
    for i, caption in enumerate(captions):
        index = decided_by(captions, i, options)
        if index is not None and options.covers(caption["lang"]):
            reasons[i] = verdicts[index]
    # An original goes with its translations, unless one in another language stays, which needs it.
    needed = {parent for i, reason in enumerate(reasons) if reason is None for parent in lineage(captions, i)[1:]}
    for i, verdict in verdicts.items():
        if verdict and i not in needed:
            reasons[i] = verdict
    return reasons


def _verdicts(
    captions: Sequence[Caption], scores: Sequence[float | None], options: SelectionOptions
) -> dict[int, str | None]:
    """Judge the captions that have a score, each language on its own: index -> why it fails, or None."""
    candidates: dict[str, dict[int, Candidate]] = {}
    for i, (caption, score) in enumerate(zip(captions, scores, strict=True)):
        if score is not None:
            candidate = Candidate(caption["text"], score, generated=not _is_human(captions, i, options))
            candidates.setdefault(caption["lang"], {})[i] = candidate
    verdicts: dict[int, str | None] = {}
    for group in candidates.values():
        verdicts.update(zip(group, filters.judge(list(group.values()), options), strict=True))
    return verdicts


def _part(id_: object, captions: Sequence[Caption], i: int, options: SelectionOptions) -> dict[str, Any]:
    """Return a dropped caption as an object of its own, with the record's id.

    No `parent`: the index would point nowhere. The deciding original is included under `judged`.
    """
    part = {"id": id_}
    part.update({"caption_id" if key == "id" else key: value for key, value in captions[i].items() if key != "parent"})
    index = decided_by(captions, i, options)
    if index is not None and index != i:
        original = captions[index]
        part[JUDGED] = {"text": original["text"], "lang": original["lang"], "score": original["score"]}
    return part
