"""Recall during training, on images and captions that are not trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from capivara_cli.recall import rank_queries, summarise

if TYPE_CHECKING:
    from torch import Tensor

    from capivara_cli.clip import Clip
    from capivara_cli.records import Record

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


def collect_queries(records: Sequence[Record], langs: Sequence[str]) -> dict[str, tuple[list[str], list[int]]]:
    """The texts of each language that occurs, with the index of the record of each."""
    queries: dict[str, tuple[list[str], list[int]]] = {}
    for lang in langs:
        pairs = [(text, row) for row, record in enumerate(records) for text in record.texts(lang)]
        if pairs:
            queries[lang] = [text for text, _ in pairs], [row for _, row in pairs]
    return queries
