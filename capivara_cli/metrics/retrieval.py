"""Retrieval metrics on embeddings: one pass over the scores, in blocks.

Ties are treated as if they were ordered at random: recall is the mean over all orders; median rank and MRR use the
expected rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from capivara_cli.errors import CapivaraError

if TYPE_CHECKING:
    from torch import Tensor

# Scores closer than this are tied. A float32 dot product of unit vectors has a rounding error of about 1e-7, which
# depends on the shape of the matrix product. Without a tolerance that noise would order equal embeddings, and a
# positive could lose against a copy of itself.
TIE = 1e-6

# Block of scores, texts x images: on a CPU it fits the cache, on a GPU it is large enough to keep it busy.
BLOCK = {"cpu": (1024, 1024), "cuda": (8192, 8192), "mps": (4096, 4096)}
TEXTS_PER_CHUNK = 4096  # for the scores of texts with their images: with D = 512, a chunk is 8 MB of float32


@dataclass(frozen=True)
class QueryRanks:
    """For each of Q queries, how many items are ranked before its best positive, or tied with it. (Q,) int64 each.

    Attributes:
        greater: number of negatives that score higher than the best positive.
        tied: number of negatives that tie with the best positive.
        positives: number of positives that tie with the best positive, itself included.
    """

    greater: np.ndarray
    tied: np.ndarray
    positives: np.ndarray

    def hits(self, k: int) -> np.ndarray:
        """(Q,) probability that a positive is among the first k, when ties are broken at random.

        Let t = tied, p = positives and m = k - greater, at least 0 and at most t + p. Of the t + p items that tie, m
        have a rank of at most k. The query misses if all m are negatives: probability C(t, m) / C(t + p, m)
        (hypergeometric). With one positive that is 1 - m / (t + 1).
        """
        slots = np.clip(k - self.greater, 0, self.tied + self.positives)  # (Q,) m
        miss = np.ones(len(slots))
        for i in range(int(self.positives.max(initial=0))):
            # C(t, m) / C(t + p, m) = product over i < p of (t + p - m - i) / (t + p - i)
            # At least 1, so that nothing is divided by 0; queries with i >= p are ignored below.
            pool = np.maximum(self.tied + self.positives - i, 1)
            factor = np.maximum(pool - slots, 0) / pool
            miss *= np.where(i < self.positives, factor, 1.0)
        return 1 - miss

    def expected(self) -> np.ndarray:
        """(Q,) expected rank of the first positive, from 1: greater + (t + p + 1) / (p + 1).

        (n + 1) / (p + 1) is the mean of the smallest of p numbers that are drawn from 1 to n without replacement.
        """
        return self.greater + (self.tied + self.positives + 1) / (self.positives + 1)


@dataclass(frozen=True)
class Ranks:
    """The ranks of both directions.

    Attributes:
        text_to_image: one query per text; its image is the only positive.
        image_to_text: one query per image that has texts; each of them is a positive (a hit rate, as CLIP_benchmark's).
        text_rows: (T,) for each text, the index of its image.
        image_rows: (Q,) indices of the images that have texts, ascending. Q is that of `image_to_text`.
    """

    text_to_image: QueryRanks
    image_to_text: QueryRanks
    text_rows: np.ndarray
    image_rows: np.ndarray


def rank_queries(texts: Tensor, images: Tensor, text_rows: Tensor, *, block: int | None = None) -> Ranks:
    """Rank the queries of both directions in one pass over the T x I scores.

    Memory is linear in T + I: scores are computed and counted block by block.

    Args:
        texts: (T, D) floating, normalised.
        images: (I, D) floating, normalised. An image without a text is only a distractor.
        text_rows: (T,) int64, index of the image that each text describes.
        block: texts and images per block; None takes a size that suits the device.

    Raises:
        ValueError: shapes do not match, an index is out of range, or there is nothing to rank.
        CapivaraError: an embedding is not finite. Every comparison with NaN is false, so its rank would be the first.
    """
    import torch

    _check(texts, images, text_rows)
    texts, images, rows = texts.float(), images.float(), text_rows.to(texts.device)
    height, width = (block, block) if block else BLOCK[texts.device.type]
    # In chunks: `images[rows]` for all texts would be a (T, D) copy.
    chunks = zip(texts.split(TEXTS_PER_CHUNK), rows.split(TEXTS_PER_CHUNK), strict=True)
    positive = torch.cat([(chunk * images[row]).sum(1) for chunk, row in chunks])  # (T,) score of text and its image
    best = positive.new_full((len(images),), -torch.inf)
    best = best.scatter_reduce(0, rows, positive, "amax")  # (I,) score of the image's best text
    # `above`: number of scores greater than the positive's. `near`: `above` plus the ties, the positive included.
    text_above, text_near = (torch.zeros_like(rows) for _ in range(2))  # (T,) images
    image_above, image_near = (rows.new_zeros(len(images)) for _ in range(2))  # (I,) texts
    # On a CPU, writing the comparison into a float32 mask and summing it is four times as fast as a bool mask. The
    # counts of a block (at most its width or height) are exact in float32, which represents all integers up to 2^24.
    mask_type = torch.float32 if texts.device.type == "cpu" else torch.bool
    for left in range(0, len(images), width):
        column = slice(left, left + width)
        block_images = images[column].T.contiguous()  # (D, i)
        # One buffer for all blocks of this column. Only the last block can be smaller: `mask` never grows again.
        mask = torch.empty((min(height, len(texts)), block_images.shape[1]), dtype=mask_type, device=texts.device)
        for top in range(0, len(texts), height):
            row = slice(top, top + height)
            scores = texts[row] @ block_images  # (t, i)
            mask = mask[: len(scores)]
            of_text, of_image = positive[row, None], best[column]  # (t, 1), (i,)
            text_above[row] += torch.gt(scores, of_text + TIE, out=mask).sum(dim=1).long()
            text_near[row] += torch.ge(scores, of_text - TIE, out=mask).sum(dim=1).long()
            image_above[column] += torch.gt(scores, of_image + TIE, out=mask).sum(dim=0).long()
            image_near[column] += torch.ge(scores, of_image - TIE, out=mask).sum(dim=0).long()
    tied_positives = torch.zeros_like(image_near).index_add_(0, rows, (positive >= best[rows] - TIE).long())  # (I,)
    has_text = torch.bincount(rows, minlength=len(images)) > 0  # (I,) bool
    return Ranks(
        _query_ranks(text_above, text_near, torch.ones_like(text_above)),
        _query_ranks(image_above[has_text], image_near[has_text], tied_positives[has_text]),
        rows.cpu().numpy(),
        has_text.nonzero()[:, 0].cpu().numpy(),
    )


def _query_ranks(above: Tensor, near: Tensor, positives: Tensor) -> QueryRanks:
    # `positives` comes from scores that were computed one by one, `near` from matrix products. They are rounded
    # differently, so a positive may be outside `near`: without the clamp, `tied` would be -1.
    tied = (near - above - positives).clamp(min=0)
    return QueryRanks(above.cpu().numpy(), tied.cpu().numpy(), positives.cpu().numpy())


def _check(texts: Tensor, images: Tensor, text_rows: Tensor) -> None:
    import torch

    if texts.ndim != 2 or images.ndim != 2 or texts.shape[1] != images.shape[1]:
        raise ValueError(f"texts {tuple(texts.shape)} and images {tuple(images.shape)} are not (T, D) and (I, D)")
    if text_rows.shape != (len(texts),):
        raise ValueError(f"{tuple(text_rows.shape)} rows for {len(texts)} texts")
    if not len(texts) or not len(images):
        raise ValueError("nothing to rank")
    if int(text_rows.min()) < 0 or int(text_rows.max()) >= len(images):
        raise ValueError(f"`text_rows` has an index outside 0 to {len(images) - 1}")
    for name, side in (("text", texts), ("image", images)):
        # One sum is cheaper than checking every number: it is NaN or infinite if any of them is. In float32, because
        # the sum of many finite fp16 numbers can exceed 65,504.
        if not bool(side.sum(dtype=torch.float32).isfinite()):
            bad = int((~side.isfinite()).any(dim=1).sum())
            hint = "the model has diverged, or --precision fp32 is needed"
            raise CapivaraError(f"{bad:,} of {len(side):,} {name} embeddings are NaN or infinite", hint)


def summarise(ranks: Ranks, ks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """Return the metrics of both directions: recalls (0 to 1), mean recall, median rank, MRR.

    `image_retrieval` is text to image, `text_retrieval` image to text: CLIP_benchmark's names, as are the keys of the
    recalls. Mean recall is the mean over `ks`, as in the paper (arXiv 2310.13683). MRR is the mean of 1 / expected
    rank.
    """
    metrics: dict[str, float] = {}
    directions = {"image_retrieval": ranks.text_to_image, "text_retrieval": ranks.image_to_text}
    for name, direction in directions.items():
        recalls = {k: float(direction.hits(k).mean()) for k in ks}
        metrics |= {f"{name}_recall@{k}": recall for k, recall in recalls.items()}
        metrics[f"{name}_mean_recall"] = sum(recalls.values()) / len(recalls)
        metrics[f"{name}_median_rank"] = float(np.median(direction.expected()))
        metrics[f"{name}_mrr"] = float((1 / direction.expected()).mean())
    metrics["mean_recall"] = (metrics["image_retrieval_mean_recall"] + metrics["text_retrieval_mean_recall"]) / 2
    return metrics
