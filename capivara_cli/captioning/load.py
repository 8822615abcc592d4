"""Load a caption model by its hub id or folder, as the captioner class of its family."""

from __future__ import annotations

import warnings
from typing import Any

from capivara_cli.captioning.captioner import Captioner
from capivara_cli.captioning.options import CaptionOptions
from capivara_cli.errors import CapivaraError, explained
from capivara_cli.models import foreign, hub
from capivara_cli.models.generation import check_generation
from capivara_cli.runtime import Runtime

SUPPORTED = "BLIP-2 (OPT or T5), BLIP, and chat models that transformers loads as AutoModelForImageTextToText"


def load(options: CaptionOptions, prefixes: tuple[str, ...], runtime: Runtime) -> Captioner:
    """Load the model that the options name.

    Args:
        options: `model` is `org/repo` on the hub, or a folder as `save_pretrained` writes it.
        prefixes: what the captions of an image begin with.
        runtime: the device; precision `auto` is chosen from the width of the language model.

    Raises:
        CapivaraError: no such folder, no weights in it, no network for them, or a model that cannot describe images.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    name = options.model
    source = hub.source_of(name)
    with foreign.loading(name, f"supported: {SUPPORTED}"):
        config = foreign.load_config(source)
        runtime = runtime.for_width(getattr(config.get_text_config(), "hidden_size", 0) or 0)
        family = _family(config)
        if family is None:
            raise CapivaraError(f"{name} is a {config.model_type}, which does not describe images", f"use {SUPPORTED}")
        # Of a hub repository there are no files to compare with before they are downloaded: docs/security.md says so.
        if files := hub.weights_in(source):
            foreign.check_size(lambda: AutoModelForImageTextToText.from_config(config), name, files)
        quantization = _quantization(options.quantize, runtime)
        model = AutoModelForImageTextToText.from_pretrained(
            source,
            dtype=runtime.dtype,
            quantization_config=quantization,
            # Quantised weights must be loaded onto the device; they cannot be moved there later.
            device_map={"": runtime.device} if quantization else None,
            trust_remote_code=False,
        )
        for module in model.modules():
            check_generation(getattr(module, "generation_config", None), name)
        processor = AutoProcessor.from_pretrained(source, trust_remote_code=False)
        return family(
            model.eval() if quantization else model.eval().to(runtime.device), processor, options, prefixes, runtime
        )


def _quantization(quantize: str, runtime: Runtime) -> Any:
    """Return the bitsandbytes configuration; None for weights that are not quantised."""
    if quantize == "none":
        return None
    with explained(
        f"--quantize {quantize} needs bitsandbytes", ImportError, hint="pip install 'capivara-cli[bitsandbytes]'"
    ):
        import bitsandbytes  # noqa: F401
    from transformers import BitsAndBytesConfig

    # bitsandbytes computes 8-bit products in fp16 whatever the precision. Users cannot change that: hide its warning.
    warnings.filterwarnings("ignore", message="MatMul8bitLt: inputs will be cast")
    if quantize == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=runtime.dtype)


def _family(config: Any) -> Any:
    """Return the captioner class for a model's configuration; None if the model cannot describe images."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    from capivara_cli.captioning.blip import Blip
    from capivara_cli.captioning.blip2 import Blip2
    from capivara_cli.captioning.chat import Chat

    families: dict[str, Any] = {"blip": Blip, "blip-2": Blip2}
    return families.get(config.model_type) or (Chat if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING else None)
