"""Tiny captioners of the libraries' own classes, with random weights, saved as their owners save them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertTokenizer,
    Blip2Config,
    Blip2ForConditionalGeneration,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    CLIPImageProcessor,
    CLIPVisionConfig,
    GPT2Tokenizer,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from capivara_cli.demo import small_blip2

TEXTS = [f"a photo of a {size} {colour} thing" for size in ("small", "large") for colour in ("red", "blue", "green")]
SMALL: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION: dict[str, Any] = SMALL | {"image_size": 32, "patch_size": 16, "initializer_range": 0.5}
TEMPLATE = (
    "{% for message in messages %}USER: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %} ASSISTANT:"
)


def talkative(model: torch.nn.Module, scale: float = 3.0) -> None:
    """Make random weights say different things for different inputs: at their usual scale they repeat one token."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(scale)


def _see(model: Blip2ForConditionalGeneration) -> None:
    """Make all parts talkative, so that what is said depends on the image too."""
    talkative(model.vision_model, 20.0)
    talkative(model.qformer, 10.0)
    talkative(model.language_projection, 50.0)
    talkative(model.language_model)


def blip2(folder: Path, *, seed: int = 0, ends: int = 50, texts: Iterable[str] = TEXTS) -> Path:
    """BLIP-2 with OPT. So many tokens end a sequence: with one alone a random model would hardly ever end."""
    torch.manual_seed(seed)
    tokenizer = small_blip2.make_tokenizer(texts, 290)
    model = small_blip2.make_small_blip2(tokenizer, width=32, layers=2, queries=4, qformer_layers=1, text_layers=2)
    _see(model)
    settings: Any = model.language_model.generation_config
    eos = [tokenizer.eos_token_id, *torch.randperm(len(tokenizer))[: ends - 1].tolist()]
    settings.eos_token_id = eos
    text: Any = model.config.text_config
    text.eos_token_id = eos
    return small_blip2.save(model, tokenizer, folder)


def blip2_t5(folder: Path) -> Path:
    """BLIP-2 with T5."""
    torch.manual_seed(0)
    tokenizer = small_blip2.make_tokenizer(TEXTS, 290)
    config = small_blip2.make_small_blip2(tokenizer, width=32, layers=1, queries=4, qformer_layers=1).config.to_dict()
    config["text_config"] = {
        "model_type": "t5",
        "vocab_size": len(tokenizer),
        "d_model": 32,
        "d_kv": 16,
        "d_ff": 64,
        "num_layers": 2,
        "num_heads": 2,
        "dropout_rate": 0.0,
        "pad_token_id": 1,
        "eos_token_id": 0,
        "decoder_start_token_id": 1,
    }
    config["use_decoder_only_language_model"] = False
    model = Blip2ForConditionalGeneration(Blip2Config(**config)).eval()
    torch.nn.init.normal_(model.query_tokens)
    _see(model)
    return small_blip2.save(model, tokenizer, folder)


def blip(folder: Path) -> Path:
    """BLIP with its BERT."""
    torch.manual_seed(0)
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "[DEC]",
        *sorted({w for text in TEXTS for w in text.split()}),
    ]
    words += [f"word{number}" for number in range(40)]
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(words)}, bos_token="[DEC]")
    text = SMALL | {"vocab_size": len(words), "encoder_hidden_size": 32, "projection_dim": 32, "initializer_range": 1.0}
    special = {"bos_token_id": 5, "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0, "is_decoder": True}
    config = BlipConfig(text_config=text | special, vision_config=VISION, projection_dim=32)
    model = BlipForConditionalGeneration(config).eval()
    processor = BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def llava(folder: Path, *, template: str | None = TEMPLATE) -> Path:
    """LLaVA: a chat model that sees."""
    torch.manual_seed(0)
    tokenizer: GPT2Tokenizer = small_blip2.make_tokenizer(TEXTS, 290)
    text = LlamaConfig(
        **SMALL, vocab_size=len(tokenizer), num_key_value_heads=2, initializer_range=0.5, pad_token_id=1, eos_token_id=0
    )
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION),
        text_config=text,
        image_token_index=tokenizer.vocab["<image>"],
        image_seq_length=4,
    )
    model = LlavaForConditionalGeneration(config).eval()
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        chat_template=template,
        num_additional_image_tokens=1,
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
