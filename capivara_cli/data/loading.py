"""Decode images in worker processes, batch by batch, while the model is at work on earlier ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

from capivara_cli.data.images import ImageRef, ImageRejected

if TYPE_CHECKING:
    from torch.utils.data import Dataset

MIN_IMAGES_FOR_WORKERS = 512  # below, starting worker processes costs more than it saves
MOST_WORKERS = 16


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_images(
    batches: Iterator[list[ImageRef]],
    prepare: Callable[[ImageRef], Any],
    expected: int | None = None,
    workers: int | None = None,
) -> Iterator[tuple[list[int], Any, dict[int, str]]]:
    """Load and prepare batches of images, in order. At most two batches a worker are under way.

    Args:
        batches: asked for the next batch only when a worker is free for it.
        prepare: loads an image and gives a tensor, or whatever the model wants; must be picklable. May raise
            ImageRejected.
        expected: images to come, if known.
        workers: processes; None takes one a core, but none for a few images.

    Yields:
        for each batch the places of the images that worked, what `prepare` gave for them (stacked into one
        tensor where it gave tensors of one shape), and the reason for each place that did not.
    """
    from torch.utils.data import DataLoader

    if workers is None:
        few = expected is not None and expected < MIN_IMAGES_FOR_WORKERS
        workers = 0 if few else min(cores(), MOST_WORKERS)
    # It has what DataLoader asks of a data set; deriving from Dataset would import torch for `--help`. What the
    # sampler gives need not be numbers: the images themselves, so that no list of all of them is needed.
    dataset = cast("Dataset[Any]", _Images(prepare))
    sampler = cast("Any", batches)
    yield from DataLoader(dataset, batch_sampler=sampler, num_workers=workers, collate_fn=_collate)


class _Images:
    def __init__(self, prepare: Callable[[ImageRef], Any]) -> None:
        self.prepare = prepare

    def __getitem__(self, ref: ImageRef) -> Any:
        """What `prepare` gives, or the reason why not."""
        try:
            return self.prepare(ref)
        except ImageRejected as error:
            return error
        except (ValueError, TypeError, ZeroDivisionError) as error:  # an image that a model cannot take: 1 x 4000
            return ImageRejected(f"cannot be prepared for the model: {error}")


def _collate(items: list[Any]) -> tuple[list[int], Any, dict[int, str]]:
    import torch

    good = [i for i, item in enumerate(items) if not isinstance(item, ImageRejected)]
    reasons = {i: item.message for i, item in enumerate(items) if isinstance(item, ImageRejected)}
    values = [items[i] for i in good]
    alike = bool(values) and all(torch.is_tensor(value) and value.shape == values[0].shape for value in values)
    return good, torch.stack(values) if alike else values, reasons
