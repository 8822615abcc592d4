"""Which captions of an image are worth learning from: the recipe's strategies, as functions of texts and scores.

The strategies are those of arXiv 2310.13683 and of its published training code. They see the captions of one image in
one language.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from capivara_cli.data.options import MIN_CAPTIONS, SelectionOptions

if TYPE_CHECKING:
    import numpy as np
    import regex


@dataclass(frozen=True)
class Candidate:
    """A caption to judge.

    Attributes:
        score: cosine of its and the image's embeddings, -1 to 1.
        generated: whether a captioner made it, or what it was translated from.
    """

    text: str
    score: float
    generated: bool


def judge(candidates: Sequence[Candidate], options: SelectionOptions) -> list[str | None]:
    """Return why each caption of an image is dropped; None for those that stay.

    Each strategy sees what the one before it has left.
    """
    reasons: list[str | None] = [None] * len(candidates)

    def remaining() -> list[int]:
        return [i for i, reason in enumerate(reasons) if reason is None]

    def drop(indices: Sequence[int], reason: str) -> None:
        for i in indices:
            reasons[i] = reason

    if options.first is not None:
        generated = [i for i in remaining() if candidates[i].generated]
        drop(generated[options.first :], f"not among the first {options.first} generated")
    if options.min_score is not None:
        low = [i for i in remaining() if candidates[i].score < options.min_score]
        drop(low, f"score below {options.min_score:g}")
    if options.top_k is not None:
        best_first = sorted(remaining(), key=lambda i: -candidates[i].score)  # stable: of equal scores the earlier
        drop(best_first[options.top_k :], f"not among the best {options.top_k}")
    if options.diverse is not None:
        left = remaining()
        texts, scores = [candidates[i].text for i in left], [candidates[i].score for i in left]
        alike = redundant(texts, scores, options.diverse, options.min_captions or MIN_CAPTIONS)
        drop([left[i] for i in alike], f"too like another (TF-IDF above {options.diverse:g})")
    return reasons


def redundant(texts: Sequence[str], scores: Sequence[float], max_cosine: float, min_count: int) -> list[int]:
    """Return which texts to drop so that no two have a TF-IDF cosine above `max_cosine`; `min_count` stay at least.

    The text with the largest sum of cosines to the others is dropped first; of two with the same sum, the one with the
    lower score. (The published code then also drops each caption that is like no other, which are the most diverse
    ones; that is not followed here.)
    """
    if len(texts) <= min_count:
        return []
    similar = similarity(texts)  # (n, n)
    similar.flat[:: len(texts) + 1] = 0  # the diagonal: each text with itself
    max_cosine += 1e-9  # the cosine of two equal texts may come out as 1.0000000000000002
    if similar.max() <= max_cosine:
        return []
    cost = similar.sum(axis=0)  # (n,)
    left, dropped = list(range(len(texts))), []
    while len(left) > min_count and similar.max() > max_cosine:
        # Rounded, because equal sums that are added in another order differ in their last bits.
        worst = max(left, key=lambda i: (round(float(cost[i]), 9), -scores[i], i))
        cost -= similar[worst]
        similar[worst] = similar[:, worst] = 0
        left.remove(worst)
        dropped.append(worst)
    return sorted(dropped)


def similarity(texts: Sequence[str]) -> np.ndarray:
    """Return the (n, n) float64 cosines of the texts' TF-IDF vectors, fitted on these texts.

    The formula is that of scikit-learn's TfidfVectorizer: idf = ln((1 + n) / (1 + df)) + 1, vectors of length 1, words
    of at least two letters in lower case. Only `words` differs: scikit-learn's pattern cuts Hindi at every vowel sign,
    and takes a Chinese sentence for one word.
    """
    import numpy as np

    counts = [Counter(words(text)) for text in texts]
    document_frequency = Counter(word for count in counts for word in count)
    column = {word: i for i, word in enumerate(document_frequency)}
    idf = {word: math.log((1 + len(texts)) / (1 + df)) + 1 for word, df in document_frequency.items()}
    vectors = np.zeros((len(texts), len(column)))
    for row, count in zip(vectors, counts, strict=True):
        for word, number in count.items():
            row[column[word]] = number * idf[word]
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))  # (n,); 0 for a text without words
    vectors /= np.where(lengths > 0, lengths, 1)[:, None]
    return vectors @ vectors.T


def words(text: str) -> list[str]:
    """Return the words of at least two characters, with marks and joiners; in scripts without spaces, each letter."""
    return _pattern().findall(text.lower())


@lru_cache(maxsize=1)
def _pattern() -> regex.Pattern[str]:
    import regex

    spaceless = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
    # U+200C and U+200D join letters within a word, in Persian and Hindi for example.
    return regex.compile(rf"(?V1)[{spaceless}]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}_\u200C\u200D]--[{spaceless}]]{{2,}}")
