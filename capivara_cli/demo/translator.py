"""Train the demo's translator: a small M2M100 with NLLB's tokenizer, from English to Portuguese, Hindi and Xhosa.

It learns the aligned templates on scenes that are not held out.
"""

from __future__ import annotations

import itertools
import math
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capivara_cli import artifacts
from capivara_cli.demo.world import Scene, caption, held_out_scenes, training_scenes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from transformers import M2M100ForConditionalGeneration, NllbTokenizer

TEMPLATES = 4
CODES = {"en": "eng_Latn", "pt": "por_Latn", "hi": "hin_Deva", "xh": "xho_Latn"}  # FLORES-200
VOCABULARY = 700
SCENES = 12_000


def make_tokenizer(texts: Iterable[str], vocabulary: int = VOCABULARY) -> NllbTokenizer:
    """NLLB's own tokenizer class with pieces learned from these texts."""
    import json

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import NllbTokenizer

    learner = Tokenizer(models.BPE(unk_token="<unk>"))
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=special, show_progress=False)
    learner.train_from_iterator(texts, trainer)
    model = json.loads(learner.to_str())["model"]
    merges: Any = [tuple(merge) for merge in model["merges"]]
    languages: Any = list(CODES.values())
    return NllbTokenizer(
        vocab=model["vocab"], merges=merges, src_lang=CODES["en"], extra_special_tokens=languages, tgt_lang=None
    )


def make_model(tokenizer: NllbTokenizer, *, width: int = 128, layers: int = 2) -> M2M100ForConditionalGeneration:
    """M2M100 with random weights from torch's seed."""
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
        init_std=0.06,  # with the library's 0.02 so small a model does not learn in this time
        max_position_embeddings=128,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.eos_token_id,
    )
    model = M2M100ForConditionalGeneration(config).eval()
    settings: Any = model.generation_config
    settings.max_length, settings.num_beams = 100, 1
    return model


def save(model: M2M100ForConditionalGeneration, tokenizer: NllbTokenizer, folder: Path, *, half: bool = False) -> Path:
    """Write model and tokenizer to a folder, whole or not at all; in half precision if asked for."""
    with artifacts.writing(folder) as temporary:
        (model.half() if half else model).save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
    return folder


def train_translator(folder: Path, *, steps: int = 700, batch_size: int = 128, lr: float = 3e-3, seed: int = 0) -> Path:
    """Train from random weights, and write the model in half precision."""
    import torch

    torch.manual_seed(seed)
    rng = random.Random(seed)
    scenes = list(itertools.islice(training_scenes(rng), SCENES))
    tokenizer = make_tokenizer(
        _say(scene, lang, t) for scene in scenes[:3000] for lang in CODES for t in range(TEMPLATES)
    )
    model = make_model(tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
    started = time.monotonic()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min((step + 1) / 50, (1 + math.cos(math.pi * step / steps)) / 2 + 0.01)
        target = list(CODES)[1 + step % 3]
        chosen = [(rng.choice(scenes), rng.randrange(TEMPLATES)) for _ in range(batch_size)]
        tokenizer.src_lang, tokenizer.tgt_lang = CODES["en"], CODES[target]
        batch = tokenizer(
            [_say(scene, "en", t) for scene, t in chosen],
            text_target=[_say(scene, target, t) for scene, t in chosen],
            return_tensors="pt",
            padding=True,
        )
        labels = batch["labels"].masked_fill(batch["labels"] == tokenizer.pad_token_id, -100)
        loss = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 100 == 0:
            print(
                f"step {step + 1:5d}  loss {float(loss.detach()):.4f}  {time.monotonic() - started:.0f} s", flush=True
            )
    tokenizer.tgt_lang = None
    return save(model, tokenizer, folder, half=True)


def _say(scene: Scene, lang: str, template: int) -> str:
    return caption(scene, lang, template)


def exactness(folder: Path, count: int = 300, seed: int = 1) -> dict[str, float]:
    """Language -> share of the sentences of held-out scenes that are translated exactly."""
    import torch
    from transformers import AutoTokenizer, M2M100ForConditionalGeneration

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = M2M100ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    scenes = held_out_scenes(count, random.Random(seed))
    result = {}
    for lang in ("pt", "hi", "xh"):
        tokenizer.src_lang = CODES["en"]
        texts = [caption(scene, "en", number % TEMPLATES) for number, scene in enumerate(scenes)]
        wanted = [caption(scene, lang, number % TEMPLATES) for number, scene in enumerate(scenes)]
        batch = tokenizer(texts, return_tensors="pt", padding=True)
        start = tokenizer.convert_tokens_to_ids(CODES[lang])
        tokens = model.generate(**batch, forced_bos_token_id=start, max_length=100)
        got = tokenizer.batch_decode(tokens, skip_special_tokens=True)
        result[lang] = sum(one == other for one, other in zip(wanted, got, strict=True)) / count
    return result
