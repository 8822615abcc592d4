"""A small BLIP-2, untrained: the library's own classes, in a folder that `capivara caption --model FOLDER` reads.

For the demo and for tests. Its image tower can start from that of the demo's CLIP.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capivara_cli import artifacts
from capivara_cli.demo.small_clip import MEAN, STD

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import Blip2ForConditionalGeneration, GPT2Tokenizer

IMAGE_TOKEN = "<image>"  # noqa: S105


def make_tokenizer(texts: Iterable[str], vocabulary: int) -> GPT2Tokenizer:
    """OPT's kind of tokenizer, byte-level BPE with `</s>` before each text, learned from these texts."""
    import json

    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
    from transformers import GPT2Tokenizer

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    model = json.loads(learner.to_str())["model"]
    merges: Any = [tuple(merge) for merge in model["merges"]]
    tokenizer = GPT2Tokenizer(
        vocab=model["vocab"],
        merges=merges,
        bos_token="</s>",
        eos_token="</s>",
        unk_token="</s>",
        pad_token="<pad>",
        add_bos_token=True,
        padding_side="left",
    )
    tokenizer.add_tokens([AddedToken(IMAGE_TOKEN, normalized=False, special=True)], special_tokens=True)
    return tokenizer


def make_small_blip2(
    tokenizer: GPT2Tokenizer,
    *,
    image_size: int = 64,
    patch_size: int = 16,
    width: int = 128,
    layers: int = 3,
    queries: int = 8,
    qformer_layers: int = 2,
    text_layers: int = 3,
    text_width: int | None = None,
) -> Blip2ForConditionalGeneration:
    """BLIP-2 with OPT: ViT, Q-Former, language model; random weights from torch's seed.

    Args:
        image_size, patch_size: pixels.
        width: channels of the image tower and the Q-Former, and of the language model unless it has its own.
        queries: image tokens that the language model sees.
    """
    import torch
    from transformers import Blip2Config, Blip2ForConditionalGeneration

    text_width = text_width or width
    config = Blip2Config(
        vision_config={
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": max(width // 32, 1),
            "image_size": image_size,
            "patch_size": patch_size,
            "layer_norm_eps": 1e-5,
            "initializer_range": 0.02,  # the library's default of 1e-10 does not learn
        },
        qformer_config={
            "vocab_size": 4,
            "hidden_size": width,
            "encoder_hidden_size": width,
            "intermediate_size": 4 * width,
            "num_hidden_layers": qformer_layers,
            "num_attention_heads": max(width // 32, 1),
            "cross_attention_frequency": 1,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        text_config={
            "model_type": "opt",
            "vocab_size": len(tokenizer),
            "hidden_size": text_width,
            "word_embed_proj_dim": text_width,
            "ffn_dim": 4 * text_width,
            "num_hidden_layers": text_layers,
            "num_attention_heads": max(text_width // 32, 1),
            "max_position_embeddings": 128,
            "dropout": 0.0,
            "init_std": 0.06,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        num_query_tokens=queries,
        image_token_index=tokenizer.vocab[IMAGE_TOKEN],
    )
    model = Blip2ForConditionalGeneration(config).eval()
    torch.nn.init.normal_(model.query_tokens, std=0.5)  # zeros in the library: all queries would stay alike
    return model


def start_from_clip(model: Blip2ForConditionalGeneration, clip_state: dict[str, Tensor]) -> None:
    """Put an open_clip ViT's weights into the image tower of the same size.

    open_clip normalises the tokens before the first layer and BLIP-2 does not. Tokens differ little in their
    scale, so the mean scale goes into the embeddings, and training does the rest.
    """
    import torch

    state: dict[str, Any] = {
        name.removeprefix("visual."): value.float() for name, value in clip_state.items() if name.startswith("visual.")
    }
    gain, shift = state["ln_pre.weight"], state["ln_pre.bias"]
    position = state["positional_embedding"]
    patches = state["conv1.weight"]
    # What a token's standard deviation is on images like the world's: patches of a constant colour, mostly.
    colours = torch.empty(64, 3, 1, 1).uniform_(-1, 1).expand(64, 3, *patches.shape[2:])
    tokens = (colours.flatten(1) @ patches.flatten(1).T)[:, None] + position[1:]
    scale = gain / tokens.std(-1).mean()
    tower = model.vision_model
    with torch.no_grad():
        embeddings = tower.embeddings
        embeddings.patch_embedding.weight.copy_(patches * scale[:, None, None, None])
        embeddings.patch_embedding.bias.zero_()
        embeddings.position_embedding.copy_(position[None] * scale + shift)
        embeddings.class_embedding.copy_(state["class_embedding"] * scale)
        for number, layer in enumerate(tower.encoder.layers):
            block = {
                name.removeprefix(f"transformer.resblocks.{number}."): value
                for name, value in state.items()
                if name.startswith(f"transformer.resblocks.{number}.")
            }
            for own, theirs in (
                (layer.layer_norm1, "ln_1"),
                (layer.layer_norm2, "ln_2"),
                (layer.mlp.fc1, "mlp.c_fc"),
                (layer.mlp.fc2, "mlp.c_proj"),
                (layer.self_attn.projection, "attn.out_proj"),
            ):
                own.weight.copy_(block[f"{theirs}.weight"])
                own.bias.copy_(block[f"{theirs}.bias"])
            layer.self_attn.qkv.weight.copy_(block["attn.in_proj_weight"])
            layer.self_attn.qkv.bias.copy_(block["attn.in_proj_bias"])
        tower.post_layernorm.weight.copy_(state["ln_post.weight"])
        tower.post_layernorm.bias.copy_(state["ln_post.bias"])


def save(model: Blip2ForConditionalGeneration, tokenizer: GPT2Tokenizer, folder: Path, *, half: bool = False) -> Path:
    """Write model and processor to a folder, whole or not at all; in half precision if asked for."""
    from transformers import Blip2Processor, BlipImageProcessor

    vision: Any = model.config.vision_config
    size = vision.image_size
    processor = Blip2Processor(
        BlipImageProcessor(size={"height": size, "width": size}, image_mean=MEAN, image_std=STD),
        tokenizer,
        num_query_tokens=model.config.num_query_tokens,
    )
    with artifacts.writing(folder) as temporary:
        (model.half() if half else model).save_pretrained(temporary)
        processor.save_pretrained(temporary)
    return folder
