"""Decode images in worker processes, batch by batch, while the model works on earlier batches."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from capivara_cli.data.images import ImageRef, ImageRejected

if TYPE_CHECKING:
    from torch.utils.data import Dataset

T = TypeVar("T")

MIN_IMAGES_FOR_WORKERS = 512  # for fewer, starting worker processes costs more than it saves
MAX_WORKERS = 16


@dataclass(frozen=True)
class Loaded(Generic[T]):
    """A batch of items, with what was loaded for them.

    Attributes:
        items: the items, as they came.
        rows: indices of the items whose image was loaded, ascending.
        values: what `prepare` returned for them; one stacked tensor (rows, ...) if these are tensors of one shape, and
            a tuple of these if they are tuples.
        reasons: index of an item -> why its image cannot be used.
    """

    items: list[T]
    rows: list[int]
    values: Any
    reasons: dict[int, str]


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_images(
    batches: Iterator[list[T]],
    image_of: Callable[[T], ImageRef | None],
    prepare: Callable[[ImageRef], Any],
    expected: int | None = None,
    workers: int | None = None,
) -> Iterator[Loaded[T]]:
    """Load and prepare the images of batches of items, in order; at most two batches per worker are under way.

    Args:
        batches: is asked for the next batch only when a worker is free for it.
        image_of: the item's image; None for an item whose image is not needed.
        prepare: loads an image, and returns a tensor or whatever the model takes; must be picklable. May raise
            ImageRejected.
        expected: images to come, if known.
        workers: processes; None takes one per core, but none for a few images.
    """
    from torch.utils.data import DataLoader

    if workers is None:
        few = expected is not None and expected < MIN_IMAGES_FOR_WORKERS
        workers = 0 if few else min(cores(), MAX_WORKERS)
    waiting: deque[list[T]] = deque()  # the batches being loaded; DataLoader returns them in order

    def indexed_images() -> Iterator[list[tuple[int, ImageRef]]]:
        for items in batches:
            waiting.append(items)
            images = [(i, image_of(item)) for i, item in enumerate(items)]
            yield [(i, image) for i, image in images if image is not None]

    # `_Images` has what DataLoader asks of a data set; deriving from Dataset would import torch for `--help`. A batch
    # sampler may yield anything, not only numbers: here the images themselves, so that no list of all is needed.
    dataset = cast("Dataset[Any]", _Images(prepare))
    sampler = cast("Any", indexed_images())
    for rows, values, reasons in DataLoader(dataset, batch_sampler=sampler, num_workers=workers, collate_fn=_collate):
        yield Loaded(waiting.popleft(), rows, values, reasons)


class _Images:
    def __init__(self, prepare: Callable[[ImageRef], Any]) -> None:
        self.prepare = prepare

    def __getitem__(self, item: tuple[int, ImageRef]) -> tuple[int, Any]:
        """Return the index, and what `prepare` returned or why it could not."""
        index, image = item
        try:
            return index, self.prepare(image)
        except ImageRejected as error:
            return index, error
        except (ValueError, TypeError, ZeroDivisionError) as error:  # the model cannot take it: 1 x 4000 pixels
            return index, ImageRejected(f"cannot be prepared for the model: {error}")


def _collate(items: list[tuple[int, Any]]) -> tuple[list[int], Any, dict[int, str]]:
    rows = [index for index, value in items if not isinstance(value, ImageRejected)]
    values = [value for _, value in items if not isinstance(value, ImageRejected)]
    reasons = {index: value.message for index, value in items if isinstance(value, ImageRejected)}
    return rows, _stack(values), reasons


def _stack(values: list[Any]) -> Any:
    import torch

    if values and isinstance(values[0], tuple):
        return tuple(_stack(list(column)) for column in zip(*values, strict=True))
    same_shape = bool(values) and all(torch.is_tensor(value) and value.shape == values[0].shape for value in values)
    return torch.stack(values) if same_shape else values
