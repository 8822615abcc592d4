"""Inputs of the recipe's size: its model with random weights, photographs, captions in made-up words."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
from PIL import Image


def make_images(folder: Path, count: int) -> None:
    """Smooth noise with grain: a JPEG of some 40 kB, as a photograph of that size is."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((500, 375))
        grain = rng.normal(0, 9, (375, 500, 1))
        pixels = np.clip(np.asarray(coarse, np.float32) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg", quality=88)


def make_data(folder: Path, count: int, captions: int = 5) -> Path:
    """One record per image, with N captions in `hi` and one in `en`, of 9 to 21 tokens."""
    rng = random.Random(0)
    words = [a + b + c for a in "kgtdpb" for b in "aeiou" for c in ("ra", "ni", "lo", "ma", "tu", "se")]
    lines = []
    for number in range(count):
        texts = [" ".join(rng.choices(words, k=rng.randint(7, 19))) for _ in range(captions + 1)]
        own = [{"text": text, "lang": "en" if place == captions else "hi"} for place, text in enumerate(texts)]
        lines.append(json.dumps({"image": f"images/{number}.jpg", "captions": own}))
    (folder / "train.jsonl").write_text("\n".join(lines))
    return folder / "train.jsonl"


def make_model(folder: Path, data: Path) -> Path:
    """The recipe's model with random weights and a tokenizer for the made-up words."""
    import open_clip
    from transformers import XLMRobertaConfig

    from capivara_cli import artifacts
    from capivara_cli.data import image_records
    from capivara_cli.demo.small_clip import make_tokenizer
    from capivara_cli.models import checkpoint, model_config
    from capivara_cli.models.spec import ModelSpec
    from capivara_cli.runtime import Runtime

    texts = [caption["text"] for record in image_records.read_all([data]) for caption in record.captions]
    model_cfg = open_clip.get_model_config("xlm-roberta-base-ViT-B-32")
    name = str(folder / "empty")
    model_cfg["text_cfg"] |= {"hf_model_name": name, "hf_tokenizer_name": name}
    preprocess = {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28], "interpolation": "bicubic"}
    make_tokenizer(texts, 400).save_pretrained(name)
    tower = XLMRobertaConfig(vocab_size=250_002, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5)
    tower.to_json_file(Path(name) / "config.json")
    config = {"model_cfg": model_cfg, "preprocess_cfg": {**preprocess, "resize_mode": "shortest"}}
    artifacts.write_json(Path(name) / model_config.CONFIG, config)
    clip = checkpoint.load(ModelSpec(f"local-dir:{name}"), Runtime.start("cpu", "fp32"), weights=False)
    checkpoint.save(clip, folder / "model")
    return folder / "model"
