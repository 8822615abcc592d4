"""The interface of models that describe images; one module per model family implements it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from capivara_cli.captioning.options import CaptionOptions
from capivara_cli.data import images
from capivara_cli.data.images import ImageRef
from capivara_cli.errors import CapivaraError
from capivara_cli.runtime import Runtime

if TYPE_CHECKING:
    import torch

LARGEST_BATCH = 64  # images: with ten prefixes 640 sequences, enough to keep a GPU busy
SHARE_OF_MEMORY = 0.6  # of the free memory, for what grows with the batch; the rest is for the kernels' buffers
PARAMETERS_AT_ONCE_ON_CPU = 3e9  # images x weights: a batch takes seconds to a few minutes, not an hour


class Captioner(ABC):
    """A loaded model that describes images.

    Attributes:
        model, processor: as transformers loads them; the processor holds the tokenizer.
        options: `lang`, `max_new_tokens` and `num_beams` are used here.
        prefixes: what the K captions of an image begin with; an empty prefix leaves the model free.
        runtime: where the model is, with its precision resolved.
        prepare: load an image and preprocess it, in a worker process. Can be pickled and does not hold the model.
            Raises ImageRejected.
    """

    prepare: Callable[[ImageRef], Any]

    def __init__(
        self, model: Any, processor: Any, options: CaptionOptions, prefixes: tuple[str, ...], runtime: Runtime
    ) -> None:
        self.model = model
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.prepare = PreparePixels(processor.image_processor)
        self.options = options
        self.prefixes = prefixes
        self.runtime = runtime

    def check_length(self, positions: int | None, prompt: int) -> None:
        """Raise CapivaraError when a prompt and the new tokens need more positions than the language model has."""
        new = self.options.max_new_tokens
        if positions is not None and prompt + new > positions:
            raise CapivaraError(
                f"--max-new-tokens {new}: the prompt has {prompt} tokens, and the model has only {positions} positions",
                f"--max-new-tokens {max(positions - prompt, 1)}",
            )

    @abstractmethod
    def captions(self, images: Any) -> list[list[str]]:
        """Describe N images: return N lists of K texts, one per prefix.

        Args:
            images: what `prepare` returned for them: a stacked tensor (N, 3, H, W), or a list.
        """

    @abstractmethod
    def bytes_per_image(self) -> int:
        """Return roughly how much memory one more image in the batch takes."""

    def batch_size(self) -> int:
        """Return how many images at once should fit and keep the device busy."""
        free, _ = self.runtime.memory()
        size = max(min(LARGEST_BATCH, int(SHARE_OF_MEMORY * free / self.bytes_per_image())), 1)
        if self.runtime.device == "cpu":
            parameters = sum(parameter.numel() for parameter in self.model.parameters())
            size = max(min(size, int(PARAMETERS_AT_ONCE_ON_CPU / parameters)), 1)
        return size


class PreparePixels:
    """The model's own preprocessing, without the model."""

    def __init__(self, image_processor: Any) -> None:
        self.image_processor = image_processor

    def __call__(self, image: ImageRef) -> torch.Tensor:
        """Return (3, H, W) float32. Raises ImageRejected."""
        return self.image_processor(images.load(image), return_tensors="pt")["pixel_values"][0]
