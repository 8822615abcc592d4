"""The training loop: one for adapters and whole towers, for cached embeddings and pixels, for one rank and many."""

from __future__ import annotations

import functools
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from capivara_cli.console import say, warn
from capivara_cli.errors import CapivaraError
from capivara_cli.interrupts import deferred, note
from capivara_cli.models.clip import Clip
from capivara_cli.models.embedding_cache import ImageTable
from capivara_cli.progress import progress
from capivara_cli.training.loss import MAX_LOGIT_SCALE, gradcache_backward
from capivara_cli.training.optimizer import learning_rate, make_optimizer
from capivara_cli.training.options import TrainOptions
from capivara_cli.training.pixels import PixelTable
from capivara_cli.training.run_folder import RunFolder, TrainerState
from capivara_cli.training.sampler import Batch, Sampler
from capivara_cli.training.validation import Scores

if TYPE_CHECKING:
    import torch
    from rich.progress import Progress
    from torch import Tensor

LOG_EVERY = 10  # steps; reading a loss waits for the GPU, so losses are read only when they are logged
LENGTH_CHUNKS = 8  # a batch that is sorted by length and padded in this many chunks has hardly any padding left
MIN_CHUNK = 32  # texts; smaller chunks do not keep a device busy


class Interrupted(CapivaraError):
    """Raised when a signal stopped the run; it can be resumed."""

    def __init__(self, message: str, hint: str, signal: int) -> None:
        super().__init__(message, hint)
        self.exit_code = 128 + signal  # what shells report for a process that a signal ended


def trainable(clip: Clip) -> dict[str, torch.nn.Parameter]:
    """Return the parameters that train, by name."""
    return {name: parameter for name, parameter in clip.model.named_parameters() if parameter.requires_grad}


