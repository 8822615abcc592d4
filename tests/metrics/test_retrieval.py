from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from capivara_cli.errors import CapivaraError
from capivara_cli.metrics.retrieval import QueryRanks, Ranks, rank_queries, summarise

DIMENSIONS = 3
KS = (1, 2, 5)


def ranks_of(texts: np.ndarray, images: np.ndarray, rows: list[int], block: int | None = None) -> Ranks:
    return rank_queries(
        torch.tensor(texts, dtype=torch.float32),
        torch.tensor(images, dtype=torch.float32),
        torch.tensor(rows),
        block=block,
    )


def unit(total: int, seed: int, dimensions: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(total, dimensions, generator=generator), dim=1)


def chances(greater: int, tied: int, positives: int, k: int) -> tuple[Fraction, Fraction]:
    """P(hit at k) and the expected rank of the first positive: the mean over all orders of the tied items."""
    items = [True] * positives + [False] * tied
    orders = set(itertools.permutations(items))
    first = [greater + 1 + order.index(True) for order in orders]  # each distinct order is as likely as another
    return Fraction(sum(rank <= k for rank in first), len(first)), Fraction(sum(first), len(first))


def naive(scores: np.ndarray, positive: np.ndarray, k: int) -> tuple[list[float], list[float]]:
    """The same for each row of the scores that has a positive, counted one item at a time."""
    hits, ranks = [], []
    for query in range(len(scores)):
        if not positive[query].any():
            continue
        best = max(scores[query, item] for item in range(scores.shape[1]) if positive[query, item])
        greater = tied = top = 0
        for item in range(scores.shape[1]):
            if positive[query, item]:
                top += scores[query, item] == best
            else:
                greater += scores[query, item] > best
                tied += scores[query, item] == best
        hit, rank = chances(int(greater), int(tied), int(top), k)
        hits.append(float(hit))
        ranks.append(float(rank))
    return hits, ranks


