"""The training loop: one for adapters and whole towers, for cached embeddings and pixels, for one rank and many."""

from __future__ import annotations

import functools
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from capivara_cli.console import progress, say, warn
from capivara_cli.errors import CapivaraError
from capivara_cli.models.clip import Clip
from capivara_cli.models.embedding_cache import ImageTable
from capivara_cli.options import Optimizer, Recipe
from capivara_cli.training.loss import MAX_LOGIT_SCALE, backward
from capivara_cli.training.pixels import PixelTable
from capivara_cli.training.run_folder import Position, RunFolder
from capivara_cli.training.sampler import Sampler
from capivara_cli.training.schedule import learning_rate
from capivara_cli.training.validation import Scores

if TYPE_CHECKING:
    import numpy as np
    import torch
    from rich.progress import Progress
    from torch import Tensor

LOG_EVERY = 10  # steps; the loss is looked at, and so a GPU waited for, only then
LENGTH_CHUNKS = 8  # a batch sorted by length and padded in this many pieces has hardly any padding left
MIN_CHUNK = 32


class Interrupted(CapivaraError):
    """The person stopped the run; it can go on."""

    exit_code = 130


def trainable(clip: Clip) -> dict[str, torch.nn.Parameter]:
    """What is trained, by name."""
    return {name: parameter for name, parameter in clip.model.named_parameters() if parameter.requires_grad}


def make_optimizer(parameters: dict[str, torch.nn.Parameter], settings: Optimizer) -> torch.optim.Optimizer:
    """Adam as the recipe says: AdamW spares biases, norms and the logit scale, the paper's Adam spares nothing."""
    import torch

    every = list(parameters.values())
    kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    groups: list[dict[str, Any]] = [{"params": every, "weight_decay": settings.weight_decay}]
    if settings.name == "adamw":
        groups = [
            {"params": [p for p in every if p.ndim >= 2], "weight_decay": settings.weight_decay},
            {"params": [p for p in every if p.ndim < 2], "weight_decay": 0.0},
        ]
    fused = all(parameter.is_cuda for parameter in every)
    return kind(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=fused)


