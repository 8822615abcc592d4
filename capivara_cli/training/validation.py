"""Recall during training, on images and captions that are not trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from capivara_cli.metrics.retrieval import rank_queries, summarise
from capivara_cli.models.clip import Clip
from capivara_cli.models.embedding_cache import ImageTable
from capivara_cli.training.pixels import PixelTable

if TYPE_CHECKING:
    from torch import Tensor

Scores = dict[str, float]
"""Language -> mean recall over both directions, 0 to 1."""


@dataclass(frozen=True)
class Validation:
    """The images and captions to score the model on.

    Attributes:
        images: embeddings of the frozen image tower, or pixels for a tower that trains.
        queries: language -> (captions, index in `images` of each caption's image).
    """

    clip: Clip
    images: ImageTable | PixelTable
    queries: dict[str, tuple[list[str], list[int]]]

    def __call__(self) -> Scores:
        """Score the model with its present weights."""
        import torch

        images = self._image_features()
        scores: Scores = {}
        for lang, (texts, rows) in self.queries.items():
            ranks = rank_queries(self.clip.encode_texts(texts), images, torch.tensor(rows))
            scores[lang] = summarise(ranks)["mean_recall"]
        return scores

    def _image_features(self) -> Tensor:
        """Return (I, D) float32 on the CPU, normalised: looked up if the image tower is frozen, otherwise computed."""
        import numpy as np
        import torch

        rows = np.arange(len(self.images))
        plain_view = np.zeros_like(rows)
        if isinstance(self.images, ImageTable):
            return self.images.take(rows, plain_view)
        size = self.clip.image_batch_size()
        features = []
        with torch.inference_mode():
            for start in range(0, len(rows), size):
                part = slice(start, start + size)
                features.append(self.clip.encode_pixels(self.images.take(rows[part], plain_view[part])).cpu())
        return torch.cat(features)