@st.composite
def collections(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Small integers: their dot products are exact, and often tie."""
    texts = draw(st.integers(1, 6))
    images = draw(st.integers(1, 5))
    entries = st.integers(-2, 2)
    return (
        draw(arrays(np.int64, (texts, DIMENSIONS), elements=entries)),
        draw(arrays(np.int64, (images, DIMENSIONS), elements=entries)),
        draw(st.lists(st.integers(0, images - 1), min_size=texts, max_size=texts)),
    )


@settings(deadline=None, max_examples=150, database=None)
@given(collections(), st.integers(1, 8), st.sampled_from([None, 1, 2, 4]))
def test_hits_and_ranks_are_those_of_counting_one_by_one(
    case: tuple[np.ndarray, np.ndarray, list[int]], k: int, block: int | None
) -> None:
    texts, images, rows = case
    ranks = ranks_of(texts, images, rows, block)
    scores = texts @ images.T
    positive = np.array(rows)[:, None] == np.arange(len(images))
    for direction, grid, mask in (
        (ranks.text_to_image, scores, positive),
        (ranks.image_to_text, scores.T, positive.T),
    ):
        hits, expected = naive(grid, mask, k)
        np.testing.assert_allclose(direction.hits(k), hits, atol=1e-12)
        np.testing.assert_allclose(direction.expected(), expected, atol=1e-12)


@pytest.mark.parametrize("greater", [0, 2])
@pytest.mark.parametrize("tied", [0, 1, 3, 4])
@pytest.mark.parametrize("positives", [1, 2, 3])
def test_a_tie_counts_as_its_mean_over_all_orders(greater: int, tied: int, positives: int) -> None:
    direction = QueryRanks(np.array([greater]), np.array([tied]), np.array([positives]))
    for k in range(1, greater + tied + positives + 3):
        hit, rank = chances(greater, tied, positives, k)
        assert direction.hits(k)[0] == pytest.approx(float(hit), abs=1e-12)
        assert direction.expected()[0] == pytest.approx(float(rank))


def test_shifted_pairs_are_found_by_chance_among_the_rest() -> None:
    """Each query's positive ties with N - 2 others, below one item that is wrong."""
    direction = ranks_of(np.eye(4), np.eye(4), [1, 2, 3, 0]).text_to_image
    assert (direction.greater.tolist(), direction.tied.tolist()) == ([1] * 4, [2] * 4)
    assert direction.hits(1).tolist() == [0] * 4
    assert direction.hits(2) == pytest.approx([1 / 3] * 4)
    assert direction.expected() == pytest.approx([3.0] * 4)


def test_a_known_matrix_gives_the_known_metrics() -> None:
    # Rows are texts; image 0 has the texts 0 and 1, image 1 has text 2, nobody describes image 2.
    scores = np.array([[0.9, 0.1, 0.3], [0.2, 0.8, 0.5], [0.7, 0.6, 0.4]])
    metrics = summarise(ranks_of(scores, np.eye(3), [0, 0, 1]), (1, 2))
    assert metrics == pytest.approx(
        {
            "image_retrieval_recall@1": 1 / 3,  # the texts' ranks are 1, 3, 2
            "image_retrieval_recall@2": 2 / 3,
            "image_retrieval_mean_recall": 1 / 2,
            "image_retrieval_median_rank": 2.0,
            "image_retrieval_mrr": (1 + 1 / 3 + 1 / 2) / 3,
            "text_retrieval_recall@1": 1 / 2,  # image 0 is first with text 0; image 1 finds text 1 before its own
            "text_retrieval_recall@2": 1.0,
            "text_retrieval_mean_recall": 3 / 4,
            "text_retrieval_median_rank": 1.5,
            "text_retrieval_mrr": 3 / 4,
            "mean_recall": 5 / 8,
        }
    )


def test_an_image_without_a_text_is_a_distractor_and_no_query() -> None:
    images = np.array([[1, 0], [0, 1], [2, 0]])
    ranks = ranks_of(np.eye(2), images, [0, 1])
    assert ranks.image_rows.tolist() == [0, 1]
    assert ranks.text_to_image.greater.tolist() == [1, 0]
    assert len(ranks.image_to_text.greater) == 2


@pytest.mark.parametrize("total", [7, 100, 1000])
def test_constant_embeddings_score_as_chance_does(total: int) -> None:
    vector = unit(1, 3, 64).expand(total, 64)
    ranks = rank_queries(vector, vector, torch.arange(total))
    for direction in (ranks.text_to_image, ranks.image_to_text):
        for k in (1, 5):
            assert direction.hits(k) == pytest.approx([k / total] * total, abs=1e-12)
        assert direction.expected() == pytest.approx([(total + 1) / 2] * total)


def test_twins_tie_although_their_dot_products_are_rounded() -> None:
    images = unit(1000, 0, 512)
    twins = torch.cat([images, images])
    direction = rank_queries(images, twins, torch.arange(1000)).text_to_image
    assert direction.tied.tolist() == [1] * 1000
    assert direction.hits(1).tolist() == [0.5] * 1000


def test_a_difference_above_rounding_is_no_tie() -> None:
    direction = ranks_of(np.array([[1.0, 0.0]]), np.array([[1.0, 0.0], [1.0 - 1e-5, 0.0]]), [1]).text_to_image
    assert (direction.greater.tolist(), direction.tied.tolist()) == ([1], [0])


def test_more_places_than_items_find_everything() -> None:
    ranks = rank_queries(unit(6, 0), unit(3, 1), torch.tensor([0, 0, 1, 1, 2, 2]))
    assert ranks.text_to_image.hits(10).tolist() == [1] * 6
    assert ranks.image_to_text.hits(10).tolist() == [1] * 3


@pytest.mark.parametrize("block", [1, 7, 64, 500, 10_000])
def test_the_result_does_not_depend_on_the_block(block: int) -> None:
    rows = torch.arange(500) // 5
    expected, got = (rank_queries(unit(500, 0), unit(120, 1), rows, block=size) for size in (None, block))
    for name in ("text_to_image", "image_to_text"):
        for field in ("greater", "tied", "positives"):
            np.testing.assert_array_equal(getattr(getattr(expected, name), field), getattr(getattr(got, name), field))


def test_half_precision_embeddings_are_ranked_in_full() -> None:
    texts, images = unit(40, 0).half(), unit(40, 1).half()
    half, full = (rank_queries(t, i, torch.arange(40)) for t, i in ((texts, images), (texts.float(), images.float())))
    np.testing.assert_array_equal(half.text_to_image.greater, full.text_to_image.greater)


@pytest.mark.parametrize(
    ("texts", "images", "rows", "message"),
    [
        ((2, 3), (2, 4), [0, 1], "are not"),
        ((2, 3, 1), (2, 3), [0, 1], "are not"),
        ((2, 3), (2, 3, 1), [0, 1], "are not"),
        ((2, 3), (2, 3), [0], "rows for 2 texts"),
        ((0, 3), (2, 3), [], "nothing to rank"),
        ((2, 3), (3, 3), [0, 3], "outside 0 to 2"),
        ((2, 3), (3, 3), [0, 9], "outside 0 to 2"),
        ((2, 3), (3, 3), [-1, 0], "outside 0 to 2"),
    ],
)
def test_what_does_not_fit_is_refused(
    texts: tuple[int, ...], images: tuple[int, ...], rows: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        rank_queries(torch.zeros(texts), torch.zeros(images), torch.tensor(rows, dtype=torch.int64))


@pytest.mark.parametrize("side", [0, 1])
def test_embeddings_that_are_not_finite_are_refused_and_not_ranked_first(side: int) -> None:
    sides = [unit(4, 0), unit(4, 1)]
    sides[side][2, 3] = torch.nan
    with pytest.raises(CapivaraError, match=rf"1 of 4 {['text', 'image'][side]} embeddings are NaN or infinite"):
        rank_queries(sides[0], sides[1], torch.arange(4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_finite_embeddings_are_ranked_even_if_their_sum_exceeds_the_range_of_their_type(dtype: torch.dtype) -> None:
    ones = torch.ones(300, 300, dtype=dtype)  # the sum, 90,000, is infinite in fp16
    ranks = rank_queries(ones, ones, torch.arange(300))
    assert ranks.text_to_image.tied.tolist() == [299] * 300