@dataclass
class Trainer:
    """A run in progress.

    Attributes:
        images: of the training records: embeddings of the frozen tower, or pixels for the one that trains.
        validate: scores of the weights as they are; None without validation data.
        save: writes the adapter or the model.
        losses: of the steps since the last log line, on the device.
    """

    recipe: Recipe
    clip: Clip
    run: RunFolder
    sampler: Sampler
    images: ImageTable | PixelTable
    validate: Callable[[], Scores] | None
    save: Callable[[], None]
    position: Position
    parameters: dict[str, torch.nn.Parameter] = field(init=False)
    optimizer: torch.optim.Optimizer = field(init=False)
    scaler: torch.amp.GradScaler = field(init=False)
    losses: list[Tensor] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        import torch

        runtime = self.clip.runtime
        self.parameters = trainable(self.clip)
        self.optimizer = make_optimizer(self.parameters, self.recipe.optimizer)
        self.scaler = torch.amp.GradScaler(runtime.device.split(":")[0], enabled=runtime.precision == "fp16")
        if self.position.step:
            self.run.load_state(self.parameters, self.optimizer)
            self.losses = [torch.tensor(loss, device=runtime.device) for loss in self.position.losses]
            if self.position.scaler:
                self.scaler.load_state_dict(self.position.scaler)
        if self.position.micro_batch is None:
            self.position.micro_batch = self._first_micro_batch()

    def fit(self) -> None:
        """Train to the last step.

        Raises:
            CapivaraError: when the loss is not a number; what was saved last is still there.
            Interrupted: on Ctrl-C or SIGTERM, after the state was saved.
        """
        if self.position.step == 0 and self.validate:
            self._validate()
        with _stop_signals() as stop, progress("loss", "lr", "rate", "memory") as bar:
            task = bar.add_task("training", total=self.recipe.max_steps, loss="", lr="", rate="", memory="")
            bar.update(task, completed=self.position.step)
            since, seen = time.monotonic(), self.position.step
            while self.position.step < self.recipe.max_steps:
                self.step()
                step = self.position.step
                last = step == self.recipe.max_steps
                if step % LOG_EVERY == 0 or last:
                    rate = (step - seen) * self.recipe.batch_size / (time.monotonic() - since)
                    self._log(bar, rate)
                    since, seen = time.monotonic(), step
                if (step % self.recipe.eval_every == 0 or last) and self.validate:
                    self._validate()
                    since = time.monotonic()
                stopping = self.clip.runtime.any_rank(bool(stop))
                if stopping or (not self.losses and self.run.state_is_due()):
                    self._save_state()
                if stopping and not last:
                    raise Interrupted(
                        f"stopped at step {step} of {self.recipe.max_steps}", "the same command goes on from there"
                    )
        if self.validate is None:
            self.save()

    def step(self) -> None:
        """One optimiser step."""
        settings = self.recipe.optimizer
        rate = learning_rate(
            self.position.step,
            max_steps=self.recipe.max_steps,
            warmup_steps=settings.warmup_steps,
            lr=settings.lr,
            min_lr=settings.min_lr,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.losses.append(self._gradients())
        self.clip.runtime.sum_gradients(list(self.parameters.values()))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.clip.model.logit_scale.data.clamp_(0, MAX_LOGIT_SCALE)
        self.position.step += 1

    def _gradients(self) -> Tensor:
        """Fill `.grad` for this step's batch. When memory runs out, again with smaller micro-batches."""
        rows, texts, views = self._draw(self.position.step)
        content = self.images.take(rows, views)  # (B, D), or (B, 3, H, W)
        if isinstance(self.images, PixelTable) and self.position.step + 1 < self.recipe.max_steps:
            following = self._draw(self.position.step + 1)
            self.images.prefetch(following[0], following[2])
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            size = min(self.position.micro_batch or len(rows), len(rows))
            try:
                return self._accumulate(texts, content, size)
            except RuntimeError as error:
                self.position.micro_batch = self.clip.runtime.halve_on_oom(error, size)
                warn(f"out of memory: {self.position.micro_batch} texts at once from now on; the result is the same")

    def _draw(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """This rank's part of a batch, the longest texts first: images, texts and views, each (B / ranks,)."""
        rows, texts, views = self.sampler.batch(step)
        runtime = self.clip.runtime
        order = self.sampler.captions.tokens.by_length(texts)[runtime.rank :: runtime.world_size]
        return rows[order], texts[order], views[order]

    def _accumulate(self, texts: np.ndarray, content: Tensor, size: int) -> Tensor:
        """Gradients of a batch with `size` texts in memory at once."""
        clip, tokens = self.clip, self.sampler.captions.tokens
        keep_graphs = size == len(texts)
        if keep_graphs:
            size = max(-(-len(texts) // LENGTH_CHUNKS), MIN_CHUNK)
        chunks = [slice(start, start + size) for start in range(0, len(texts), size)]
        # Prepared before the first is needed, so that a GPU never waits for the next one.
        inputs = [tokens.batch(texts[chunk]) for chunk in chunks]
        encode_texts = [functools.partial(clip.encode_tokens, batch) for batch in inputs]
        images: Tensor | list[functools.partial[Tensor]] = content.to(clip.runtime.device, non_blocking=True)
        if isinstance(self.images, PixelTable):
            images = [functools.partial(clip.encode_pixels, content[chunk]) for chunk in chunks]
        scale = clip.model.logit_scale
        return backward(
            encode_texts, images, scale, clip.runtime, keep_graphs=keep_graphs, scale_loss=self.scaler.scale
        )

    def _first_micro_batch(self) -> int | None:
        """What should fit by the size of the activations; None for the whole batch.

        34 bytes a token, layer and channel at 2 bytes a number (arXiv 2205.05198, equation 1, without the
        attention scores, which are never stored here). Half of the free memory is theirs. On a GPU running
        out is caught all the same; on a CPU the system would kill the process instead.
        """
        if self.recipe.micro_batch != "auto":
            return self.recipe.micro_batch
        runtime, tokens = self.clip.runtime, self.sampler.captions.tokens
        width = 2 if runtime.precision != "fp32" else 4
        share = self.recipe.batch_size // runtime.world_size
        text_layers, text_channels = self.clip.text_size()
        a_pair = 17 * width * text_layers * text_channels * float(tokens.lengths.mean() if len(tokens) else 1)
        if isinstance(self.images, PixelTable):
            image_tokens, image_layers, image_channels = self.clip.image_size()
            a_pair += 17 * width * image_tokens * image_layers * image_channels
        fits = int(runtime.memory()[0] / 2 / a_pair)
        return None if fits >= share else max(fits, 1)

    def _look_at_losses(self) -> list[float]:
        """The losses since the last log line. Raises CapivaraError when one is not a number."""
        import torch

        losses = torch.stack(self.losses).float().cpu()
        if not bool(losses.isfinite().all()):
            bad = self.position.step - len(losses) + 1 + int((~losses.isfinite()).nonzero()[0])
            raise CapivaraError(
                f"the loss of step {bad} is {float(losses[~losses.isfinite()][0])}; training stopped",
                f"a smaller --lr (now {self.recipe.optimizer.lr:g}) or --precision fp32; "
                f"the last good state is in {self.run.path}",
            )
        return [float(loss) for loss in losses]

    def _log(self, bar: Progress, rate: float) -> None:
        """Look at the losses since the last time, and tell."""
        losses = self._look_at_losses()
        self.losses.clear()
        step = self.position.step
        lr = self.optimizer.param_groups[0]["lr"]
        memory = self.clip.runtime.memory()[1] / 2**30
        scale = float(self.clip.model.logit_scale.detach().exp())
        loss = sum(losses) / len(losses)
        self.run.log(
            step=step,
            loss=loss,
            lr=lr,
            logit_scale=scale,
            samples_per_second=round(rate, 1),
            memory_gib=round(memory, 2),
        )
        bar.update(
            bar.task_ids[0],
            completed=step,
            loss=f"loss {loss:.4f}",
            lr=f"lr {lr:.2g}",
            rate=f"{rate:,.0f} samples/s",
            memory=f"{memory:.1f} GiB",
        )

    def _validate(self) -> None:
        """Score the weights as they are, and keep them if they are the best so far."""
        assert self.validate is not None
        scores = self.validate()
        step = self.position.step
        self.run.log(step=step, **{f"val/{lang}": value for lang, value in scores.items()})
        say(f"step {step:>6}  mean recall  " + "  ".join(f"{lang} {100 * value:.1f}" for lang, value in scores.items()))
        wanted = [scores[lang] for lang in (*self.sampler.langs, *self.sampler.keep) if lang in scores]
        score = sum(wanted) / len(wanted) if wanted else 0.0
        if step > 0 and (self.position.best is None or score > self.position.best):
            self.position.best, self.position.best_step = score, step
            if self.clip.runtime.is_main:
                self.save()

    def _save_state(self) -> None:
        self.position.losses = self._look_at_losses() if self.losses else []
        self.position.scaler = self.scaler.state_dict() or None
        self.run.save_state(self.position, self.parameters, self.optimizer)


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """A list that is empty until Ctrl-C or SIGTERM; a second Ctrl-C stops at once."""
    import threading

    stop: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(number: int, _frame: object) -> None:
        stop.append(number)
        say("stopping after this step; once more to stop at once")
        for each, handler in old.items():
            signal.signal(each, handler)

    old = {each: signal.signal(each, note) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for each, handler in old.items():
            signal.signal(each, handler)
