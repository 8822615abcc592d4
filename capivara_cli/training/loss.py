"""The contrastive loss over a whole batch, whatever fits in memory at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from capivara_cli.runtime import Runtime

MAX_LOGIT_SCALE = math.log(100)  # CLIP (arXiv 2103.00020, section 2.5): more makes training unstable


def clip_loss(images: Tensor, texts: Tensor, logit_scale: Tensor) -> Tensor:
    """Symmetric InfoNCE over a batch of pairs (arXiv 2103.00020, figure 3).

    Args:
        images, texts: (B, D), normalised; row i of each is a pair.
        logit_scale: scalar, the logarithm of the inverse temperature.
    """
    import torch
    from torch.nn.functional import cross_entropy

    logits = logit_scale.exp() * images @ texts.T  # (B, B)
    pairs = torch.arange(len(logits), device=logits.device)
    return (cross_entropy(logits, pairs) + cross_entropy(logits.T, pairs)) / 2


def backward(
    texts: Sequence[Callable[[], Tensor]],
    images: Tensor | Sequence[Callable[[], Tensor]],
    logit_scale: torch.nn.Parameter,
    runtime: Runtime,
    *,
    keep_graphs: bool,
    scale_loss: Callable[[Tensor], Tensor] = lambda loss: loss,
) -> Tensor:
    """Add to `.grad` exactly the gradient of `clip_loss` over the batch of all micro-batches of all ranks.

    Without `keep_graphs` each micro-batch is encoded twice, first without a graph and then with one, so that
    memory holds the activations of one micro-batch only (GradCache, arXiv 2101.06983, section 3). With it
    each is encoded once and all graphs are kept. The gradient is the same.

    With several ranks, each adds the gradient of its own part through the features of all; sum over the
    ranks afterwards. The logit scale's, which every rank computes whole, is divided by their number for that.

    Args:
        texts: micro-batches of this rank, each () -> (b, D) normalised features.
        images: the frozen tower's features (B, D), or micro-batches of the trained one. Same order as texts.
        keep_graphs: see above.
        scale_loss: applied to the loss before the backward pass (fp16's loss scaling).

    Returns:
        the loss, detached.
    """
    import torch

    sides = [texts] if isinstance(images, torch.Tensor) else [texts, images]
    with torch.set_grad_enabled(keep_graphs):
        features = [[encode() for encode in side] for side in sides]
    own = [torch.cat([part.detach() for part in side]) for side in features]  # (B / ranks, D) each
    leaves = [runtime.gather(side).requires_grad_() for side in own]  # (B, D) each
    frozen = runtime.gather(images) if isinstance(images, torch.Tensor) else leaves[1]
    loss = clip_loss(frozen, leaves[0], logit_scale)
    scale_loss(loss).backward()
    if logit_scale.grad is not None:
        logit_scale.grad /= runtime.world_size
    for side, parts, leaf in zip(sides, features, leaves, strict=True):
        assert leaf.grad is not None
        grads = leaf.grad.chunk(runtime.world_size)[runtime.rank].split([len(part) for part in parts])
        for encode, part, grad in zip(side, parts, grads, strict=True):
            torch.autograd.backward(part if keep_graphs else encode(), grad)
    return loss.detach()
