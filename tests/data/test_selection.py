"""What becomes of a record by its captions' scores."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capivara_cli.data.filters import Strategy
from capivara_cli.data.captions import lineage, select
from capivara_cli.data.selection import Asked, decide


def record_of(*captions: tuple[str, str, int | None]) -> list[dict[str, Any]]:
    """Text, language and parent of each."""
    return [
        {"text": text, "lang": lang} | ({"parent": parent, "source": "google"} if parent is not None else {})
        for text, lang, parent in captions
    ]


CAPTIONS = record_of(("a", "en", None), ("b", "en", None), ("A", "hi", 0), ("B", "hi", 1), ("X", "xh", 1))


def test_the_verdict_on_the_english_falls_on_what_was_translated_from_it() -> None:
    asked = Asked(langs=("hi", "xh"), by="en", strategy=Strategy(min_score=0.2))
    outcome = decide({"id": "1"}, CAPTIONS, [0.3, 0.1, None, None, None], asked)
    assert outcome.data["captions"] == [
        {"text": "a", "lang": "en", "score": 0.3},
        {"text": "A", "lang": "hi", "parent": 0, "source": "google"},
    ]
    assert [(part["text"], part["rejected"]) for part in outcome.parts] == [
        ("b", "score below 0.2"),
        ("B", "score below 0.2"),
        ("X", "score below 0.2"),
    ]


def test_what_another_language_still_stands_on_stays() -> None:
    asked = Asked(langs=("hi",), by="en", strategy=Strategy(min_score=0.2))
    outcome = decide({"id": "1"}, CAPTIONS, [0.3, 0.1, None, None, None], asked)
    assert [(each["text"], each.get("parent")) for each in outcome.data["captions"]] == [
        ("a", None),
        ("b", None),
        ("A", 0),
        ("X", 1),
    ]


def test_a_chain_of_translations_follows_its_beginning() -> None:
    chain = record_of(("a", "en", None), ("A", "hi", 0), ("X", "xh", 1), ("other", "xh", None))
    outcome = decide({"id": "1"}, chain, [0.1, None, None, None], Asked(by="en", strategy=Strategy(min_score=0.2)))
    assert outcome.data["captions"] == [{"text": "other", "lang": "xh"}]


def test_parents_are_counted_anew() -> None:
    asked = Asked(langs=("hi",), strategy=Strategy(min_score=0.2))
    captions = record_of(("a", "en", None), ("A", "hi", 0), ("B", "hi", 0), ("X", "xh", 2), ("C", "hi", 9))
    outcome = decide({"id": "1"}, captions, [None, 0.1, 0.3, None, 0.5], asked)
    assert [(each["text"], each.get("parent")) for each in outcome.data["captions"]] == [
        ("a", None),
        ("B", 0),
        ("X", 1),
        ("C", None),
    ]


@pytest.mark.parametrize(("human", "rejected"), [(0.1, True), (0.2, False)])
def test_an_image_whose_human_caption_scores_too_low_goes_as_a_whole(human: float, rejected: bool) -> None:
    captions: list[dict[str, Any]] = [
        {"text": "h", "lang": "en", "source": "human"},
        {"text": "g", "lang": "en", "source": "blip2"},
        {"text": "H", "lang": "hi", "parent": 0, "source": "google"},
    ]
    outcome = decide({"id": "1"}, captions, [human, 0.9, None], Asked(("hi",), by="en", pair_score=0.2))
    assert outcome.reason == ("human caption's score below 0.2" if rejected else None)
    assert len(outcome.data["captions"]) == 3


def test_who_counts_as_a_person() -> None:
    captions: list[dict[str, Any]] = [{"text": "h", "lang": "en", "source": "crowd"}, {"text": "n", "lang": "en"}]
    by_name = decide({"id": "1"}, captions, [0.1, 0.9], Asked(pair_score=0.2, human=("human",)))
    assert by_name.reason is None  # the caption without a source is a person's, and is good
    first = Asked(strategy=Strategy(first=0))
    assert len(decide({"id": "1"}, captions, [0.1, 0.9], first).data["captions"]) == 1
    crowd = Asked(strategy=Strategy(first=0), human=("crowd",))
    assert len(decide({"id": "1"}, captions, [0.1, 0.9], crowd).data["captions"]) == 2


def test_a_record_that_has_nothing_left_is_rejected_with_all_reasons() -> None:
    outcome = decide({"id": "1", "x": 2}, CAPTIONS[:2], [0.1, 0.0], Asked(strategy=Strategy(min_score=0.2)))
    assert outcome.reason == "every caption was dropped"
    assert [each["rejected"] for each in outcome.data["captions"]] == ["score below 0.2"] * 2
    assert outcome.data["x"] == 2
    assert not outcome.parts


def test_each_language_has_a_best_of_its_own() -> None:
    captions = record_of(("a", "en", None), ("b", "en", None), ("A", "hi", 0), ("B", "hi", 1))
    outcome = decide({"id": "1"}, captions, [0.9, 0.8, 0.1, 0.2], Asked(strategy=Strategy(top_k=1)))
    assert [each["text"] for each in outcome.data["captions"]] == ["a", "B"]


PARENTS = st.none() | st.integers(-1, 6) | st.sampled_from(["0", 1.0, True, [0]])


@given(st.lists(st.tuples(st.sampled_from(["en", "hi", "xh"]), PARENTS), max_size=7), st.data())
def test_whatever_is_dropped_the_parents_that_are_left_are_the_same_captions(
    found: list[tuple[str, Any]], data: st.DataObject
) -> None:
    captions: list[dict[str, Any]] = [
        {"text": str(i), "lang": lang} | ({} if parent is None else {"parent": parent})
        for i, (lang, parent) in enumerate(found)
    ]
    kept = data.draw(st.lists(st.sampled_from(range(len(captions))), unique=True).map(sorted)) if captions else []
    after = select(captions, kept)
    assert [each["text"] for each in after] == [str(i) for i in kept]
    for i, caption in zip(kept, after, strict=True):
        own = lineage(captions, i)
        if len(own) > 1 and own[1] in kept:
            assert after[caption["parent"]]["text"] == str(own[1])
        elif "parent" in caption:
            assert caption["parent"] == kept.index(i)  # its own parent, as it came


def test_a_dropped_caption_has_its_records_id_and_what_was_judged_in_its_stead() -> None:
    captions: list[dict[str, Any]] = [
        {"id": 7, "text": "b", "lang": "en"},
        {"id": 8, "text": "B", "lang": "hi", "parent": 0},
        {"text": "c", "lang": "en"},
    ]
    asked = Asked(langs=("hi",), by="en", strategy=Strategy(min_score=0.2))
    outcome = decide({"id": "1"}, captions, [0.1, None, 0.3], asked)
    assert outcome.parts == (
        {"id": "1", "caption_id": 7, "text": "b", "lang": "en", "score": 0.1, "rejected": "score below 0.2"},
        {
            "id": "1",
            "caption_id": 8,
            "text": "B",
            "lang": "hi",
            "rejected": "score below 0.2",
            "judged": {"text": "b", "lang": "en", "score": 0.1},
        },
    )
