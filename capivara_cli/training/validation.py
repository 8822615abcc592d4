"""Recall during training, on images and captions that are not trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from capivara_cli.metrics.retrieval import rank_queries, summarise

if TYPE_CHECKING:
    from torch import Tensor

    from capivara_cli.models.clip import Clip

Scores = dict[str, float]
"""Language -> mean recall over both directions, 0 to 1."""


@dataclass(frozen=True)
class Validation:
    """What to score on.

    Attributes:
        images: () -> (I, D) float32, normalised: looked up for a frozen image tower, computed for one that trains.
        queries: language -> texts, and the row of the image of each.
    """

    clip: Clip
    images: Callable[[], Tensor]
    queries: dict[str, tuple[list[str], list[int]]]

    def __call__(self) -> Scores:
        """Score the model as it is now."""
        import torch

        images = self.images()
        scores: Scores = {}
        for lang, (texts, rows) in self.queries.items():
            ranks = rank_queries(self.clip.encode_texts(texts), images, torch.tensor(rows))
            scores[lang] = summarise(ranks)["mean_recall"]
        return scores
