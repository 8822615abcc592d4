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
    M2M100Config,
    M2M100ForConditionalGeneration,
    M2M100Tokenizer,
    MarianConfig,
    MarianMTModel,
    MarianTokenizer,
    T5Config,
    T5ForConditionalGeneration,
    T5Tokenizer,
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
    return small_blip2.save_captioner(folder, model, tokenizer)


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
    return small_blip2.save_captioner(folder, model, tokenizer)


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


def _pieces(texts: Iterable[str], extra: Iterable[str]) -> list[tuple[str, float]]:
    """Unigram pieces with scores: characters, words, and what a family wants beside them."""
    words = sorted({f"\u2581{word}" for text in texts for word in text.split()})
    letters = sorted({letter for word in words for letter in word} | set("bcfijkmqvxz"))
    return [(piece, -float(number % 7) - 1) for number, piece in enumerate([*extra, *words, *letters])]


def m2m100(folder: Path) -> Path:
    """M2M100 with its own tokenizer, whose pieces are a SentencePiece model's."""
    import json

    torch.manual_seed(0)
    spm = sentencepiece(folder)
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *_read_pieces(spm)]
    (folder / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(pieces)}))
    tokenizer = M2M100Tokenizer(
        vocab_file=str(folder / "vocab.json"), spm_file=str(spm), src_lang="en", language_codes="m2m100"
    )
    size = max(tokenizer.lang_token_to_id.values()) + 1
    config = M2M100Config(vocab_size=size, **_SEQ2SEQ, pad_token_id=1, bos_token_id=0, eos_token_id=2)
    config.decoder_start_token_id = 2
    return _saved(M2M100ForConditionalGeneration(config), tokenizer, folder)


def madlad(folder: Path) -> Path:
    """T5 whose tokenizer knows `<2hi>`."""
    torch.manual_seed(0)
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -10.0), ("<2hi>", -1.0), ("<2pt>", -1.0)]
    tokenizer = T5Tokenizer(vocab=[*special, *_pieces(TEXTS, [])], extra_ids=0)
    sizes: dict[str, Any] = {
        "d_model": 32,
        "d_kv": 16,
        "d_ff": 64,
        "num_layers": 2,
        "num_heads": 2,
        "dropout_rate": 0.0,
    }
    special_ids: dict[str, Any] = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    config = T5Config(vocab_size=len(tokenizer), **sizes, **special_ids)
    return _saved(T5ForConditionalGeneration(config), tokenizer, folder)


def marian(folder: Path, *, languages: tuple[str, ...] = ()) -> Path:
    """Marian of one pair, or of several targets."""
    import json

    torch.manual_seed(0)
    spm = sentencepiece(folder)
    pieces = ["</s>", "<unk>", *(f">>{code}<<" for code in languages), *_read_pieces(spm), "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(pieces)}))
    tokenizer = MarianTokenizer(str(spm), str(spm), str(folder / "vocab.json"), source_lang="eng", target_lang="hin")
    pad = pieces.index("<pad>")
    config = MarianConfig(
        vocab_size=len(pieces), **_SEQ2SEQ, pad_token_id=pad, eos_token_id=0, decoder_start_token_id=pad,
        forced_eos_token_id=None,
    )  # fmt: skip
    return _saved(MarianMTModel(config), tokenizer, folder)


def marian_many(folder: Path) -> Path:
    """Marian of several targets."""
    return marian(folder, languages=("hin", "por"))


_SEQ2SEQ: dict[str, Any] = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "dropout": 0.0, "init_std": 0.5, "max_position_embeddings": 64,
}  # fmt: skip


def _saved(model: Any, tokenizer: Any, folder: Path) -> Path:
    model.eval()
    talkative(model)
    model.generation_config.max_length = 20
    model.generation_config.num_beams = 1
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def sentencepiece(folder: Path) -> Path:
    """A SentencePiece model of the texts."""
    import sentencepiece as spm

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "texts.txt").write_text("\n".join(TEXTS * 20))
    spm.SentencePieceTrainer.train(
        input=str(folder / "texts.txt"), model_prefix=str(folder / "spm"), vocab_size=40, hard_vocab_limit=False,
        minloglevel=2, bos_id=-1, eos_id=-1, pad_id=-1, unk_id=0,
    )  # fmt: skip
    return folder / "spm.model"


def _read_pieces(path: Path) -> list[str]:
    import sentencepiece as spm

    processor = spm.SentencePieceProcessor(model_file=str(path))
    return [processor.id_to_piece(i) for i in range(1, processor.get_piece_size())]
