"""Adam, and its learning rate at each step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from capivara_cli.training.options import OptimizerSection

if TYPE_CHECKING:
    import torch


def make_optimizer(parameters: list[torch.nn.Parameter], settings: OptimizerSection) -> torch.optim.Optimizer:
    """Return Adam or AdamW over the parameters.

    AdamW does not decay biases, norms and the logit scale (all parameters with less than two axes), as in open_clip's
    trainer. Adam decays everything, as in the paper's code.
    """
    import torch

    groups: list[dict[str, Any]] = [{"params": parameters, "weight_decay": settings.weight_decay}]
    if settings.name == "adamw":
        groups = [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": settings.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
    kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    # One kernel updates all parameters, instead of several kernels for each; XLM-R has some 200 of them.
    fused = all(parameter.is_cuda for parameter in parameters)
    return kind(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=fused)


def learning_rate(step: int, max_steps: int, settings: OptimizerSection) -> float:
    """Return the rate of a step, counted from 0: a linear warm-up from `min_lr` to `lr`, then a cosine to `min_lr`.

    lr(step) = min_lr + (lr - min_lr) * step / warmup               while step <= warmup
             = min_lr + (lr - min_lr) * (1 + cos(pi * t)) / 2       t = (step - warmup) / (max_steps - warmup)

    (CosineWarmupLR of the published CAPIVARA code.)
    """
    lr, min_lr, warmup_steps = settings.lr, settings.min_lr, settings.warmup_steps
    if step <= warmup_steps:
        share = step / warmup_steps if warmup_steps else 1.0
    else:  # max_steps > step > warmup_steps: nothing is divided by 0
        share = (1 + math.cos(math.pi * (step - warmup_steps) / (max_steps - warmup_steps))) / 2
    return min_lr + (lr - min_lr) * share
