"""Retrieval metrics on embeddings: one pass over the scores, in blocks, with ties that do not flatter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from capivara_cli.errors import CapivaraError

if TYPE_CHECKING:
    from torch import Tensor

# Scores closer than this are tied. A dot product of unit vectors in float32 carries a rounding error of some 1e-7,
# which depends on the shape of the matrix product that computes it: without a tolerance, equal embeddings would
# be ordered by that noise, and a positive could lose against its own twin.
TIE = 1e-6

# Scores at once, texts x images: on a CPU what its cache holds, on a GPU what keeps it busy.
BLOCK = {"cpu": (1024, 1024), "cuda": (8192, 8192), "mps": (4096, 4096)}


@dataclass(frozen=True)
class Direction:
    """Where each of Q queries finds the first of its positives among N items.

    Attributes:
        greater: (Q,) negatives that score higher than the best positive.
        tied: (Q,) negatives that tie with it.
        positives: (Q,) positives that tie at the top, the best one included.
    """

    greater: np.ndarray
    tied: np.ndarray
    positives: np.ndarray

    def hits(self, k: int) -> np.ndarray:
        """(Q,) probability that a positive is among the first k, when ties are broken at random.

        Of the t + p tied items, m = k - greater come into the first k; all of them are negatives with
        probability C(t, m) / C(t + p, m) (hypergeometric). With one positive that is 1 - m / (t + 1).
        """
        slots = np.clip(k - self.greater, 0, self.tied + self.positives)
        miss = np.ones(len(slots))
        for i in range(int(self.positives.max(initial=0))):
            # C(t, m) / C(t + p, m) = product over i < p of (t + p - m - i) / (t + p - i)
            pool = np.maximum(self.tied + self.positives - i, 1)
            factor = np.maximum(pool - slots, 0) / pool
            miss *= np.where(i < self.positives, factor, 1.0)
        return 1 - miss

    def expected(self) -> np.ndarray:
        """(Q,) expected rank of the first positive, from 1: greater + (t + p + 1) / (p + 1)."""
        return self.greater + (self.tied + self.positives + 1) / (self.positives + 1)


@dataclass(frozen=True)
class Ranks:
    """Both directions.

    Attributes:
        text_to_image: a query a text; its image is the only positive.
        image_to_text: a query an image that has texts; any of them is a positive (a hit rate, as CLIP_benchmark's).
        text_rows: (T,) the image of each text.
        image_rows: (Q,) the image of each image query, ascending.
    """

    text_to_image: Direction
    image_to_text: Direction
    text_rows: np.ndarray
    image_rows: np.ndarray


def rank_queries(texts: Tensor, images: Tensor, text_rows: Tensor, *, block: int | None = None) -> Ranks:
    """Rank every query of both directions in one pass over the T x I scores.

    Memory is linear in T + I: scores are made and counted a block at a time.

    Args:
        texts: (T, D) floating, normalised.
        images: (I, D) floating, normalised. An image that no text describes is only a distractor.
        text_rows: (T,) int64, the row of the image that each text describes.
        block: texts and images at once; by itself what suits the device.

    Raises:
        ValueError: shapes that do not fit, rows out of range, nothing to rank.
        CapivaraError: an embedding is no number: every comparison with it would be false, and so its rank the first.
    """
    import torch

    _check(texts, images, text_rows)
    texts, images = texts.float(), images.float()
    rows = text_rows.to(texts.device)
    total = len(images)
    height, width = (block, block) if block else BLOCK[texts.device.type]
    own = torch.cat(
        [(part * images[row]).sum(1) for part, row in zip(texts.split(4096), rows.split(4096), strict=True)]
    )
    best = torch.full((total,), -torch.inf, device=own.device).scatter_reduce(0, rows, own, "amax")  # (I,)
    above, near = _zeros(len(texts), own), _zeros(len(texts), own)  # per text: images above it, above or tied
    image_above, image_near = _zeros(total, own), _zeros(total, own)  # per image: texts above its best, or tied
    # On a CPU, comparing into float32 and adding that up is four times as fast as bool; a block's sums are exact in it.
    kind = torch.float32 if own.device.type == "cpu" else torch.bool
    for left in range(0, total, width):
        column = slice(left, left + width)
        those = images[column].T.contiguous()  # (D, i)
        mask = torch.empty((min(height, len(texts)), those.shape[1]), dtype=kind, device=own.device)
        for top in range(0, len(texts), height):
            row = slice(top, top + height)
            scores = texts[row] @ those  # (t, i)
            mask = mask[: len(scores)]
            mine, theirs = own[row, None], best[column]
            above[row] += torch.gt(scores, mine + TIE, out=mask).sum(dim=1).long()
            near[row] += torch.ge(scores, mine - TIE, out=mask).sum(dim=1).long()
            image_above[column] += torch.gt(scores, theirs + TIE, out=mask).sum(dim=0).long()
            image_near[column] += torch.ge(scores, theirs - TIE, out=mask).sum(dim=0).long()
    first = _zeros(total, own).index_add_(0, rows, (own >= best[rows] - TIE).long())  # positives tied at the top
    asked = torch.bincount(rows, minlength=total) > 0
    return Ranks(
        _direction(above, near, torch.ones_like(above)),
        _direction(image_above[asked], image_near[asked], first[asked]),
        rows.cpu().numpy(),
        asked.nonzero()[:, 0].cpu().numpy(),
    )


def _direction(above: Tensor, near: Tensor, positives: Tensor) -> Direction:
    tied = (near - above - positives).clamp(min=0)
    return Direction(above.cpu().numpy(), tied.cpu().numpy(), positives.cpu().numpy())


def _zeros(size: int, like: Tensor) -> Tensor:
    import torch

    return torch.zeros(size, dtype=torch.int64, device=like.device)


def _check(texts: Tensor, images: Tensor, text_rows: Tensor) -> None:
    if texts.ndim != 2 or images.ndim != 2 or texts.shape[1] != images.shape[1]:
        raise ValueError(f"texts {tuple(texts.shape)} and images {tuple(images.shape)} are not (T, D) and (I, D)")
    if text_rows.shape != (len(texts),):
        raise ValueError(f"{tuple(text_rows.shape)} rows for {len(texts)} texts")
    if not len(texts) or not len(images):
        raise ValueError("nothing to rank")
    if int(text_rows.min()) < 0 or int(text_rows.max()) >= len(images):
        raise ValueError(f"a text's image is outside 0 to {len(images) - 1}")
    for name, side in (("text", texts), ("image", images)):
        if not bool(side.sum().isfinite()):  # one number is not: find out which
            bad = int((~side.isfinite()).any(dim=1).sum())
            hint = "the model has diverged, or --precision fp32 is needed"
            raise CapivaraError(f"{bad:,} of {len(side):,} {name} embeddings are not numbers", hint)


def summarise(ranks: Ranks, ks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """Metrics of both directions: recalls 0 to 1 under CLIP_benchmark's names, and mean recall, median rank, MRR.

    `image_retrieval` is text to image, `text_retrieval` image to text. Mean recall is the mean over `ks`, as
    in the paper (arXiv 2310.13683). MRR is 1 / expected rank, which is the mean of 1 / rank where nothing ties.
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
