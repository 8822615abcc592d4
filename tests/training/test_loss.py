from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from open_clip.loss import ClipLoss
from torch import Tensor
from torch.nn.functional import normalize

from capivara_cli.runtime import Runtime
from capivara_cli.training.loss import backward, clip_loss

CPU = Runtime("cpu", "fp32")


def towers() -> tuple[torch.nn.Sequential, torch.nn.Sequential, torch.nn.Parameter]:
    torch.manual_seed(0)
    make = lambda: torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.Tanh(), torch.nn.Linear(9, 5)).double()  # noqa: E731
    return make(), make(), torch.nn.Parameter(torch.tensor(1.3, dtype=torch.float64))


def pieces(tower: torch.nn.Module, inputs: Tensor, size: int) -> list[Callable[[], Tensor]]:
    return [lambda part=part: normalize(tower(part), dim=-1) for part in inputs.split(size)]  # type: ignore[misc]


@pytest.mark.parametrize("size", [1, 5, 12, 23])
@pytest.mark.parametrize("keep_graphs", [True, False])
@pytest.mark.parametrize("frozen_images", [True, False])
def test_any_micro_batch_gives_the_gradient_of_the_full_batch(
    size: int, keep_graphs: bool, frozen_images: bool
) -> None:
    text, image, scale = towers()
    texts, pictures = torch.randn(2, 23, 6, dtype=torch.float64)
    parameters = [*text.parameters(), scale, *([] if frozen_images else image.parameters())]
    loss = clip_loss(normalize(image(pictures), dim=-1), normalize(text(texts), dim=-1), scale)
    expected = torch.autograd.grad(loss, parameters)

    images = normalize(image(pictures), dim=-1).detach() if frozen_images else pieces(image, pictures, size)
    got = backward(pieces(text, texts, size), images, scale, CPU, keep_graphs=keep_graphs)

    assert abs(float(got - loss.detach())) < 1e-12
    for parameter, gradient in zip(parameters, expected, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, gradient, rtol=0, atol=1e-9)


def test_the_loss_is_open_clips() -> None:
    images, texts = normalize(torch.randn(2, 17, 8), dim=-1)
    scale = torch.tensor(2.5)
    torch.testing.assert_close(clip_loss(images, texts, scale), ClipLoss()(images, texts, scale.exp()))


def test_a_loss_scale_scales_the_gradient_and_not_the_loss_that_is_told() -> None:
    text, _, scale = towers()
    texts, images = torch.randn(8, 6, dtype=torch.float64), normalize(torch.randn(8, 5, dtype=torch.float64), dim=-1)
    plain = backward(pieces(text, texts, 4), images, scale, CPU, keep_graphs=False)
    [weight, *_] = text.parameters()
    assert weight.grad is not None
    gradient = weight.grad.clone()
    text.zero_grad()
    scaled = backward(pieces(text, texts, 4), images, scale, CPU, keep_graphs=False, scale_loss=lambda loss: 8 * loss)
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, 8 * gradient)
    assert float(scaled) == float(plain)
