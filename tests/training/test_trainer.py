"""The training loop: which weights are kept, the logit scale, and how much is in memory at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from capivara_cli.data import image_records
from capivara_cli.errors import CapivaraError
from capivara_cli.models.clip import Clip
from capivara_cli.models.embedding_cache import embed
from capivara_cli.runtime import Runtime
from capivara_cli.training.options import OptimizerSection, TrainOptions
from capivara_cli.training.pixels import load_pixels
from capivara_cli.training.run_folder import RunFolder, TrainerState
from capivara_cli.training.sampler import Sampler, tokenise_captions
from capivara_cli.training.trainer import Trainer

MakeTrainer = Callable[..., Trainer]

BATCH = 48


@pytest.fixture
def make_trainer(world: Path, clip: Clip, tmp_path: Path) -> MakeTrainer:
    """Make a trainer of the whole text tower, on Hindi captions."""
    scenes = image_records.read_all([world / "test.jsonl"])
    sampler = Sampler(tokenise_captions(scenes, ["hi"], clip), ["hi"], {}, BATCH, 1, 0)
    for name in ("text", "logit_scale"):
        getattr(clip.model, name).requires_grad_(True)

    def call(
        scores: Iterator[dict[str, float]] | None = None,
        save: Callable[[], None] = lambda: None,
        *,
        pixels: bool = False,
        **values: Any,
    ) -> Trainer:
        clip.model.visual.requires_grad_(pixels)
        images: Any = [record.image for record in scenes]
        table = (load_pixels if pixels else embed)(clip, images)[0]
        optimizer = OptimizerSection(name="adam", lr=1e-3, min_lr=1e-4, warmup_steps=0)
        fixed: dict[str, Any] = {"method": "full", "lang": ["hi"], "batch_size": BATCH, "optimizer": optimizer}
        options = TrainOptions(**fixed | values)
        validate = scores.__next__ if scores is not None else None
        return Trainer(options, clip, RunFolder(tmp_path), sampler, table, validate, save, TrainerState())

    return call


def test_the_weights_with_the_best_validation_are_kept_and_not_the_last(make_trainer: MakeTrainer) -> None:
    saved: list[tuple[int, Tensor]] = []
    scores = iter([{"hi": score} for score in (0.99, 0.5, 0.9, 0.9, 0.3)])  # the first is that of the base model

    def save() -> None:
        saved.append((trainer.state.step, trainer.clip.model.text.proj.weight.detach().clone()))

    trainer = make_trainer(scores, save, max_steps=4, eval_every=1)
    trainer.fit()
    assert [step for step, _ in saved] == [1, 2]  # step 3 is not better than step 2
    assert (trainer.state.best, trainer.state.best_step) == (0.9, 2)
    assert not saved[-1][1].equal(trainer.clip.model.text.proj.weight.detach())  # training went on
    with pytest.raises(StopIteration):
        next(scores)


def test_a_language_that_is_only_watched_does_not_choose_the_weights(make_trainer: MakeTrainer) -> None:
    scores = iter([{"hi": 0.1, "en": 0.9}, {"hi": 0.1, "en": 0.9}, {"hi": 0.2, "en": 0.0}])
    trainer = make_trainer(scores, max_steps=2, eval_every=1)
    trainer.fit()
    assert (trainer.state.best, trainer.state.best_step) == (0.2, 2)


def test_without_validation_the_last_weights_are_saved_once(make_trainer: MakeTrainer) -> None:
    steps: list[int] = []

    def save() -> None:
        steps.append(trainer.state.step)

    trainer = make_trainer(None, save, max_steps=3, eval_every=1)
    trainer.fit()
    assert steps == [3]


@pytest.mark.parametrize(("before", "after"), [(5.0, math.log(100)), (-1.0, 0.0)])
def test_the_logit_scale_stays_between_0_and_log_100(before: float, after: float, make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(max_steps=1)
    parameter = trainer.clip.model.logit_scale
    parameter.data.fill_(before)
    trainer.step()
    assert float(parameter.detach()) == pytest.approx(after)
    assert trainer.clip.model.logit_scale is parameter
    assert parameter in trainer.optimizer.state


@pytest.mark.parametrize("pixels", [False, True])
@pytest.mark.parametrize(("most", "size"), [(1, 1), (5, 3), (20, 12)])
def test_out_of_memory_gives_the_gradient_of_the_whole_batch(
    most: int, size: int, pixels: bool, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(pixels=pixels, max_steps=1)
    clip = trainer.clip
    start = {name: tensor.clone() for name, tensor in clip.model.state_dict().items()}
    trainer.step()
    expected = gradients(trainer)

    clip.model.load_state_dict(start)
    monkeypatch.setattr(clip, "encode_tokens", few_at_once(clip, most))
    trainer = make_trainer(pixels=pixels, max_steps=1)
    trainer.step()
    assert trainer.state.micro_batch == size  # 48 texts, halved until they fit
    for name, gradient in gradients(trainer).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-5)


def test_out_of_memory_with_one_text_ends_the_run(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(max_steps=1)
    monkeypatch.setattr(trainer.clip, "encode_tokens", few_at_once(trainer.clip, 0))
    with pytest.raises(CapivaraError, match="out of memory on cpu with a single item"):
        trainer.step()


def few_at_once(clip: Clip, most: int) -> Callable[[Tensor], Tensor]:
    """Return `encode_tokens` for a machine on which more than `most` texts do not fit in memory."""
    encode = clip.encode_tokens

    def call(tokens: Tensor) -> Tensor:
        torch.empty((len(tokens) > most) << 60, dtype=torch.uint8)  # an exabyte: a real error of the allocator
        return encode(tokens)

    return call


def gradients(trainer: Trainer) -> dict[str, Tensor]:
    return {
        name: parameter.grad.clone() for name, parameter in trainer.parameters.items() if parameter.grad is not None
    }


# 34 bytes per token, layer and channel at 2 bytes per number. The demo's text tower has 2 layers of 128 channels, its
# image tower 3 of 128, for (64 / 16)^2 patches and the class token.
TEXT, IMAGE = 34 * 2 * 128, 34 * 3 * 128 * 17


@pytest.mark.parametrize(
    ("precision", "pixels", "free", "size"),
    [
        ("bf16", False, 20, 10),  # half of the free memory is used
        ("bf16", False, 19.9, 9),
        ("fp32", False, 20, 5),
        ("bf16", True, 20, 10),
        ("bf16", True, 19.9, 9),
        ("fp32", True, 20, 5),
        ("fp32", False, 0, 1),
        ("fp32", False, 1e6, BATCH),
    ],
)
def test_the_micro_batch_is_what_half_of_the_free_memory_holds(
    precision: str, pixels: bool, free: float, size: int, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`free` is in pairs at 2 bytes per number."""
    trainer = make_trainer()
    tokens = trainer.sampler.captions.tokens
    bytes_per_pair = TEXT * len(tokens.flat) / len(tokens) + (IMAGE if pixels else 0)
    trainer.clip.runtime = Runtime("cpu", precision)
    monkeypatch.setattr(Runtime, "memory", lambda _: (free * bytes_per_pair + 1, 0))
    assert make_trainer(pixels=pixels).state.micro_batch == size
