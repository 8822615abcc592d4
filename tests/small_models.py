"""Tiny captioners and translators of the libraries' own classes, with random weights, in folders of their own form."""

from __future__ import annotations

import json
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
from capivara_cli.demo.learning import save

TEXTS = [f"a photo of a {size} {colour} thing" for size in ("small", "large") for colour in ("red", "blue", "green")]
SMALL: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION: dict[str, Any] = SMALL | {"image_size": 32, "patch_size": 16, "initializer_range": 0.5}
T5: dict[str, Any] = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "dropout_rate": 0.0}
SEQ2SEQ: dict[str, Any] = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "dropout": 0.0, "init_std": 0.5, "max_position_embeddings": 64,
}  # fmt: skip
TEMPLATE = (
    "{% for message in messages %}USER: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %} ASSISTANT:"
)


def scale_weights(module: torch.nn.Module, factor: float = 3.0) -> None:
    """Make random weights say different things for different inputs: at their usual scale they repeat one token."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:
                parameter.mul_(factor)


def _scale_blip2(model: Blip2ForConditionalGeneration) -> None:
    """Scale all parts, so that the captions depend on the image too."""
    scale_weights(model.vision_model, 20.0)
    scale_weights(model.qformer, 10.0)
    scale_weights(model.language_projection, 50.0)
    scale_weights(model.language_model)


def blip2(folder: Path, *, seed: int = 0, ends: int = 50, texts: Iterable[str] = TEXTS) -> Path:
    """BLIP-2 with OPT. `ends` tokens end a sequence: with a single one, a random model would hardly ever end."""
    torch.manual_seed(seed)
    tokenizer = small_blip2.make_tokenizer(texts, 290)
    model = small_blip2.make_small_blip2(tokenizer, width=32, layers=2, queries=4, qformer_layers=1, text_layers=2)
    _scale_blip2(model)
    eos = [tokenizer.eos_token_id, *torch.randperm(len(tokenizer))[: ends - 1].tolist()]
    generation: Any = model.language_model.generation_config
    text: Any = model.config.text_config
    generation.eos_token_id = text.eos_token_id = eos
    return small_blip2.save_captioner(folder, model, tokenizer)


def blip2_t5(folder: Path) -> Path:
    """BLIP-2 with T5."""
    torch.manual_seed(0)
    tokenizer = small_blip2.make_tokenizer(TEXTS, 290)
    config = small_blip2.make_small_blip2(tokenizer, width=32, layers=1, queries=4, qformer_layers=1).config.to_dict()
    special = {"pad_token_id": 1, "eos_token_id": 0, "decoder_start_token_id": 1}
    config["text_config"] = {"model_type": "t5", "vocab_size": len(tokenizer)} | T5 | special
    config["use_decoder_only_language_model"] = False
    model = Blip2ForConditionalGeneration(Blip2Config(**config)).eval()
    torch.nn.init.normal_(model.query_tokens)
    _scale_blip2(model)
    return small_blip2.save_captioner(folder, model, tokenizer)


def blip(folder: Path) -> Path:
    """BLIP with its BERT."""
    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]
    words += sorted({word for text in TEXTS for word in text.split()}) + [f"word{index}" for index in range(40)]
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(words)}, bos_token="[DEC]")
    text = SMALL | {"vocab_size": len(words), "encoder_hidden_size": 32, "projection_dim": 32, "initializer_range": 1.0}
    special = {"bos_token_id": 5, "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0, "is_decoder": True}
    config = BlipConfig(text_config=text | special, vision_config=VISION, projection_dim=32)
    model = BlipForConditionalGeneration(config).eval()
    return save(folder, model, BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer))


def llava(folder: Path, *, template: str | None = TEMPLATE) -> Path:
    """LLaVA, a vision-language chat model."""
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
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        chat_template=template,
        num_additional_image_tokens=1,
    )
    return save(folder, LlavaForConditionalGeneration(config).eval(), processor)


def m2m100(folder: Path) -> Path:
    """M2M100 with its own tokenizer, which has the pieces of a SentencePiece model."""
    torch.manual_seed(0)
    sentences, pieces = _sentencepiece(folder)
    vocabulary = _write_vocabulary(folder, ["<s>", "<pad>", "</s>", "<unk>", *pieces])
    tokenizer = M2M100Tokenizer(vocab_file=vocabulary, spm_file=sentences, src_lang="en", language_codes="m2m100")
    size = max(tokenizer.lang_token_to_id.values()) + 1
    config = M2M100Config(vocab_size=size, **SEQ2SEQ, pad_token_id=1, bos_token_id=0, eos_token_id=2)
    config.decoder_start_token_id = 2
    return _save_translator(M2M100ForConditionalGeneration(config), tokenizer, folder)


def madlad(folder: Path) -> Path:
    """T5 with a tokenizer that knows `<2hi>`."""
    torch.manual_seed(0)
    words = sorted({f"\u2581{word}" for text in TEXTS for word in text.split()})
    letters = sorted({letter for word in words for letter in word} | set("bcfijkmqvxz"))
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -10.0), ("<2hi>", -1.0), ("<2pt>", -1.0)]
    pieces = [(piece, -float(index % 7) - 1) for index, piece in enumerate([*words, *letters])]  # with some scores
    tokenizer = T5Tokenizer(vocab=special + pieces, extra_ids=0)
    ids: dict[str, Any] = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    config = T5Config(vocab_size=len(tokenizer), **T5, **ids)
    return _save_translator(T5ForConditionalGeneration(config), tokenizer, folder)


def marian(folder: Path, *, languages: tuple[str, ...] = ()) -> Path:
    """Marian for one pair of languages, or for several targets."""
    torch.manual_seed(0)
    sentences, pieces = _sentencepiece(folder)
    pieces = ["</s>", "<unk>", *(f">>{code}<<" for code in languages), *pieces, "<pad>"]
    vocabulary = _write_vocabulary(folder, pieces)
    tokenizer = MarianTokenizer(sentences, sentences, vocabulary, source_lang="eng", target_lang="hin")
    pad = pieces.index("<pad>")
    config = MarianConfig(
        vocab_size=len(pieces), **SEQ2SEQ, pad_token_id=pad, eos_token_id=0, decoder_start_token_id=pad,
        forced_eos_token_id=None,
    )  # fmt: skip
    return _save_translator(MarianMTModel(config), tokenizer, folder)


def marian_many(folder: Path) -> Path:
    """Marian for several targets."""
    return marian(folder, languages=("hin", "por"))


def _save_translator(model: Any, tokenizer: Any, folder: Path) -> Path:
    model.eval()
    scale_weights(model)
    model.generation_config.max_length = 20
    model.generation_config.num_beams = 1
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _write_vocabulary(folder: Path, pieces: list[str]) -> str:
    path = folder / "vocab.json"
    path.write_text(json.dumps({piece: index for index, piece in enumerate(pieces)}))
    return str(path)


def _sentencepiece(folder: Path) -> tuple[str, list[str]]:
    """Train a SentencePiece model on the texts; return its file and its pieces."""
    import sentencepiece as spm

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "texts.txt").write_text("\n".join(TEXTS * 20))
    spm.SentencePieceTrainer.train(
        input=str(folder / "texts.txt"), model_prefix=str(folder / "spm"), vocab_size=40, hard_vocab_limit=False,
        minloglevel=2, bos_id=-1, eos_id=-1, pad_id=-1, unk_id=0,
    )  # fmt: skip
    path = str(folder / "spm.model")
    processor = spm.SentencePieceProcessor(model_file=path)
    return path, [processor.id_to_piece(index) for index in range(1, processor.get_piece_size())]
