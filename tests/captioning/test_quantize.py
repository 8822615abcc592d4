"""Captioners with weights of 8 and 4 bits, by bitsandbytes."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BitsAndBytesConfig, Blip2ForConditionalGeneration

from capivara_cli.captioning.captioner import Captioner
from capivara_cli.captioning.load import load
from capivara_cli.captioning.options import CaptionOptions
from capivara_cli.data.images import ImageRef
from capivara_cli.demo import CAPTIONER
from capivara_cli.errors import CapivaraError
from capivara_cli.runtime import Runtime

PREFIX = "there is"


def captioner(quantize: str) -> Captioner:
    options = CaptionOptions(model=str(CAPTIONER), quantize=quantize)  # type: ignore[arg-type]  # parametrized
    return load(options, (PREFIX,), Runtime.start("cpu", "fp32"))


def pixels(world: Path, prepare: Any) -> torch.Tensor:
    return torch.stack([prepare(ImageRef(str(world / "images" / f"test-{number:05d}.png"))) for number in range(8)])


@pytest.mark.parametrize(
    ("quantize", "settings", "bits"),
    [
        ("8bit", {"load_in_8bit": True}, 8),
        ("4bit", {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.float32}, 4),
    ],
)
def test_captions_are_those_of_transformers_own_quantised_model(
    quantize: str, settings: Mapping[str, Any], bits: int, world: Path
) -> None:
    ours = captioner(quantize)
    images = pixels(world, ours.prepare)
    theirs: Any = Blip2ForConditionalGeneration.from_pretrained(
        CAPTIONER, quantization_config=BitsAndBytesConfig(**settings), device_map={"": "cpu"}, dtype=torch.float32
    )
    assert ours.model.get_memory_footprint() == theirs.get_memory_footprint()
    assert ours.model.get_memory_footprint() < (bits + 16) / 32 * captioner("none").model.get_memory_footprint()
    tokenizer = ours.processor.tokenizer
    prefix = tokenizer([PREFIX] * len(images), return_tensors="pt").input_ids
    tokens = torch.full((len(images), theirs.config.num_query_tokens), theirs.config.image_token_index)
    with torch.no_grad():
        written = theirs.generate(pixel_values=images, input_ids=torch.cat([tokens, prefix], 1), max_new_tokens=50)
    texts = tokenizer.batch_decode(written[:, tokens.shape[1] :], skip_special_tokens=True)
    assert [caption for [caption] in ours.captions(images)] == [" ".join(text.split()) for text in texts]


def test_without_bitsandbytes_the_command_to_install_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name == "bitsandbytes":
            raise ImportError("No module named 'bitsandbytes'")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(CapivaraError, match="--quantize 8bit needs bitsandbytes") as caught:
        captioner("8bit")
    assert caught.value.hint == "pip install 'capivara-cli[bitsandbytes]'"
