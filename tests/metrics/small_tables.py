"""Scores and truths of a few images, for the tests of classification."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

thorough = settings(deadline=None, max_examples=60, database=None)


def one_hot(labels: list[int], classes: int) -> np.ndarray:
    return np.array(labels)[:, None] == np.arange(classes)


def columns(*classes: list[float]) -> np.ndarray:
    return np.array(classes, dtype=np.float64).T


@st.composite
def tables(draw: st.DrawFn, single_label: bool, classes: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Scores that are small integers and often tie, and the truth."""
    images, classes = draw(st.integers(1, 12)), classes or draw(st.integers(1, 5))
    scores = draw(arrays(np.int64, (images, classes), elements=st.integers(-3, 3))).astype(np.float32) / 8
    if single_label:
        labels = draw(st.lists(st.integers(0, classes - 1), min_size=images, max_size=images))
        return scores, one_hot(labels, classes)
    return scores, draw(arrays(np.bool_, (images, classes)))


def untied(images: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = rng.permuted(np.linspace(-1, 1, images * classes)).reshape(images, classes)
    return scores, one_hot(rng.integers(0, classes, images).tolist(), classes)
