"""Train the demo's captioner: a small BLIP-2 that describes the world's scenes in English.

Its image tower starts from the demo CLIP's; it sees scenes of one thing before those of two; and it learns the four
templates as well as the recipe's ten prefixes, so that whatever a caption begins with, the scene follows.
"""

from __future__ import annotations

import itertools
import math
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capivara_cli import artifacts
from capivara_cli.demo import BASE, small_blip2
from capivara_cli.demo.small_clip import MEAN, STD
from capivara_cli.demo.world import Scene, caption, draw, held_out_scenes, training_scenes

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import GPT2Tokenizer

TEMPLATES = 4
PREFIXED = 0.25  # share of the texts that begin with one of the recipe's prefixes
ALONE = 0.15  # share of the steps that see scenes of one thing only
TOWER = 0.2  # of the learning rate, for the image tower: it knows the world already
VOCABULARY = 400


def texts_of(scene: Scene, prefixes: Sequence[str]) -> list[str]:
    """What may be said of a scene: the four templates, then template 0 after each prefix."""
    plain = [caption(scene, "en", template) for template in range(TEMPLATES)]
    return plain + [f"{prefix} {plain[0]}" for prefix in prefixes]


def train_captioner(
    folder: Path,
    prefixes: Sequence[str],
    *,
    clip: Path = BASE,
    images: int = 16_000,
    steps: int = 2500,
    batch_size: int = 192,
    lr: float = 2e-3,
    seed: int = 0,
) -> Path:
    """Train from the CLIP's image tower and random weights, and write the model in half precision."""
    import torch

    torch.manual_seed(seed)
    rng = random.Random(seed)
    scenes = list(itertools.islice(training_scenes(rng), images))
    scenes += list(itertools.islice((s for s in training_scenes(rng) if s.relation is None), images // 8))
    pixels = _pixels([draw(scene, rng) for scene in scenes])
    tokenizer = small_blip2.make_tokenizer(
        [text for scene in scenes[:4000] for text in texts_of(scene, prefixes)], VOCABULARY
    )
    model = small_blip2.make_small_blip2(tokenizer)
    small_blip2.start_from_clip(model, artifacts.load_tensors(clip / "open_clip_model.safetensors"))
    tower = list(model.vision_model.parameters())
    rest = [parameter for name, parameter in model.named_parameters() if not name.startswith("vision_model.")]
    groups = [{"params": rest, "scale": 1.0}, {"params": tower, "scale": TOWER}]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), weight_decay=0.05)
    single = [i for i, scene in enumerate(scenes) if scene.relation is None]
    started = time.monotonic()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = group["scale"] * lr * min((step + 1) / 100, (1 + math.cos(math.pi * step / steps)) / 2 + 0.01)
        chosen = rng.choices(single if step < ALONE * steps else range(len(scenes)), k=batch_size)
        texts = [_say(scenes[i], prefixes, rng) for i in chosen]
        loss = _loss(model, tokenizer, _normal(pixels[chosen]), texts)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 100 == 0:
            print(f"step {step + 1:5d}  loss {float(loss):.4f}  {time.monotonic() - started:.0f} s", flush=True)
    return small_blip2.save(model, tokenizer, folder, half=True)


def _say(scene: Scene, prefixes: Sequence[str], rng: random.Random) -> str:
    if rng.random() < PREFIXED:
        return f"{rng.choice(prefixes)} {caption(scene, 'en', 0)}"
    return caption(scene, "en", rng.randrange(TEMPLATES))


def _pixels(pictures: Sequence[Any]) -> Tensor:
    """Images -> (N, 3, H, W) uint8."""
    import numpy as np
    import torch

    return torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2).contiguous()


def _normal(pixels: Tensor) -> Tensor:
    import torch

    return (pixels.float() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def _loss(model: Any, tokenizer: GPT2Tokenizer, pixels: Tensor, texts: list[str]) -> Tensor:
    """Mean negative log likelihood of the texts' tokens after `</s>` and of the `</s>` that ends them."""
    import torch

    batch = tokenizer(
        [text + tokenizer.eos_token for text in texts], return_tensors="pt", padding=True, padding_side="right"
    )
    features = model.get_image_features(pixels, return_dict=True).pooler_output  # (B, queries, d)
    embeds = torch.cat([features, model.get_input_embeddings()(batch.input_ids)], dim=1)
    mask = torch.cat([torch.ones(features.shape[:2], dtype=torch.long), batch.attention_mask], dim=1)
    logits = model.language_model(inputs_embeds=embeds, attention_mask=mask).logits[:, features.shape[1] : -1]
    labels = batch.input_ids[:, 1:].masked_fill(batch.attention_mask[:, 1:] == 0, -100)
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


def exactness(folder: Path, count: int = 500, seed: int = 1) -> tuple[float, float]:
    """Share of held-out scenes that are described exactly, and of words in their place, after each template's start."""
    import torch
    from transformers import AutoTokenizer, Blip2ForConditionalGeneration

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = Blip2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    rng = random.Random(seed)
    scenes = held_out_scenes(count, rng)
    pixels = _normal(_pixels([draw(scene, rng) for scene in scenes]))
    exact = right = total = 0
    image = model.config.image_token_index
    for template, start in ((1, "a picture of"), (2, "there is"), (3, "the image shows")):
        ids = torch.tensor([[image] * model.config.num_query_tokens + tokenizer(start).input_ids] * count)
        out = model.generate(pixels, input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=50)
        for scene, text in zip(scenes, tokenizer.batch_decode(out, skip_special_tokens=True), strict=True):
            wanted, got = caption(scene, "en", template).split(), text.split()
            exact += wanted == got
            right += sum(one == other for one, other in zip(wanted, got, strict=False))
            total += max(len(wanted), len(got))
    return exact / (3 * count), right / total
