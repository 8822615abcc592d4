from __future__ import annotations

import itertools
import math
import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics.pairwise import cosine_similarity

from capivara_cli.data.filters import Candidate, judge, redundant, similarity, words
from capivara_cli.data.options import SelectionOptions

WORDS = ["red", "dog", "runs", "on", "the", "beach", "blue", "sky", "two", "birds"]
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), max_size=7).map(" ".join), min_size=1, max_size=8)
SCORES = st.integers(-20, 60).map(lambda number: number / 100)
CANDIDATES = st.lists(st.builds(Candidate, st.sampled_from(WORDS), SCORES, st.booleans()), max_size=10)


def generated(*scores: float) -> list[Candidate]:
    return [Candidate(f"text {number}", score, generated=True) for number, score in enumerate(scores)]


def test_without_a_strategy_all_stay() -> None:
    assert judge(generated(-1, 0, 1), SelectionOptions()) == [None, None, None]


def test_of_the_generated_captions_the_first_stay_and_all_human_ones() -> None:
    candidates = [Candidate(text, 0, generated=text != "human") for text in ("a", "human", "b", "c")]
    assert judge(candidates, SelectionOptions(first=2)) == [None, None, None, "not among the first 2 generated"]
    assert judge(candidates, SelectionOptions(first=0)).count(None) == 1


def test_a_score_that_equals_the_threshold_is_enough() -> None:
    reasons = judge(generated(0.2, 0.1999), SelectionOptions(min_score=0.2))
    assert reasons == [None, "score below 0.2"]


def test_a_strategy_sees_what_the_one_before_it_left() -> None:
    reasons = judge(generated(0.9, 0.1, 0.8, 0.95), SelectionOptions(first=3, min_score=0.2, top_k=1))
    assert reasons == [None, "score below 0.2", "not among the best 1", "not among the first 3 generated"]


@given(CANDIDATES, st.none() | st.integers(0, 5), st.none() | SCORES, st.none() | st.integers(1, 6))
def test_strategies_are_their_plain_definitions(
    candidates: list[Candidate], first: int | None, min_score: float | None, top_k: int | None
) -> None:
    left = list(enumerate(candidates))
    if first is not None:
        made = [i for i, candidate in left if candidate.generated]
        left = [(i, candidate) for i, candidate in left if not candidate.generated or i in made[:first]]
    if min_score is not None:
        left = [(i, candidate) for i, candidate in left if candidate.score >= min_score]
    if top_k is not None and len(left) > top_k:
        for subset in itertools.combinations(left, top_k):
            rest = [item for item in left if item not in subset]
            # Nothing outside is better than what is inside; of equal ones the earlier is inside.
            if all((a.score, -i) > (b.score, -j) for i, a in subset for j, b in rest):
                left = list(subset)
                break
    reasons = judge(candidates, SelectionOptions(first=first, min_score=min_score, top_k=top_k))
    assert [i for i, reason in enumerate(reasons) if reason is None] == [i for i, _ in left]


def naive_redundant(texts: list[str], scores: list[float], max_cosine: float, min_count: int) -> list[int]:
    """The definition again, with scikit-learn's TF-IDF, and the sums made anew each time."""
    if not any(re.findall(r"\w\w", text) for text in texts):
        return []
    cosines = cosine_similarity(TfidfVectorizer().fit_transform(texts))
    left = list(range(len(texts)))
    while len(left) > min_count and any(cosines[i, j] > max_cosine + 1e-12 for i, j in itertools.combinations(left, 2)):
        costs = {i: round(sum(cosines[i, j] for j in left if j != i), 9) for i in left}
        left.remove(max(left, key=lambda i: (costs[i], -scores[i], i)))
    return [i for i in range(len(texts)) if i not in left]


@settings(max_examples=150)
@given(TEXTS, st.sampled_from([0.0, 0.3, 0.55, 0.8]), st.integers(1, 4), st.randoms())
def test_the_most_redundant_goes_first(texts: list[str], max_cosine: float, min_count: int, rng: random.Random) -> None:
    scores = [rng.randrange(5) / 10 for _ in texts]
    assert redundant(texts, scores, max_cosine, min_count) == naive_redundant(texts, scores, max_cosine, min_count)


@given(TEXTS.filter(lambda texts: any(texts)))
def test_similarity_is_that_of_scikit_learn(texts: list[str]) -> None:
    expected = cosine_similarity(TfidfVectorizer().fit_transform(texts))
    np.testing.assert_allclose(similarity(texts), expected, atol=1e-12)


def test_similarity_by_hand() -> None:
    # "dog" is in both: idf ln(3/3) + 1 = 1; "red" in one: ln(3/2) + 1.
    rare = math.log(1.5) + 1
    expected = 1 / math.sqrt(1 + rare**2)
    np.testing.assert_allclose(similarity(["red dog", "dog"]), [[1, expected], [expected, 1]])


def test_the_most_diverse_captions_stay() -> None:
    """The published code drops a caption that is like no other."""
    texts = ["a red dog runs", "a red dog runs fast", "two birds", "the red dog runs"]
    assert 2 not in redundant(texts, [0.3] * 4, 0.3, 1)


@pytest.mark.parametrize(
    ("scores", "min_count", "dropped"),
    [([0.1, 0.5, 0.3], 1, [0, 2]), ([0.1, 0.5, 0.3], 3, []), ([0.3, 0.1, 0.2], 2, [1]), ([0.3, 0.3, 0.3], 2, [2])],
)
def test_of_equally_redundant_captions_the_lowest_score_goes_and_the_minimum_stays(
    scores: list[float], min_count: int, dropped: list[int]
) -> None:
    assert redundant(["the same text"] * 3, scores, 0.3, min_count) == dropped


@pytest.mark.parametrize(("min_captions", "kept"), [(None, 3), (2, 2)])
def test_diversity_leaves_three_captions_unless_told_otherwise(min_captions: int | None, kept: int) -> None:
    same = [Candidate("the same text", 0.3, generated=True)] * 5
    reasons = judge(same, SelectionOptions(diverse=0.3, min_captions=min_captions))
    assert reasons == [None] * kept + ["too like another (TF-IDF above 0.3)"] * (5 - kept)


def test_words_of_scripts_with_marks_and_of_those_without_spaces() -> None:
    assert words("एक कुत्ते की तस्वीर") == ["एक", "कुत्ते", "की", "तस्वीर"]
    assert words("A dog's x2 tail") == ["dog", "x2", "tail"]
    assert words("一只狗 in 雪") == ["一", "只", "狗", "in", "雪"]
    assert words("क्\u200dष می\u200cخواهم") == ["क्\u200dष", "می\u200cخواهم"]  # joiners are parts of words
    assert words("") == []


def test_texts_without_words_are_like_nothing() -> None:
    assert redundant(["🙂", "🙂", "!"], [0, 0, 0], 0.3, 1) == []


def test_of_no_texts_none_is_dropped() -> None:
    assert redundant([], [], 0.3, 1) == []
