from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from open_clip.loss import ClipLoss
from torch import Tensor
from torch.nn.functional import normalize

from capivara_cli.runtime import Runtime
from capivara_cli.training.loss import clip_loss, gradcache_backward

CPU = Runtime("cpu", "fp32")


def make_tower() -> torch.nn.Sequential:
    return torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.Tanh(), torch.nn.Linear(9, 5)).double()


def micro_batches(tower: torch.nn.Module, inputs: Tensor, size: int) -> list[Callable[[], Tensor]]:
    return [lambda part=part: normalize(tower(part), dim=-1) for part in inputs.split(size)]  # type: ignore[misc]


def test_the_loss_is_open_clips() -> None:
    images, texts = normalize(torch.randn(2, 17, 8), dim=-1)
    scale = torch.tensor(2.5)
    torch.testing.assert_close(clip_loss(images, texts, scale), ClipLoss()(images, texts, scale.exp()))


def test_a_frozen_logit_scale_gets_no_gradient() -> None:
    text, scale = make_tower(), torch.nn.Parameter(torch.tensor(1.3, dtype=torch.float64), requires_grad=False)
    texts, images = micro_batches(text, torch.randn(4, 6, dtype=torch.float64), 2), torch.randn(4, 5).double()
    gradcache_backward(texts, images, scale, CPU, keep_graphs=True)
    assert scale.grad is None
    assert all(parameter.grad is not None for parameter in text.parameters())


@pytest.mark.parametrize("size", [1, 5, 12, 23])
@pytest.mark.parametrize("keep_graphs", [True, False])
@pytest.mark.parametrize("frozen_images", [True, False])
@pytest.mark.parametrize("loss_scale", [1, 8])
def test_any_micro_batch_gives_the_gradient_of_the_full_batch(
    size: int, keep_graphs: bool, frozen_images: bool, loss_scale: int
) -> None:
    torch.manual_seed(0)
    text, image, scale = make_tower(), make_tower(), torch.nn.Parameter(torch.tensor(1.3, dtype=torch.float64))
    texts, pictures = torch.randn(2, 23, 6, dtype=torch.float64)
    image_features = normalize(image(pictures), dim=-1)
    parameters = [*text.parameters(), scale, *([] if frozen_images else image.parameters())]
    expected_loss = clip_loss(image_features, normalize(text(texts), dim=-1), scale)
    expected = torch.autograd.grad(expected_loss, parameters)

    loss = gradcache_backward(
        micro_batches(text, texts, size),
        image_features.detach() if frozen_images else micro_batches(image, pictures, size),
        scale,
        CPU,
        keep_graphs=keep_graphs,
        scale_loss=lambda value: loss_scale * value,
    )

    assert abs(float(loss - expected_loss.detach())) < 1e-12  # the loss itself is not scaled
    for parameter, gradient in zip(parameters, expected, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, loss_scale * gradient, rtol=0, atol=1e-8)
