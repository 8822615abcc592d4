"""Train the demo's captioner: a small BLIP-2 that describes the world's scenes in English.

Its image tower starts from the demo CLIP's. It sees scenes of one thing before scenes of two. It learns the four
templates as well as the recipe's ten prefixes, so that a scene follows whatever a caption begins with.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capivara_cli import artifacts
from capivara_cli.demo import BASE
from capivara_cli.demo.language import TEMPLATES, caption
from capivara_cli.demo.learning import fit
from capivara_cli.demo.scenes import Scene, held_out_scenes, training_scenes
from capivara_cli.demo.small_blip2 import make_small_blip2, make_tokenizer, save_captioner, start_from_clip
from capivara_cli.demo.small_clip import MEAN, STD
from capivara_cli.demo.world import draw

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import GPT2Tokenizer

IMAGES = 16_000
STEPS = 2500
BATCH_SIZE = 192
VOCABULARY = 400
PREFIXED = 0.25  # share of the texts that begin with one of the recipe's prefixes
SINGLE_FIRST = 0.15  # share of the steps, the first ones, that see only scenes of one thing


def train_captioner(folder: Path, prefixes: Sequence[str], *, seed: int = 0) -> Path:
    """Train from the CLIP's image tower and random weights, and write the model in half precision."""
    import torch

    torch.manual_seed(seed)
    rng = random.Random(seed)
    scenes = list(itertools.islice(training_scenes(rng), IMAGES))
    scenes += list(itertools.islice((scene for scene in training_scenes(rng) if scene.relation is None), IMAGES // 8))
    pixels = _pixels([draw(scene, rng) for scene in scenes])
    texts = [text for scene in scenes[:4000] for text in _all_texts(scene, prefixes)]
    tokenizer = make_tokenizer(texts, VOCABULARY)
    model = make_small_blip2(tokenizer)
    start_from_clip(model, artifacts.load_tensors(BASE / "open_clip_model.safetensors"))
    single = [index for index, scene in enumerate(scenes) if scene.relation is None]

    def loss_of_step(step: int) -> Tensor:
        indices = rng.choices(single if step < SINGLE_FIRST * STEPS else range(len(scenes)), k=BATCH_SIZE)
        texts = [_random_text(scenes[index], prefixes, rng) for index in indices]
        return _loss(model, tokenizer, _normalised(pixels[indices]), texts)

    fit(model, loss_of_step, steps=STEPS, lr=2e-3, warmup=100, weight_decay=0.05, slow=model.vision_model)
    return save_captioner(folder, model, tokenizer, half=True)


def _all_texts(scene: Scene, prefixes: Sequence[str]) -> list[str]:
    """Return the texts for a scene: the four templates, then template 0 after each prefix."""
    texts = [caption(scene, "en", template) for template in range(TEMPLATES)]
    return texts + [f"{prefix} {texts[0]}" for prefix in prefixes]


def _random_text(scene: Scene, prefixes: Sequence[str], rng: random.Random) -> str:
    if rng.random() < PREFIXED:
        return f"{rng.choice(prefixes)} {caption(scene, 'en')}"
    return caption(scene, "en", rng.randrange(TEMPLATES))


def _pixels(pictures: Sequence[Any]) -> Tensor:
    """Images -> (N, 3, H, W) uint8."""
    import numpy as np
    import torch

    return torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2).contiguous()


def _normalised(pixels: Tensor) -> Tensor:
    """(N, 3, H, W) uint8 -> float32, as CLIP's preprocessing does."""
    import torch

    return (pixels.float() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def _loss(model: Any, tokenizer: GPT2Tokenizer, pixels: Tensor, texts: list[str]) -> Tensor:
    """Return the mean negative log-likelihood of the tokens between the two `</s>` of each text and of the last one."""
    import torch

    batch = tokenizer(
        [text + tokenizer.eos_token for text in texts], return_tensors="pt", padding=True, padding_side="right"
    )
    features = model.get_image_features(pixels, return_dict=True).pooler_output  # (B, queries, D)
    embeds = torch.cat([features, model.get_input_embeddings()(batch.input_ids)], dim=1)  # (B, queries + L, D)
    mask = torch.cat([torch.ones(features.shape[:2], dtype=torch.long), batch.attention_mask], dim=1)
    logits = model.language_model(inputs_embeds=embeds, attention_mask=mask).logits[:, features.shape[1] : -1]
    labels = batch.input_ids[:, 1:].masked_fill(batch.attention_mask[:, 1:] == 0, -100)  # (B, L - 1)
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


def exactness(folder: Path, count: int = 500, seed: int = 1) -> tuple[float, float]:
    """Measure a captioner on held-out scenes, after the first words of each template.

    Returns:
        The share of captions that are exact, and the share of words that are right and in their position.
    """
    import torch
    from transformers import AutoTokenizer, Blip2ForConditionalGeneration

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = Blip2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    rng = random.Random(seed)
    scenes = held_out_scenes(count, rng)
    pixels = _normalised(_pixels([draw(scene, rng) for scene in scenes]))
    exact = right = total = 0
    image = model.config.image_token_index
    for template, start in ((1, "a picture of"), (2, "there is"), (3, "the image shows")):
        ids = torch.tensor([[image] * model.config.num_query_tokens + tokenizer(start).input_ids] * count)
        out = model.generate(pixels, input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=50)
        for scene, text in zip(scenes, tokenizer.batch_decode(out, skip_special_tokens=True), strict=True):
            expected, words = caption(scene, "en", template).split(), text.split()
            exact += expected == words
            right += sum(one == other for one, other in zip(expected, words, strict=False))
            total += max(len(expected), len(words))
    return exact / (3 * count), right / total
