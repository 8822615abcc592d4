"""Paired bootstrap: the 95 % interval of the difference between a model and a baseline on the same images.

Resampling: Koehn 2004 (aclanthology.org/W04-3250), with 1,000 resamples as in sacrebleu. The interval is from the 2.5
to the 97.5 percentile of the resampled differences.

The p-value is two-sided, and not computed as sacrebleu does it: it is twice the share of the resamples whose difference
is zero or has the opposite sign. It is never reported below 1 / RESAMPLES, because RESAMPLES resamples cannot show a
smaller probability.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from capivara_cli.metrics.retrieval import Ranks

RESAMPLES = 1000
INDICES_PER_BLOCK = 1 << 22  # drawn indices in memory at once: 32 MB of int64


def compare_ranks(model: Ranks, baseline: Ranks, *, ks: Sequence[int] = (1, 5, 10), seed: int = 0) -> dict[str, float]:
    """Compare the mean recall (0 to 1) of two models on the same texts and images.

    Images are resampled together with all their captions, because captions of one image are not independent. Images
    without a caption are only distractors and are never drawn.

    Returns:
        `mean_recall` (model minus baseline), `low` and `high` (its 95 % interval), and `p_value`.
    """
    images = int(model.image_rows.max()) + 1  # images after the last one with a caption are never drawn
    per_direction: list[tuple[np.ndarray, np.ndarray]] = []  # summed gain and number of queries per image, (I,) each
    for direction, rows in (("text_to_image", model.text_rows), ("image_to_text", model.image_rows)):
        ours, theirs = getattr(model, direction), getattr(baseline, direction)
        gain = np.mean([ours.hits(k) - theirs.hits(k) for k in ks], axis=0)  # (Q,)
        per_direction.append((np.bincount(rows, gain, images), np.bincount(rows, minlength=images)))

    def mean_gain(weights: np.ndarray) -> float:
        return float(np.mean([weights @ gain / (weights @ queries) for gain, queries in per_direction]))

    rng = np.random.default_rng(seed)
    captioned = model.image_rows
    gains = []
    for _ in range(RESAMPLES):
        drawn = captioned[rng.integers(len(captioned), size=len(captioned))]
        gains.append(mean_gain(np.bincount(drawn, minlength=images)))  # an image weighs as often as it was drawn
    return {"mean_recall": mean_gain(np.ones(images)), **_interval_and_p_value(np.array(gains))}


def compare_hits(
    model: np.ndarray, baseline: np.ndarray, groups: np.ndarray | None = None, *, seed: int = 0
) -> dict[str, float]:
    """Compare two accuracies, or two means of per-class accuracies.

    Args:
        model, baseline: (N,) probability that each image is classified correctly: 0 or 1 unless scores tie.
        groups: (N,) class index of each image, to compare means over classes. A resample's mean is over the classes
            that it contains. None compares plain accuracies.
        seed: random seed of the resampling.

    Returns:
        `low` and `high` (95 % interval of model minus baseline), and `p_value`. The difference itself is not returned:
        the caller has the value of the metric for both models.
    """
    rng = np.random.default_rng(seed)
    gain = model - baseline
    if groups is None:
        return _interval_and_p_value(_resampled_means(gain, rng))
    classes = int(groups.max()) + 1
    means = []
    for _ in range(RESAMPLES):
        drawn = rng.integers(len(gain), size=len(gain))
        counts = np.bincount(groups[drawn], minlength=classes)  # (C,) images of each class
        sums = np.bincount(groups[drawn], gain[drawn], minlength=classes)  # (C,)
        means.append((sums[counts > 0] / counts[counts > 0]).mean())
    return _interval_and_p_value(np.array(means))


def _resampled_means(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N,) values -> (RESAMPLES,) means of N values drawn with replacement."""
    step = max(1, INDICES_PER_BLOCK // len(values))
    sizes = [min(step, RESAMPLES - start) for start in range(0, RESAMPLES, step)]
    return np.concatenate([values[rng.integers(len(values), size=(size, len(values)))].mean(axis=1) for size in sizes])


def _interval_and_p_value(gains: np.ndarray) -> dict[str, float]:
    """Return the 95 % percentile interval of the resampled differences, and the two-sided p-value."""
    low, high = np.quantile(gains, [0.025, 0.975])
    # Zero counts on both sides, so two equal models get p = 1.
    tail = min(float((gains <= 0).mean()), float((gains >= 0).mean()))
    return {"low": float(low), "high": float(high), "p_value": min(1.0, max(2 * tail, 1 / RESAMPLES))}
