"""What `capivara score` shows at its end."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest

from capivara_cli.data.filters import Strategy
from capivara_cli.data.output import Outcome, Tally
from capivara_cli.data.selection import Asked, decide
from capivara_cli.scoring.report import Report
from tests.data.test_selection import CAPTIONS


def shown(asked: Asked, *outcomes: Outcome, width: int = 80) -> tuple[Report, str]:
    """The report of what became of records, and its lines."""
    report = Report(asked)
    tally = Tally(look=report)
    for outcome in outcomes:
        for mark, line in outcome.lines():
            tally.add(mark, line)
    with pytest.MonkeyPatch.context() as patch, io.StringIO() as screen:
        patch.setattr(sys, "stderr", screen)
        patch.setenv("COLUMNS", str(width))
        report.show(Path("out.jsonl"))
        return report, screen.getvalue()


@pytest.mark.parametrize("keep_all", [False, True])
def test_a_caption_that_failed_and_stays_for_anothers_sake_is_no_good_one(keep_all: bool) -> None:
    asked = Asked(langs=("hi",), by="en", strategy=Strategy(min_score=0.2), keep_all=keep_all)
    outcome = decide({"id": "1"}, CAPTIONS, [0.3, 0.1, None, None, None], asked)
    report, text = shown(asked, outcome)
    assert (sum(report.kept.values()), sum(report.dropped.values())) == (1, 1)
    assert "1 of 1 images, 3 of 4 captions (75%) kept" in " ".join(text.split())
    assert "█ kept ░ dropped" in text


def test_hundreds_of_sources_are_shown_by_the_largest() -> None:
    def captions(number: int) -> list[dict[str, Any]]:
        return [{"text": f"{i}", "lang": "en", "source": f"annotator {number}"} for i in range(2)]

    asked = Asked(strategy=Strategy(min_score=0.2, top_k=1))
    outcomes = [decide({"id": str(i)}, captions(i), [0.1, 0.3], asked) for i in range(1100)]
    outcomes += [decide({"id": f"again {i}"}, captions(7), [0.25, 0.3], asked) for i in range(3)]
    report, text = shown(asked, *outcomes)
    rows = [line.split() for line in text.splitlines()]
    assert ["annotator", "7", "(en)", "4", "1", "3"] in rows
    assert ["all", "1,103", "1,100", "3"] in rows
    assert len(report.sources) == 1001
    assert sum("annotator" in row for row in rows) + sum("others" in row for row in rows) == 21


def test_a_bin_begins_where_it_says() -> None:
    captions = [{"text": str(i), "lang": "en"} for i in range(41)]
    report, _ = shown(Asked(), decide({"id": "1"}, captions, [i * 0.005 for i in range(41)], Asked()))
    assert report.kept == dict.fromkeys(range(41), 1)