class Trainer:
    """A run in progress.

    Args:
        images: of the training records: embeddings of a frozen image tower, or pixels for one that trains.
        validate: returns the scores of the present weights; None without validation data.
        save_weights: writes the adapter or the model.

    Attributes:
        losses: of the steps since the last log line, scalars on the device.
    """

    def __init__(
        self,
        options: TrainOptions,
        clip: Clip,
        run: RunFolder,
        sampler: Sampler,
        images: ImageTable | PixelTable,
        validate: Callable[[], Scores] | None,
        save_weights: Callable[[], None],
        state: TrainerState,
    ) -> None:
        import torch

        runtime = clip.runtime
        self.options, self.clip, self.run, self.state = options, clip, run, state
        self.sampler, self.images = sampler, images
        self.validate, self.save_weights = validate, save_weights
        self.losses: list[Tensor] = []
        self.parameters = trainable(clip)
        self.optimizer = make_optimizer(list(self.parameters.values()), options.optimizer)
        # fp16 has so little range that small gradients would become 0: the loss is multiplied before the backward pass,
        # and the gradients are divided by the same number before Adam. In other precisions the scaler does nothing.
        self.scaler = torch.amp.GradScaler(runtime.device.split(":")[0], enabled=runtime.precision == "fp16")
        if self.state.step:
            self.run.load_state(self.parameters, self.optimizer)
            self.losses = [torch.tensor(loss, device=runtime.device) for loss in self.state.losses]
            if self.state.scaler:
                self.scaler.load_state_dict(self.state.scaler)
        # The smaller of both: a run that was out of memory has halved the size, and the user may have lowered it since.
        # None is `auto`, or a run before its first step.
        sizes = [size for size in (self.state.micro_batch, self.options.micro_batch) if size]
        self.state.micro_batch = min(sizes) if sizes else self._estimate_micro_batch()

    def count_parameters(self) -> int:
        """Return how many numbers train."""
        return sum(parameter.numel() for parameter in self.parameters.values())

    def fit(self) -> None:
        """Train to the last step.

        Raises:
            CapivaraError: when the loss is not a number; the state that was saved last is kept.
            Interrupted: on Ctrl-C or SIGTERM, after the state was saved.
        """
        if self.state.step == 0 and self.validate:
            self._validate()
        with _stop_signals() as stop, progress("loss", "lr", "rate", "memory") as bar:
            task = bar.add_task("training", total=self.options.max_steps, loss="", lr="", rate="", memory="")
            bar.update(task, completed=self.state.step)
            timed_from, logged_step = time.monotonic(), self.state.step
            while self.state.step < self.options.max_steps:
                self.step()
                step = self.state.step
                bar.update(task, completed=step)
                last = step == self.options.max_steps
                if step % LOG_EVERY == 0 or last:
                    pairs = (step - logged_step) * self.options.batch_size
                    self._log(bar, pairs / (time.monotonic() - timed_from))
                    timed_from, logged_step = time.monotonic(), step
                if (step % self.options.eval_every == 0 or last) and self.validate:
                    self._validate()
                    timed_from = time.monotonic()  # the rate is that of training alone
                # All ranks must stop after the same step: the next step needs the features of every rank.
                stopping = self.clip.runtime.any_rank(bool(stop))
                # Right after a log line no losses are waiting: saving them would wait for the GPU once more.
                if stopping or (not self.losses and self.run.state_is_due()):
                    self._save_state()
                if stopping and not last:
                    raise Interrupted(
                        f"stopped at step {step} of {self.options.max_steps}",
                        "run the same command again to resume",
                        stop[0] if stop else signal.SIGINT,  # another rank got the signal
                    )
        if self.validate is None and self.clip.runtime.is_main:  # otherwise `_validate` has saved the best ones
            self.save_weights()

    def step(self) -> None:
        """Do one optimiser step."""
        rate = learning_rate(self.state.step, self.options.max_steps, self.options.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.losses.append(self._backward())  # not read yet: that would wait for the GPU
        self.clip.runtime.sum_gradients(list(self.parameters.values()))
        # In fp16, this divides the gradients by the scale, and skips the update if they overflowed.
        self.scaler.step(self.optimizer)
        self.scaler.update()
        # `logit_scale` is a logarithm: 0 is a factor of 1. In place, because Adam's moments belong to the parameter.
        self.clip.model.logit_scale.data.clamp_(0, MAX_LOGIT_SCALE)
        self.state.step += 1

    def _backward(self) -> Tensor:
        """Fill `.grad` for this step's batch. When memory runs out, try again with smaller micro-batches."""
        batch = self._draw(self.state.step)
        images = self.images.take(batch.images, batch.views)  # (B / ranks, D), or (B / ranks, 3, H, W)
        if isinstance(self.images, PixelTable) and self.state.step + 1 < self.options.max_steps:
            following = self._draw(self.state.step + 1)
            self.images.prefetch(following.images, following.views)
        while True:
            self.optimizer.zero_grad(set_to_none=True)  # also removes what a failed attempt has added
            size = min(self.state.micro_batch or len(batch.images), len(batch.images))
            try:
                return self._backward_in_micro_batches(batch, images, size)
            except RuntimeError as error:
                smaller = self.clip.runtime.halve_on_oom(error, size)
                self.state.micro_batch = smaller
                warn(f"out of memory: {smaller} texts per forward pass from now on; the result is the same")

    def _draw(self, step: int) -> Batch:
        """Return this rank's part of a batch, the longest captions first.

        The sorted batch is dealt out like cards, so that each rank gets long and short captions and none waits for
        another.
        """
        batch = self.sampler.batch(step)
        runtime = self.clip.runtime
        order = self.sampler.captions.tokens.by_length(batch.text_ids)[runtime.rank :: runtime.world_size]
        return Batch(*(column[order] for column in batch))

    def _backward_in_micro_batches(self, batch: Batch, images: Tensor, size: int) -> Tensor:
        """Fill `.grad` with `size` texts per forward pass, and return the loss."""
        clip, tokens = self.clip, self.sampler.captions.tokens
        total = len(batch.text_ids)
        keep_graphs = size == total
        if keep_graphs:  # the whole batch fits in memory: cut it all the same, to have less padding
            size = max(-(-total // LENGTH_CHUNKS), MIN_CHUNK)
        chunks = [slice(start, start + size) for start in range(0, total, size)]
        # Pad all chunks before the first is encoded, so that a GPU never waits for the next one.
        padded = [tokens.batch(batch.text_ids[chunk]) for chunk in chunks]  # each (b, longest of the chunk)
        encode_texts = [functools.partial(clip.encode_tokens, part) for part in padded]
        image_side: Tensor | list[functools.partial[Tensor]]
        if isinstance(self.images, PixelTable):
            image_side = [functools.partial(clip.encode_pixels, images[chunk]) for chunk in chunks]
        else:
            image_side = images.to(clip.runtime.device, non_blocking=True)
        scale = clip.model.logit_scale
        return gradcache_backward(
            encode_texts, image_side, scale, clip.runtime, keep_graphs=keep_graphs, scale_loss=self.scaler.scale
        )

    def _estimate_micro_batch(self) -> int:
        """Return how many of this rank's pairs should fit in memory, by the size of the activations.

        A transformer keeps 34 bytes per token, layer and channel for the backward pass, at 2 bytes per number
        (arXiv 2205.05198, equation 1, without the attention scores, which SDPA never stores). Half of the free memory
        may be used. A GPU that runs out of memory all the same is handled in `_backward`; on a CPU the system would
        kill the process.
        """
        runtime, tokens = self.clip.runtime, self.sampler.captions.tokens
        # 34 bytes at 2 bytes per number are 17 numbers.
        bytes_per_channel = 17 * (2 if runtime.precision != "fp32" else 4)
        local_batch = self.options.batch_size // runtime.world_size
        layers, channels = self.clip.text_size()
        mean_length = float(tokens.lengths.mean() if len(tokens) else 1)
        bytes_per_pair = bytes_per_channel * layers * channels * mean_length
        if isinstance(self.images, PixelTable):
            image_tokens, layers, channels = self.clip.image_size()
            bytes_per_pair += bytes_per_channel * image_tokens * layers * channels
        fits = int(runtime.memory()[0] / 2 / bytes_per_pair)
        return min(max(fits, 1), local_batch)

    def _fetch_losses(self) -> list[float]:
        """Return the losses since the last log line. Raises CapivaraError when one is not a number."""
        import torch

        losses = torch.stack(self.losses).float().cpu()  # (steps,)
        bad = (~losses.isfinite()).nonzero().flatten()
        if len(bad):
            # Counted from 1, as in the log. `state.step` already counts the steps whose losses these are.
            step = self.state.step - len(losses) + 1 + int(bad[0])
            raise CapivaraError(
                f"the loss of step {step} is {float(losses[bad[0]])}; training stopped",
                f"start over with a smaller --lr (now {self.options.optimizer.lr:g}) or with --precision fp32:"
                " --overwrite, or -o FOLDER to keep the weights so far",
            )
        return [float(loss) for loss in losses]

    def _log(self, bar: Progress, rate: float) -> None:
        """Write a line of metrics and update the progress bar. `rate` is in pairs per second."""
        losses = self._fetch_losses()
        self.losses.clear()
        step, loss = self.state.step, sum(losses) / len(losses)
        lr = self.optimizer.param_groups[0]["lr"]
        memory = self.clip.runtime.memory()[1] / 2**30
        self.run.log(
            step=step,
            loss=loss,
            lr=lr,
            logit_scale=float(self.clip.model.logit_scale.detach().exp()),
            samples_per_second=round(rate, 1),
            memory_gib=round(memory, 2),
        )
        bar.update(
            bar.task_ids[0],
            loss=f"loss {loss:.4f}",
            lr=f"lr {lr:.2g}",
            rate=f"{rate:,.0f} samples/s",
            memory=f"{memory:.1f} GiB",
        )

    def _validate(self) -> None:
        """Score the present weights, and save them if they are the best so far."""
        assert self.validate is not None
        scores = self.validate()
        step = self.state.step
        self.run.log(step=step, **{f"val/{lang}": value for lang, value in scores.items()})
        say(f"step {step:>6}  mean recall  " + "  ".join(f"{lang} {100 * value:.1f}" for lang, value in scores.items()))
        # Languages to learn and to replay count alike; a language that is only watched does not choose the weights.
        counted = [scores[lang] for lang in (*self.sampler.langs, *self.sampler.replay) if lang in scores]
        score = sum(counted) / len(counted) if counted else 0.0
        if step > 0 and (self.state.best is None or score > self.state.best):
            self.state.best, self.state.best_step = score, step
            if self.clip.runtime.is_main:
                self.save_weights()

    def _save_state(self) -> None:
        self.state.losses = self._fetch_losses() if self.losses else []
        self.state.scaler = self.scaler.state_dict() or None
        self.run.save_state(self.state, self.parameters, self.optimizer)


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Yield a list that stays empty until Ctrl-C or SIGTERM. A second signal ends the process at once."""
    stop: list[int] = []

    def handle(number: int) -> None:
        stop.append(number)
        say("stopping after this step; press Ctrl-C again to stop at once")

    note("the last saved state stands: run the same command again to resume")
    with deferred(handle):
        yield stop
