"""Fit the built-in recipe, which is made for millions of images, to the images that there are."""

from __future__ import annotations

from capivara_cli.console import counted, say
from capivara_cli.errors import CapivaraError
from capivara_cli.training.options import TrainOptions, check_together

MAX_EPOCHS = 50  # more only learn the captions by heart
WARMUP_SHARE = 10  # at most a tenth of the steps


def fit(options: TrainOptions, images: int) -> TrainOptions:
    """Return the options with the values that `options.fit` names fitted to this number of images, and say so.

    The batch becomes the largest power of two that is at most half the images: a batch is drawn without repetition, and
    two batches should differ. Steps and warm-up follow from it.

    Raises:
        CapivaraError: a value that was set does not go with those that fit.
    """
    batch, steps, warmup = options.batch_size, options.max_steps, options.optimizer.warmup_steps
    if "batch_size" in options.fit and images >= 2:
        batch = min(batch, max(2 ** ((images // 2).bit_length() - 1), 2))
    if "max_steps" in options.fit:
        steps = min(steps, max(MAX_EPOCHS * images // batch, 1))
    if "optimizer.warmup_steps" in options.fit:
        warmup = min(warmup, steps // WARMUP_SHARE)
    changes = [
        f"{name} {value:,} instead of {old:,}"
        for name, value, old in (
            ("batch size", batch, options.batch_size),
            ("steps", steps, options.max_steps),
            ("warm-up steps", warmup, options.optimizer.warmup_steps),
        )
        if value != old
    ]
    fitted = options.replace(
        batch_size=batch, max_steps=steps, optimizer=options.optimizer.replace(warmup_steps=warmup), fit=()
    )
    try:
        check_together(fitted)
    except CapivaraError as error:
        raise CapivaraError(f"{counted(images, 'image')}: {error.message}", error.hint) from error
    if changes:
        say(f"the recipe, fitted to {counted(images, 'image')}: {', '.join(changes)}")
    return fitted
