"""What becomes of a record by its captions' scores."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capivara_cli.data.captions import Caption, lineage, select
from capivara_cli.data.options import SelectionOptions
from capivara_cli.data.selection import select_captions

Options = SelectionOptions


def captions_of(*captions: tuple[str, str, int | None]) -> list[Caption]:
    """Make captions of text, language and parent."""
    made: list[Caption] = []
    for text, lang, parent in captions:
        made.append({"text": text, "lang": lang})
        if parent is not None:
            made[-1] |= {"parent": parent, "source": "google"}
    return made


CAPTIONS = captions_of(("a", "en", None), ("b", "en", None), ("A", "hi", 0), ("B", "hi", 1), ("X", "xh", 1))


def kept(captions: list[Caption], scores: list[float | None], options: SelectionOptions) -> list[tuple[str, Any]]:
    """Text and parent of the captions that stay."""
    result = select_captions({"id": "1"}, captions, scores, options)
    return [(caption["text"], caption.get("parent")) for caption in result.data["captions"]]


def test_the_verdict_on_the_english_falls_on_its_translations() -> None:
    options = Options(lang=["hi", "xh"], by="en", min_score=0.2)
    result = select_captions({"id": "1"}, CAPTIONS, [0.3, 0.1, None, None, None], options)
    assert result.data["captions"] == [
        {"text": "a", "lang": "en", "score": 0.3},
        {"text": "A", "lang": "hi", "parent": 0, "source": "google"},
    ]
    assert [(part["text"], part["rejected"]) for part in result.parts] == [
        (text, "score below 0.2") for text in ("b", "B", "X")
    ]


def test_an_original_that_another_language_needs_stays() -> None:
    options = Options(lang=["hi"], by="en", min_score=0.2)
    after = kept(CAPTIONS, [0.3, 0.1, None, None, None], options)
    assert after == [("a", None), ("b", None), ("A", 0), ("X", 1)]


def test_a_chain_of_translations_follows_its_beginning() -> None:
    chain = captions_of(("a", "en", None), ("A", "hi", 0), ("X", "xh", 1), ("other", "xh", None))
    assert kept(chain, [0.1, None, None, None], Options(by="en", min_score=0.2)) == [("other", None)]


def test_parents_are_numbered_anew() -> None:
    captions = captions_of(("a", "en", None), ("A", "hi", 0), ("B", "hi", 0), ("X", "xh", 2), ("C", "hi", 9))
    after = kept(captions, [None, 0.1, 0.3, None, 0.5], Options(lang=["hi"], min_score=0.2))
    assert after == [("a", None), ("B", 0), ("X", 1), ("C", None)]


def test_each_language_has_its_own_best() -> None:
    assert [text for text, _ in kept(CAPTIONS[:4], [0.9, 0.8, 0.1, 0.2], Options(top_k=1))] == ["a", "B"]


@pytest.mark.parametrize(("human", "reason"), [(0.1, "human caption's score below 0.2"), (0.2, None)])
def test_an_image_whose_human_caption_scores_too_low_goes_as_a_whole(human: float, reason: str | None) -> None:
    captions: list[Caption] = [
        {"text": "h", "lang": "en", "source": "human"},
        {"text": "g", "lang": "en", "source": "blip2"},
        {"text": "H", "lang": "hi", "parent": 0, "source": "google"},
    ]
    options = Options(lang=["hi"], by="en", pair_score=0.2)
    result = select_captions({"id": "1"}, captions, [human, 0.9, None], options)
    assert result.reason == reason
    assert len(result.data["captions"]) == 3


def test_human_are_captions_without_a_source_and_those_of_the_named_ones() -> None:
    captions: list[Caption] = [{"text": "c", "lang": "en", "source": "crowd"}, {"text": "n", "lang": "en"}]
    assert len(kept(captions, [0.1, 0.9], Options(pair_score=0.2))) == 2  # the caption without a source is good
    assert kept(captions, [0.1, 0.9], Options(first=0)) == [("n", None)]
    assert len(kept(captions, [0.1, 0.9], Options(first=0, human=["crowd"]))) == 2


def test_a_record_that_has_nothing_left_is_rejected_with_all_reasons() -> None:
    result = select_captions({"id": "1", "x": 2}, CAPTIONS[:2], [0.1, 0.0], Options(min_score=0.2))
    assert result.reason == "every caption was dropped"
    assert [caption["rejected"] for caption in result.data["captions"]] == ["score below 0.2"] * 2
    assert result.data["x"] == 2
    assert not result.parts


def test_a_dropped_caption_has_its_records_id_and_the_original_that_decided() -> None:
    captions: list[Any] = [
        {"id": 7, "text": "b", "lang": "en"},
        {"id": 8, "text": "B", "lang": "hi", "parent": 0},
        {"text": "c", "lang": "en"},
    ]
    options = Options(lang=["hi"], by="en", min_score=0.2)
    reason = {"rejected": "score below 0.2"}
    assert select_captions({"id": "1"}, captions, [0.1, None, 0.3], options).parts == (
        {"id": "1", "caption_id": 7, "text": "b", "lang": "en", "score": 0.1, **reason},
        {"id": "1", "caption_id": 8, "text": "B", "lang": "hi", **reason}
        | {"judged": {"text": "b", "lang": "en", "score": 0.1}},
    )


PARENTS = st.none() | st.integers(-1, 6) | st.sampled_from(["0", 1.0, True, [0]])


@given(st.lists(st.tuples(st.sampled_from(["en", "hi", "xh"]), PARENTS), max_size=7), st.data())
def test_whatever_is_dropped_the_parents_that_are_left_are_the_same_captions(
    langs_and_parents: list[tuple[str, Any]], data: st.DataObject
) -> None:
    captions: list[Any] = [
        {"text": str(i), "lang": lang} | ({} if parent is None else {"parent": parent})
        for i, (lang, parent) in enumerate(langs_and_parents)
    ]
    rows = data.draw(st.lists(st.sampled_from(range(len(captions))), unique=True).map(sorted)) if captions else []
    after = select(captions, rows)
    assert [caption["text"] for caption in after] == [str(i) for i in rows]
    for i, caption in zip(rows, after, strict=True):
        line = lineage(captions, i)
        if len(line) > 1 and line[1] in rows:
            assert after[caption["parent"]]["text"] == str(line[1])
        elif "parent" in caption:
            assert caption["parent"] == rows.index(i)  # it is its own parent, as it came
