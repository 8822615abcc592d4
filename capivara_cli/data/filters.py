"""Which captions of an image are worth learning from: the recipe's strategies, as functions of texts and scores.

A strategy sees the captions of one image in one language, and says of each why it is dropped, or None. They follow
each other as in `judge`; each alone is one of arXiv 2310.13683's and its published training code's.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import regex

MIN_CAPTIONS = 3  # of an image, which diversity never goes below: the recipe's k_min


@dataclass(frozen=True)
class Caption:
    """A caption to judge.

    Attributes:
        score: cosine of its and the image's embeddings, -1 to 1.
        generated: whether a captioner made it, or what it was translated from.
    """

    text: str
    score: float
    generated: bool


@dataclass(frozen=True)
class Strategy:
    """What is asked of captions; None asks for nothing.

    Attributes:
        first: so many generated captions, the first ones.
        min_score: at least this score.
        top_k: so many captions, those with the best scores.
        diverse: TF-IDF cosine that two kept captions may have at most.
        min_captions: diversity leaves so many.
    """

    first: int | None = None
    min_score: float | None = None
    top_k: int | None = None
    diverse: float | None = None
    min_captions: int = MIN_CAPTIONS


def judge(captions: Sequence[Caption], strategy: Strategy) -> list[str | None]:
    """Why each caption of an image is dropped; None for those that stay. One strategy sees what the last one left."""
    reasons: list[str | None] = [None] * len(captions)

    def drop(which: Sequence[int], reason: str) -> None:
        for i in which:
            reasons[i] = reason

    def left() -> list[int]:
        return [i for i, reason in enumerate(reasons) if reason is None]

    if strategy.first is not None:
        generated = [i for i in left() if captions[i].generated]
        drop(generated[strategy.first :], f"not among the first {strategy.first} generated")
    if strategy.min_score is not None:
        drop([i for i in left() if captions[i].score < strategy.min_score], f"score below {strategy.min_score:g}")
    if strategy.top_k is not None:
        best = sorted(left(), key=lambda i: -captions[i].score)  # of equal ones the first
        drop(best[strategy.top_k :], f"not among the best {strategy.top_k}")
    if strategy.diverse is not None:
        there = left()
        texts, scores = [captions[i].text for i in there], [captions[i].score for i in there]
        alike = redundant(texts, scores, strategy.diverse, strategy.min_captions)
        drop([there[i] for i in alike], f"too like another (TF-IDF above {strategy.diverse:g})")
    return reasons


def redundant(texts: Sequence[str], scores: Sequence[float], most: float, at_least: int) -> list[int]:
    """Which texts to drop until no two have a TF-IDF cosine above `most`, but never so that fewer than `at_least` stay.

    The one with the largest sum of cosines to the others that are left goes first; of two with the same, that with
    the lower score. (The published code then also drops each caption that is like no other, the most diverse ones;
    that is not followed here.)
    """
    if len(texts) <= at_least:
        return []
    similar = similarity(texts)
    similar.flat[:: len(texts) + 1] = 0  # to itself
    most += 1e-9  # two texts that are the same may come to 1.0000000000000002
    if similar.max() <= most:
        return []
    cost = similar.sum(axis=0)
    here, dropped = list(range(len(texts))), []
    while len(here) > at_least and similar.max() > most:
        # Sums of the same numbers in another order differ in their last bits, and equal they are.
        worst = max(here, key=lambda i: (round(float(cost[i]), 9), -scores[i], i))
        cost -= similar[worst]
        similar[worst] = similar[:, worst] = 0
        here.remove(worst)
        dropped.append(worst)
    return sorted(dropped)


def similarity(texts: Sequence[str]) -> np.ndarray:
    """(n, n) float64 cosines of the texts' TF-IDF vectors, fitted on these texts.

    As scikit-learn's TfidfVectorizer has it: idf = ln((1 + n) / (1 + df)) + 1, vectors of length 1, words of at least
    two letters in lower case. Only what a word is differs: its own cuts Hindi at every vowel sign, and takes a Chinese
    sentence for one word.
    """
    import numpy as np

    counts = [Counter(words(text)) for text in texts]
    found = Counter(word for own in counts for word in own)  # texts that it is in
    column = {word: i for i, word in enumerate(found)}
    idf = {word: math.log((1 + len(texts)) / (1 + count)) + 1 for word, count in found.items()}
    vectors = np.zeros((len(texts), len(column)))
    for row, own in zip(vectors, counts, strict=True):
        for word, count in own.items():
            row[column[word]] = count * idf[word]
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))  # 0 of a text without words, which is like no other
    vectors /= np.where(lengths > 0, lengths, 1)[:, None]
    return vectors @ vectors.T


def words(text: str) -> list[str]:
    """Words of at least two characters, marks and joiners included; each letter of scripts without spaces."""
    return _pattern().findall(text.lower())


@lru_cache(maxsize=1)
def _pattern() -> regex.Pattern[str]:
    import regex

    spaceless = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
    return regex.compile(rf"(?V1)[{spaceless}]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}_\u200C\u200D]--[{spaceless}]]{{2,}}")
