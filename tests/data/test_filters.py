from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics.pairwise import cosine_similarity

from capivara_cli.data.filters import Caption, Strategy, judge, redundant, similarity, words

WORDS = ["red", "dog", "runs", "on", "the", "beach", "blue", "sky", "two", "birds"]
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), max_size=7).map(" ".join), min_size=1, max_size=8)
SCORES = st.integers(-20, 60).map(lambda number: number / 100)
CAPTIONS = st.lists(
    st.builds(Caption, st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join), SCORES, st.booleans()),
    max_size=10,
)


def kept(captions: list[Caption], strategy: Strategy) -> list[Caption]:
    return [caption for caption, reason in zip(captions, judge(captions, strategy), strict=True) if reason is None]


def made(*scores: float) -> list[Caption]:
    return [Caption(f"text {number}", score, generated=number > 0) for number, score in enumerate(scores)]


def test_without_a_strategy_all_stay() -> None:
    assert judge(made(-1, 0, 1), Strategy()) == [None, None, None]


def test_the_first_generated_and_all_that_people_wrote() -> None:
    captions = [Caption("a", 0, True), Caption("b", 0, False), Caption("c", 0, True), Caption("d", 0, True)]
    assert judge(captions, Strategy(first=2)) == [None, None, None, "not among the first 2 generated"]
    assert judge(captions, Strategy(first=0)).count(None) == 1


def test_the_recipes_threshold_keeps_what_has_just_as_much() -> None:
    reasons = judge(made(0.2, 0.1999, 0.21, -0.3), Strategy(min_score=0.2))
    assert reasons == [None, "score below 0.2", None, "score below 0.2"]


def test_the_best_five_of_which_equal_ones_the_first() -> None:
    captions = made(0.1, 0.3, 0.2, 0.2, 0.3, 0.2, 0.05)
    assert [caption.text for caption in kept(captions, Strategy(top_k=4))] == ["text 1", "text 2", "text 3", "text 4"]


def test_one_strategy_sees_what_the_last_one_left() -> None:
    captions = [Caption("a", 0.9, True), Caption("b", 0.1, True), Caption("c", 0.8, True), Caption("d", 0.95, True)]
    reasons = judge(captions, Strategy(first=3, min_score=0.2, top_k=1))
    assert reasons == [None, "score below 0.2", "not among the best 1", "not among the first 3 generated"]


@given(CAPTIONS, st.none() | st.integers(0, 5), st.none() | SCORES, st.none() | st.integers(1, 6))
def test_strategies_are_their_plain_definitions(
    captions: list[Caption], first: int | None, least: float | None, best: int | None
) -> None:
    left = list(captions)
    if first is not None:
        generated = 0
        after = []
        for caption in left:
            generated += caption.generated
            if not caption.generated or generated <= first:
                after.append(caption)
        left = after
    if least is not None:
        left = [caption for caption in left if caption.score >= least]
    if best is not None and len(left) > best:
        for subset in itertools.combinations(range(len(left)), best):
            rest = [i for i in range(len(left)) if i not in subset]
            # Nothing outside is better than what is inside; of equal ones the earlier is inside.
            if all((left[i].score, -i) > (left[j].score, -j) for i in subset for j in rest):
                left = [left[i] for i in subset]
                break
    assert kept(captions, Strategy(first, least, best)) == left


def naive_redundant(texts: list[str], scores: list[float], most: float, at_least: int) -> list[int]:
    """The definition again, with scikit-learn's TF-IDF and the sums made anew each time."""
    if not any(re.findall(r"\w\w", text) for text in texts):
        return []
    cosines = cosine_similarity(TfidfVectorizer().fit_transform(texts))
    here = list(range(len(texts)))
    while len(here) > at_least and any(cosines[i, j] > most + 1e-12 for i, j in itertools.combinations(here, 2)):
        costs = {i: round(sum(cosines[i, j] for j in here if j != i), 9) for i in here}
        here.remove(max(here, key=lambda i: (costs[i], -scores[i], i)))
    return [i for i in range(len(texts)) if i not in here]


@settings(max_examples=150)
@given(TEXTS, st.sampled_from([0.0, 0.3, 0.55, 0.8]), st.integers(1, 4), st.randoms())
def test_the_most_redundant_goes_first(texts: list[str], most: float, at_least: int, random: object) -> None:
    scores = [random.randrange(5) / 10 for _ in texts]  # type: ignore[attr-defined]
    assert redundant(texts, scores, most, at_least) == naive_redundant(texts, scores, most, at_least)


@given(TEXTS)
def test_similarity_is_that_of_scikit_learn(texts: list[str]) -> None:
    if any(re.findall(r"\w\w", text) for text in texts):
        np.testing.assert_allclose(
            similarity(texts), cosine_similarity(TfidfVectorizer().fit_transform(texts)), atol=1e-12
        )


def test_similarity_by_hand() -> None:
    # "dog" is in both: idf ln(3/3) + 1 = 1; "red" in one: ln(3/2) + 1.
    rare = math.log(1.5) + 1
    expected = 1 / math.sqrt(1 + rare**2)
    np.testing.assert_allclose(similarity(["red dog", "dog"]), [[1, expected], [expected, 1]])


def test_the_most_diverse_captions_stay() -> None:
    """The published code drops a caption that is like no other."""
    texts = ["a red dog runs", "a red dog runs fast", "two birds", "the red dog runs"]
    assert 2 not in redundant(texts, [0.3] * 4, 0.3, 1)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_never_below_the_minimum(count: int) -> None:
    assert len(redundant(["the same text"] * 5, [0.1, 0.5, 0.3, 0.2, 0.4], 0.3, count)) == 5 - count


def test_of_equally_redundant_captions_the_one_with_the_lowest_score_goes() -> None:
    assert redundant(["the same text"] * 3, [0.3, 0.1, 0.2], 0.3, 2) == [1]
    assert redundant(["the same text"] * 3, [0.3, 0.3, 0.3], 0.3, 2) == [2]


def test_words_of_scripts_with_marks_and_of_those_without_spaces() -> None:
    assert words("एक कुत्ते की तस्वीर") == ["एक", "कुत्ते", "की", "तस्वीर"]
    assert words("A dog's x2 tail") == ["dog", "x2", "tail"]
    assert words("一只狗 in 雪") == ["一", "只", "狗", "in", "雪"]
    assert words("क्\u200dष می\u200cخواهم") == ["क्\u200dष", "می\u200cخواهم"]  # joiners are parts of words
    assert words("") == []


def test_texts_without_words_are_like_nothing() -> None:
    assert redundant(["🙂", "🙂", "!"], [0, 0, 0], 0.3, 1) == []
