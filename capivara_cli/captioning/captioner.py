"""Models that describe images: one interface, a file a family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from capivara_cli.data import images
from capivara_cli.data.images import ImageRef
from capivara_cli.errors import CapivaraError, first_line
from capivara_cli.models import hub
from capivara_cli.runtime import Runtime

if TYPE_CHECKING:
    import torch

SUPPORTED = "BLIP-2 (OPT or T5), BLIP, and chat models that transformers loads as AutoModelForImageTextToText"

LARGEST_BATCH = 64  # images: with ten prefixes 640 sequences, enough to keep a GPU at its arithmetic
SHARE_OF_MEMORY = 0.6  # of what is free, for what grows with the batch; the rest is for the kernels' own
PARAMETERS_AT_ONCE_ON_CPU = 3e9  # images x weights: a batch takes seconds to some minutes, not an hour


@dataclass(frozen=True)
class Asked:
    """What is wanted of each image.

    Attributes:
        prefixes: what each caption begins with; one caption for each. An empty one leaves the model free.
        lang: the language that a chat model is asked to write in.
        max_new_tokens: tokens after the prefix, at most.
        num_beams: 1 is greedy.
    """

    prefixes: tuple[str, ...]
    lang: str = "en"
    max_new_tokens: int = 50
    num_beams: int = 1


class Captioner(ABC):
    """A loaded model that describes images.

    Attributes:
        runtime: where it is, with the precision settled.
        prepare: what a worker process does: loads an image and makes it ready. Can be pickled, and knows nothing of
            the model. Raises ImageRejected.
    """

    prepare: Callable[[ImageRef], Any]

    def __init__(self, model: Any, asked: Asked, runtime: Runtime) -> None:
        self.model = model
        self.asked = asked
        self.runtime = runtime

    def check_length(self, positions: int | None, prompt: int) -> None:
        """Raise CapivaraError when prompt and new tokens are more than the language model has positions for."""
        if positions is not None and prompt + self.asked.max_new_tokens > positions:
            raise CapivaraError(
                f"--max-new-tokens {self.asked.max_new_tokens}: with {prompt} tokens before them more than the model's "
                f"{positions} positions",
                f"--max-new-tokens {max(positions - prompt, 1)}",
            )

    @abstractmethod
    def captions(self, images: Any) -> list[list[str]]:
        """What `prepare` gave for N images, stacked or in a list -> N lists of K texts, one for each prefix."""

    @abstractmethod
    def bytes_per_image(self) -> int:
        """Memory that an image more in the batch takes, about."""

    def batch_size(self) -> int:
        """Images at once that should fit and keep the device busy."""
        size = max(min(LARGEST_BATCH, int(SHARE_OF_MEMORY * self.runtime.memory()[0] / self.bytes_per_image())), 1)
        if self.runtime.device == "cpu":
            parameters = sum(parameter.numel() for parameter in self.model.parameters())
            size = max(min(size, int(PARAMETERS_AT_ONCE_ON_CPU / parameters)), 1)
        return size


class PreparePixels:
    """The model's own preprocessing, without the model."""

    def __init__(self, image_processor: Any) -> None:
        self.image_processor = image_processor

    def __call__(self, ref: ImageRef) -> torch.Tensor:
        """(3, H, W) float32. Raises ImageRejected."""
        return self.image_processor(images.load(ref), return_tensors="pt")["pixel_values"][0]


def load(name: str, asked: Asked, runtime: Runtime) -> Captioner:
    """Load the captioner that a name or a folder stands for.

    Args:
        name: `org/repo` on the hub, or a folder as transformers saves it.
        asked: what is wanted of each image.
        runtime: where; `auto` precision is settled by the width of the language model.

    Raises:
        CapivaraError: no such folder, no weights in it, no network for them, or a model that is no captioner.
    """
    from transformers import AutoConfig
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    source = hub.source_of(name)
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise _failure(name, error) from error
    runtime = runtime.for_width(getattr(config.get_text_config(), "hidden_size", 0) or 0)
    family = _family(config)
    if family is None:
        raise CapivaraError(f"{name} is a {config.model_type}, which does not describe images", f"use {SUPPORTED}")
    try:
        return family(*family.parts(source, runtime), asked, runtime)
    except CapivaraError:
        raise
    except Exception as error:  # a broken folder makes torch, safetensors and tokenizers raise nearly anything
        raise _failure(name, error) from error


def _family(config: Any) -> Any:
    """The class for a model's configuration; None for what is no captioner."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    from capivara_cli.captioning.blip import Blip
    from capivara_cli.captioning.blip2 import Blip2
    from capivara_cli.captioning.chat import Chat

    families: dict[str, Any] = {"blip": Blip, "blip-2": Blip2}
    return families.get(config.model_type) or (Chat if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING else None)


def _failure(name: str, error: Exception) -> CapivaraError:
    return CapivaraError(f"{name} cannot be loaded: {first_line(error)}", f"what works: {SUPPORTED}")


def dtype_of(runtime: Runtime) -> torch.dtype:
    """What the weights are kept in: captioning needs no master copy in fp32."""
    import torch

    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(runtime.precision, torch.float32)
