"""What `capivara score` shows at its end."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from capivara_cli.data.captions import Caption
from capivara_cli.data.options import SelectionOptions
from capivara_cli.data.output import RecordResult, Tally
from capivara_cli.data.selection import select_captions
from capivara_cli.scoring.report import Report
from tests.data.test_selection import CAPTIONS


def shown(options: SelectionOptions, *results: RecordResult) -> tuple[Report, str]:
    """The report of what became of records, and its lines."""
    report = Report(options)
    tally = Tally(observer=report)
    for result in results:
        for mark, line in result.lines():
            tally.add(mark, line)
    with pytest.MonkeyPatch.context() as patch, io.StringIO() as screen:
        patch.setattr(sys, "stderr", screen)
        patch.setenv("COLUMNS", "80")
        report.show(Path("out.jsonl"))
        return report, screen.getvalue()


@pytest.mark.parametrize("keep_all", [False, True])
def test_an_original_that_failed_and_stays_for_another_language_counts_as_dropped(keep_all: bool) -> None:
    options = SelectionOptions(lang=["hi"], by="en", min_score=0.2, keep_all=keep_all)
    report, text = shown(options, select_captions({"id": "1"}, CAPTIONS, [0.3, 0.1, None, None, None], options))
    assert (sum(report.kept.values()), sum(report.dropped.values())) == (1, 1)
    assert "kept 1 of 1 images and 3 of 4 captions (75%)" in " ".join(text.split())
    assert "█ kept ░ dropped" in text


def test_captions_without_an_original_are_counted() -> None:
    options = SelectionOptions(lang=["hi"], by="en")
    captions: list[Caption] = [*CAPTIONS, {"text": "C", "lang": "hi"}]
    _, text = shown(options, select_captions({"id": "1"}, captions, [0.3, 0.1, None, None, None, None], options))
    assert "1 caption without an original in en: kept unjudged" in text


def test_hundreds_of_sources_are_shown_by_the_largest() -> None:
    options = SelectionOptions(min_score=0.2, top_k=1)

    def result(source: int, low: float) -> RecordResult:
        captions: list[Caption] = [{"text": str(i), "lang": "en", "source": f"annotator {source}"} for i in range(2)]
        return select_captions({"id": "x"}, captions, [low, 0.3], options)

    report, text = shown(options, *(result(i, 0.1) for i in range(1100)), *[result(7, 0.25)] * 3)
    rows = [line.split() for line in text.splitlines()]
    assert ["annotator", "7", "(en)", "4", "1", "3"] in rows
    assert ["all", "1,103", "1,100", "3"] in rows
    assert len(report.caption_sources) == 1001
    assert sum("annotator" in row for row in rows) + sum("others" in row for row in rows) == 21


def test_a_bin_begins_where_it_says() -> None:
    options = SelectionOptions()
    captions: list[Caption] = [{"text": str(i), "lang": "en"} for i in range(41)]
    scores: list[float | None] = [i * 0.005 for i in range(41)]
    report, _ = shown(options, select_captions({"id": "1"}, captions, scores, options))
    assert report.kept == dict.fromkeys(range(41), 1)
