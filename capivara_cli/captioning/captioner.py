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
# Share of the free memory for what grows with the batch. The rest is for buffers of kernels and for copies.
SHARE_OF_MEMORY = 0.6
# On a CPU, images per batch x parameters of the model. It keeps a batch at seconds to a few minutes, not an hour:
# progress is saved once per batch.
MAX_IMAGES_TIMES_PARAMETERS_ON_CPU = 3e9


class Captioner(ABC):
    """A loaded model that describes images.

    Attributes:
        model, processor: as transformers loads them.
        tokenizer: the processor's.
        options: `lang`, `max_new_tokens` and `num_beams` are used here.
        prefixes: what the K captions of an image begin with; with an empty prefix the model writes the whole caption.
        runtime: where the model is, with its precision resolved.
        prepare: load an image and preprocess it. Raises ImageRejected. It is sent to worker processes, so it must be
            picklable and must not hold the model.
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

    def check_length(self, max_positions: int | None, prompt_length: int) -> None:
        """Raise CapivaraError when a prompt and the new tokens need more positions than the language model has.

        Args:
            max_positions: positions of the language model; None if it has no limit.
            prompt_length: tokens of the longest prompt, image tokens included.
        """
        new = self.options.max_new_tokens
        if max_positions is None or prompt_length + new <= max_positions:
            return
        limit = f"the prompt has {prompt_length} tokens, and the model has only {max_positions} positions"
        if prompt_length >= max_positions:
            raise CapivaraError(
                f"a prefix is too long: {limit}", "--prefixes FILE with shorter ones, or --prefixes none"
            )
        raise CapivaraError(f"--max-new-tokens {new}: {limit}", f"--max-new-tokens {max_positions - prompt_length}")

    @abstractmethod
    def captions(self, images: Any) -> list[list[str]]:
        """Describe N images: return N lists of K texts, one per prefix.

        Args:
            images: what `prepare` returned for them: a stacked tensor (N, 3, H, W), or a list.
        """

    @abstractmethod
    def bytes_per_image(self) -> int:
        """Return an estimate of the bytes that each image of a batch takes."""

    def batch_size(self) -> int:
        """Return the number of images per batch that should fit in memory and keep the device busy."""
        free, _ = self.runtime.memory()
        size = max(min(LARGEST_BATCH, int(SHARE_OF_MEMORY * free / self.bytes_per_image())), 1)
        if self.runtime.device == "cpu":
            parameters = sum(parameter.numel() for parameter in self.model.parameters())
            size = max(min(size, int(MAX_IMAGES_TIMES_PARAMETERS_ON_CPU / parameters)), 1)
        return size


class PreparePixels:
    """The model's own preprocessing, without the model."""

    def __init__(self, image_processor: Any) -> None:
        self.image_processor = image_processor

    def __call__(self, image: ImageRef) -> torch.Tensor:
        """Return (3, H, W) float32. Raises ImageRejected."""
        return self.image_processor(images.load(image), return_tensors="pt")["pixel_values"][0]
