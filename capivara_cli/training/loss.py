"""The contrastive loss over a whole batch, whatever part of the batch fits in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from capivara_cli.runtime import Runtime

# Largest logarithm of the inverse temperature. CLIP (arXiv 2103.00020, section 2.5): more makes training unstable.
MAX_LOGIT_SCALE = math.log(100)


def clip_loss(images: Tensor, texts: Tensor, logit_scale: Tensor) -> Tensor:
    """Symmetric InfoNCE over a batch of pairs (arXiv 2103.00020, figure 3).

    Args:
        images, texts: (B, D), normalised; row i of each is a pair.
        logit_scale: scalar, the logarithm of the inverse temperature.

    Returns:
        scalar: the mean of the losses of both directions.
    """
    import torch
    from torch.nn.functional import cross_entropy

    logits = logit_scale.exp() * images @ texts.T  # (B, B), row: image, column: text
    pairs = torch.arange(len(logits), device=logits.device)  # the right text of image i is text i
    return (cross_entropy(logits, pairs) + cross_entropy(logits.T, pairs)) / 2


def gradcache_backward(
    texts: Sequence[Callable[[], Tensor]],
    images: Tensor | Sequence[Callable[[], Tensor]],
    logit_scale: torch.nn.Parameter,
    runtime: Runtime,
    *,
    keep_graphs: bool,
    scale_loss: Callable[[Tensor], Tensor] = lambda loss: loss,
) -> Tensor:
    """Add to `.grad` the exact gradient of `clip_loss` over the batch: all micro-batches of all ranks.

    The loss compares every image with every text, so it is not a sum over micro-batches, and plain gradient
    accumulation would give another gradient. GradCache (arXiv 2101.06983, section 3) splits the chain rule at the
    features instead:

    1. Encode all micro-batches without a graph; memory holds their features only.
    2. Compute the loss on the features of the whole batch, and its gradient with respect to them.
    3. Encode each micro-batch again, with a graph, and send its rows of that gradient back through the tower.

    Memory holds the activations of one micro-batch, and each is encoded twice. With `keep_graphs` step 1 builds the
    graphs and step 3 uses them: faster, for a batch that fits in memory. The gradient is the same, because the towers
    are in eval mode: without dropout both passes give the same features.

    With several ranks, each rank computes the loss of the whole batch and sends back only the rows of its own
    pairs. The caller clears `.grad` before, and sums the gradients over the ranks afterwards.

    Args:
        texts: micro-batches of this rank, each () -> (b, D) normalised features. Every rank has B / ranks texts.
        images: normalised features (B / ranks, D) of a frozen tower, or micro-batches of a tower that trains, as for
            the texts and in their order.
        keep_graphs: see above.
        scale_loss: applied to the loss before the backward pass (fp16's loss scaling).

    Returns:
        the loss, detached.
    """
    import torch

    towers = [texts] if isinstance(images, torch.Tensor) else [texts, images]
    with torch.set_grad_enabled(keep_graphs):
        features = [[encode() for encode in tower] for tower in towers]  # per tower, per micro-batch: (b, D)
    # Leaves of the graph of step 2: its backward pass stops there and leaves the gradient in their `.grad`.
    leaves = []
    for parts in features:
        local = torch.cat([part.detach() for part in parts])  # (B / ranks, D)
        # (B, D). The gather has no gradient, and needs none: each rank has that of all B rows, and takes its own rows.
        leaves.append(runtime.gather(local).requires_grad_())
    image_features = runtime.gather(images) if isinstance(images, torch.Tensor) else leaves[1]
    loss = clip_loss(image_features, leaves[0], logit_scale)
    scale_loss(loss).backward()
    if logit_scale.grad is not None:
        # Unlike the towers', this gradient is already that of the whole batch on each rank; the caller sums over ranks.
        logit_scale.grad /= runtime.world_size
    for tower, parts, leaf in zip(towers, features, leaves, strict=True):
        assert leaf.grad is not None
        local_grad = leaf.grad.chunk(runtime.world_size)[runtime.rank]  # (B / ranks, D)
        for encode, part, grad in zip(tower, parts, local_grad.split([len(part) for part in parts]), strict=True):
            torch.autograd.backward(part if keep_graphs else encode(), grad)
    return loss.detach()
