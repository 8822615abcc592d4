"""The learning rate of the recipe."""

from __future__ import annotations

import math


def learning_rate(step: int, *, max_steps: int, warmup_steps: int, lr: float, min_lr: float) -> float:
    """Linear from `min_lr` to `lr` during the warm-up, then a cosine back to `min_lr`.

    lr(step) = min_lr + (lr - min_lr) * step / warmup               while step <= warmup
             = min_lr + (lr - min_lr) * (1 + cos(pi * t)) / 2       t = (step - warmup) / (max_steps - warmup)

    (CosineWarmupLR of the published CAPIVARA code; step counts from 0.)
    """
    if step <= warmup_steps:
        share = step / warmup_steps if warmup_steps else 1.0
    else:
        share = (1 + math.cos(math.pi * (step - warmup_steps) / (max_steps - warmup_steps))) / 2
    return min_lr + (lr - min_lr) * share
