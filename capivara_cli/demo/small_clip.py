"""Small CLIP models of the recipe's own architecture, untrained: an OpenCLIP folder with its tokenizer.

For the demo, for tests, and for training from scratch on a small data set:

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
from capivara_cli.data import image_records
from capivara_cli.demo.learning import learn_bpe

if TYPE_CHECKING:
    from transformers import XLMRobertaConfig, XLMRobertaTokenizer

IMAGE_SIZE, PATCH_SIZE = 64, 16  # pixels
MEAN = STD = [0.5, 0.5, 0.5]
CONTEXT = 40  # tokens in a text, at most
TEXT_LAYERS = 2


def make_tokenizer(texts: Iterable[str], vocabulary: int) -> XLMRobertaTokenizer:
    """Make a tokenizer of XLM-R's own class with pieces learned from these texts.

    The pieces come from BPE and are scored by their frequency. The Unigram trainer would split a small corpus into
    little more than letters.
    """
    from transformers import XLMRobertaTokenizer

    texts = list(texts)
    bpe = learn_bpe(texts, vocabulary, ["<unk>"])
    counts = Counter(token for encoding in bpe.encode_batch(texts) for token in encoding.tokens)
    pieces = sorted(bpe.get_vocab().keys() - {"<unk>"}, key=lambda piece: (-counts[piece], piece))
    scored = [(piece, math.log((counts[piece] + 0.5) / counts.total())) for piece in pieces]
    special = [(piece, 0.0) for piece in ("<s>", "<pad>", "</s>", "<unk>")]
    return XLMRobertaTokenizer(vocab=[*special, *scored, ("<mask>", 0.0)])


def make_small_clip(
    folder: Path,
    texts: Iterable[str],
    *,
    vocabulary: int = 2000,
    patch_size: int = PATCH_SIZE,
    width: int = 128,
    layers: int = 3,
    embed_dim: int = 128,
) -> Path:
    """Write an OpenCLIP folder without weights: ViT image tower, XLM-R text tower, tokenizer for these texts.

    `capivara train --from-scratch --model local-dir:FOLDER` gives it weights.

    Args:
        folder: folder to write.
        texts: texts to learn the tokenizer from.
        vocabulary: size of the tokenizer's vocabulary.
        patch_size: pixels.
        width: channels of both towers.
        layers: layers of the image tower.
        embed_dim: size of the shared embedding.
    """
    tokenizer = make_tokenizer(texts, vocabulary)
    text_cfg = {
        "hf_model_name": folder.name,  # no path, which would mean nothing on another machine
        "hf_tokenizer_name": folder.name,
        "hf_model_pretrained": False,
        "hf_pooler_type": "mean_pooler",
        "hf_proj_type": "linear",
        "context_length": CONTEXT,
    }
    vision_cfg = {
        "image_size": IMAGE_SIZE,
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
        _text_tower(tokenizer, width).to_json_file(temporary / "config.json")
        artifacts.write_json(
            temporary / "open_clip_config.json", {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg}
        )
    return folder


def _text_tower(tokenizer: XLMRobertaTokenizer, width: int) -> XLMRobertaConfig:
    from transformers import XLMRobertaConfig

    return XLMRobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=TEXT_LAYERS,
        num_attention_heads=max(width // 32, 1),
        intermediate_size=4 * width,
        max_position_embeddings=CONTEXT + 2,  # XLM-R counts positions from 2
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def main() -> None:
    """Run `python -m capivara_cli.demo.small_clip`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", nargs="+", help="JSONL files whose captions the tokenizer learns from")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--vocabulary", type=int, default=3000, help="size of the tokenizer's vocabulary")
    parser.add_argument("--width", type=int, default=128, help="channels of both towers")
    parser.add_argument("--layers", type=int, default=3, help="layers of the image tower")
    parser.add_argument("--patch-size", type=int, default=16, help="side of a patch in pixels; an image has 64")
    arguments = parser.parse_args()
    texts = [caption["text"] for record in image_records.read_all(arguments.data) for caption in record.captions]
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
