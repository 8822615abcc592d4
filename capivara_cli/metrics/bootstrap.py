"""How sure a recall is, and how sure its difference to a baseline's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from capivara_cli.metrics.retrieval import Ranks

RESAMPLES = 1000
DRAWN = 1 << 22  # values at once: 32 MB of places


def compare(model: Ranks, baseline: Ranks, *, ks: Sequence[int] = (1, 5, 10), seed: int = 0) -> dict[str, float]:
    """Paired bootstrap of the difference in mean recall (Koehn 2004, as sacrebleu does it for BLEU).

    Images are resampled with all their captions, because captions of one image rise and fall together.

    Returns:
        `mean_recall` (the difference, 0 to 1), `low` and `high` (its 95 % interval), and `p_value`: two-sided,
        twice the share of resamples on the other side of zero, at least 1 / resamples.
    """
    images = int(max(model.text_rows.max(), model.image_rows.max())) + 1
    sums: list[tuple[np.ndarray, np.ndarray]] = []  # by direction: gain and queries of each image, (I,) each
    for direction, rows in (("text_to_image", model.text_rows), ("image_to_text", model.image_rows)):
        ours, theirs = getattr(model, direction), getattr(baseline, direction)
        gain = np.mean([ours.hits(k) - theirs.hits(k) for k in ks], axis=0)  # (Q,)
        sums.append((np.bincount(rows, gain, images), np.bincount(rows, minlength=images)))
    gains = np.array([_mean_gain(sums, weights) for weights in _resamples(model.image_rows, images, seed)])
    return {"mean_recall": _mean_gain(sums, np.ones(images)), **_interval(gains)}


def compare_hits(
    model: np.ndarray, baseline: np.ndarray, groups: np.ndarray | None = None, *, seed: int = 0
) -> dict[str, float]:
    """Paired bootstrap of the difference in accuracy, or in the mean of the accuracies of groups.

    Args:
        model, baseline: (N,) whether, or with ties how likely, each image was answered rightly.
        groups: (N,) class of each image; the mean is over those that a resample has. None makes no difference.
        seed: of the resamples.

    Returns:
        `low` and `high` of the difference's 95 % interval, and `p_value` as in `compare`.
    """
    rng = np.random.default_rng(seed)
    gain = model - baseline
    if groups is None:
        return _interval(_resampled_means(gain, rng))
    count = int(groups.max()) + 1
    means = []
    for _ in range(RESAMPLES):
        drawn = rng.integers(len(gain), size=len(gain))
        images = np.bincount(groups[drawn], minlength=count)
        sums = np.bincount(groups[drawn], gain[drawn], minlength=count)
        means.append((sums[images > 0] / images[images > 0]).mean())
    return _interval(np.array(means))


def _resampled_means(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(RESAMPLES,) means of as many values, drawn with replacement."""
    step = max(1, DRAWN // len(values))
    sizes = [min(step, RESAMPLES - start) for start in range(0, RESAMPLES, step)]
    return np.concatenate([values[rng.integers(len(values), size=(size, len(values)))].mean(axis=1) for size in sizes])


def _interval(gains: np.ndarray) -> dict[str, float]:
    low, high = np.quantile(gains, [0.025, 0.975])
    tail = min(float((gains <= 0).mean()), float((gains >= 0).mean()))
    return {"low": float(low), "high": float(high), "p_value": min(1.0, max(2 * tail, 1 / RESAMPLES))}


def _mean_gain(sums: Sequence[tuple[np.ndarray, np.ndarray]], weights: np.ndarray) -> float:
    return float(np.mean([weights @ gain / (weights @ queries) for gain, queries in sums]))


def _resamples(asked: np.ndarray, images: int, seed: int) -> Iterator[np.ndarray]:
    """(I,) how often each image was drawn, for each resample; only images that have captions are."""
    rng = np.random.default_rng(seed)
    for _ in range(RESAMPLES):
        yield np.bincount(asked[rng.integers(len(asked), size=len(asked))], minlength=images)
