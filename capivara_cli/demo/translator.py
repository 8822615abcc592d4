"""Train the demo's translator: a small M2M100 with NLLB's tokenizer, from English to Portuguese, Hindi and Xhosa.

It learns the aligned templates on scenes that are not held out.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capivara_cli.demo.language import TEMPLATES, caption
from capivara_cli.demo.learning import fit, learn_bpe, save, vocabulary_and_merges
from capivara_cli.demo.scenes import held_out_scenes, training_scenes

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import M2M100ForConditionalGeneration, NllbTokenizer

CODES = {"en": "eng_Latn", "pt": "por_Latn", "hi": "hin_Deva", "xh": "xho_Latn"}  # FLORES-200
TARGETS = ("pt", "hi", "xh")
VOCABULARY = 700
SCENES = 12_000
STEPS = 700
BATCH_SIZE = 128


def make_tokenizer(texts: Iterable[str], vocabulary: int = VOCABULARY) -> NllbTokenizer:
    """Make a tokenizer of NLLB's own class with pieces learned from these texts."""
    from transformers import NllbTokenizer

    pieces = vocabulary_and_merges(learn_bpe(texts, vocabulary, ["<s>", "<pad>", "</s>", "<unk>"]))
    languages: Any = list(CODES.values())
    return NllbTokenizer(**pieces, src_lang=CODES["en"], extra_special_tokens=languages, tgt_lang=None)


def make_model(tokenizer: NllbTokenizer, *, width: int = 128, layers: int = 2) -> M2M100ForConditionalGeneration:
    """Make an M2M100 with random weights from torch's seed."""
    from transformers import M2M100Config, M2M100ForConditionalGeneration

    config = M2M100Config(
        vocab_size=len(tokenizer),
        d_model=width,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=max(width // 32, 1),
        decoder_attention_heads=max(width // 32, 1),
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        encoder_layerdrop=0.0,
        decoder_layerdrop=0.0,
        dropout=0.0,
        attention_dropout=0.0,
        init_std=0.06,  # with the library's 0.02, a model of this size does not learn in this time
        max_position_embeddings=128,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.eos_token_id,
    )
    model = M2M100ForConditionalGeneration(config).eval()
    generation: Any = model.generation_config
    generation.max_length, generation.num_beams = 100, 1
    return model


def train_translator(folder: Path, *, seed: int = 0) -> Path:
    """Train from random weights, and write the model in half precision."""
    import torch

    torch.manual_seed(seed)
    rng = random.Random(seed)
    scenes = list(itertools.islice(training_scenes(rng), SCENES))
    texts = itertools.product(scenes[:3000], CODES, range(TEMPLATES))
    tokenizer = make_tokenizer(itertools.starmap(caption, texts))
    model: Any = make_model(tokenizer)

    def loss_of_step(step: int) -> Tensor:
        lang = TARGETS[step % len(TARGETS)]
        pairs = [(rng.choice(scenes), rng.randrange(TEMPLATES)) for _ in range(BATCH_SIZE)]
        tokenizer.src_lang, tokenizer.tgt_lang = CODES["en"], CODES[lang]
        batch = tokenizer(
            [caption(scene, "en", template) for scene, template in pairs],
            text_target=[caption(scene, lang, template) for scene, template in pairs],
            return_tensors="pt",
            padding=True,
        )
        labels = batch["labels"].masked_fill(batch["labels"] == tokenizer.pad_token_id, -100)
        return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss

    fit(model, loss_of_step, steps=STEPS, lr=3e-3, warmup=50, weight_decay=0.01)
    tokenizer.tgt_lang = None
    return save(folder, model, tokenizer, half=True)


def exactness(folder: Path, count: int = 300, seed: int = 1) -> dict[str, float]:
    """Return, per language, the share of sentences about held-out scenes that are translated exactly."""
    import torch
    from transformers import AutoTokenizer, M2M100ForConditionalGeneration

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = M2M100ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    scenes = held_out_scenes(count, random.Random(seed))
    shares = {}
    for lang in TARGETS:
        tokenizer.src_lang = CODES["en"]
        texts = [caption(scene, "en", index % TEMPLATES) for index, scene in enumerate(scenes)]
        expected = [caption(scene, lang, index % TEMPLATES) for index, scene in enumerate(scenes)]
        batch = tokenizer(texts, return_tensors="pt", padding=True)
        start = tokenizer.convert_tokens_to_ids(CODES[lang])
        tokens = model.generate(**batch, forced_bos_token_id=start, max_length=100)
        translations = tokenizer.batch_decode(tokens, skip_special_tokens=True)
        shares[lang] = sum(one == other for one, other in zip(expected, translations, strict=True)) / count
    return shares
