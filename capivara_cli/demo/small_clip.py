"""Small CLIP models of the recipe's own architecture, untrained: an OpenCLIP folder with its tokenizer.

For the demo, for tests, and for whoever wants to train from scratch on a small set:

    python -m capivara_cli.demo.small_clip train.jsonl -o models/small
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from capivara_cli import artifacts
from capivara_cli.data import records

if TYPE_CHECKING:
    from transformers import XLMRobertaTokenizer

MEAN = STD = [0.5, 0.5, 0.5]


def make_tokenizer(texts: Iterable[str], vocabulary: int) -> XLMRobertaTokenizer:
    """XLM-R's own tokenizer class with pieces learned from these texts.

    The pieces come from BPE and are scored by their frequency: the Unigram trainer splits a small corpus
    nearly into letters.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import XLMRobertaTokenizer

    texts = list(texts)
    learner = Tokenizer(models.BPE(unk_token="<unk>"))
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=["<unk>"], show_progress=False)
    learner.train_from_iterator(texts, trainer)
    counts = Counter(token for encoding in learner.encode_batch(texts) for token in encoding.tokens)
    total = sum(counts.values())
    pieces = [piece for piece in learner.get_vocab() if piece != "<unk>"]
    pieces.sort(key=lambda piece: (-counts[piece], piece))
    scored = [(piece, math.log((counts[piece] + 0.5) / total)) for piece in pieces]
    special = [(piece, 0.0) for piece in ("<s>", "<pad>", "</s>", "<unk>")]
    return XLMRobertaTokenizer(vocab=[*special, *scored, ("<mask>", 0.0)])


def make_small_clip(
    folder: Path,
    texts: Iterable[str],
    *,
    vocabulary: int = 2000,
    image_size: int = 64,
    patch_size: int = 16,
    width: int = 128,
    layers: int = 3,
    text_layers: int = 2,
    embed_dim: int = 128,
    context: int = 40,
) -> Path:
    """Write an OpenCLIP folder without weights: ViT image tower, XLM-R text tower, tokenizer for these texts.

    `capivara train --from-scratch --model local-dir:FOLDER` gives it weights.

    Args:
        image_size, patch_size: pixels.
        width: channels of both towers.
        context: tokens a text may have.
    """
    from transformers import XLMRobertaConfig

    tokenizer = make_tokenizer(texts, vocabulary)
    text_tower = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=text_layers,
        num_attention_heads=max(width // 32, 1),
        intermediate_size=4 * width,
        max_position_embeddings=context + 2,  # XLM-R counts positions from 2
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    name = str(folder.absolute())
    text_cfg = {
        "hf_model_name": name,
        "hf_tokenizer_name": name,
        "hf_model_pretrained": False,
        "hf_pooler_type": "mean_pooler",
        "hf_proj_type": "linear",
        "context_length": context,
    }
    vision_cfg = {
        "image_size": image_size,
        "patch_size": patch_size,
        "width": width,
        "layers": layers,
        "head_width": 32,
    }
    model_cfg = {"embed_dim": embed_dim, "vision_cfg": vision_cfg, "text_cfg": text_cfg}
    preprocess_cfg = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    with artifacts.writing(folder) as temporary:
        temporary.mkdir()
        tokenizer.save_pretrained(temporary)
        text_tower.to_json_file(temporary / "config.json")
        artifacts.write_json(
            temporary / "open_clip_config.json", {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg}
        )
    return folder


def main() -> None:
    """The command above."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", nargs="+", help="JSONL files whose captions the tokenizer learns from")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--vocabulary", type=int, default=3000, help="size of the tokenizer's vocabulary")
    parser.add_argument("--width", type=int, default=128, help="channels of both towers")
    parser.add_argument("--layers", type=int, default=3, help="layers of the image tower")
    parser.add_argument("--patch-size", type=int, default=16, help="pixels a patch, of 64")
    arguments = parser.parse_args()
    texts = [caption["text"] for record in records.read_all(arguments.data) for caption in record.captions]
    folder = make_small_clip(
        arguments.output,
        texts,
        vocabulary=arguments.vocabulary,
        width=arguments.width,
        layers=arguments.layers,
        patch_size=arguments.patch_size,
    )
    print(f"wrote {folder}")


if __name__ == "__main__":
    main()
