"""A small BLIP-2, untrained: the library's own classes, in a folder that `capivara caption --model FOLDER` reads.

For the demo and for tests. Its image tower can start from that of the demo's CLIP.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capivara_cli.demo.learning import learn_bpe, save, vocabulary_and_merges
from capivara_cli.demo.small_clip import IMAGE_SIZE, MEAN, PATCH_SIZE, STD

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import Blip2ForConditionalGeneration, GPT2Tokenizer

IMAGE_TOKEN = "<image>"  # noqa: S105


def make_tokenizer(texts: Iterable[str], vocabulary: int) -> GPT2Tokenizer:
    """Make a tokenizer like OPT's: byte-level BPE, learned from these texts, and `</s>` before each text."""
    from tokenizers import AddedToken
    from transformers import GPT2Tokenizer

    pieces = vocabulary_and_merges(learn_bpe(texts, vocabulary, ["</s>", "<pad>"], byte_level=True))
    tokenizer = GPT2Tokenizer(
        **pieces,
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
    width: int = 128,
    layers: int = 3,
    queries: int = 8,
    qformer_layers: int = 2,
    text_layers: int = 3,
) -> Blip2ForConditionalGeneration:
    """Make a BLIP-2 with OPT (ViT, Q-Former, language model) and random weights from torch's seed.

    Args:
        tokenizer: of the language model.
        width: channels of all three parts.
        layers: of the image tower.
        queries: number of image tokens that the language model gets.
        qformer_layers, text_layers: of the other parts.
    """
    import torch
    from transformers import Blip2Config, Blip2ForConditionalGeneration

    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": max(width // 32, 1)}
    config = Blip2Config(
        vision_config={
            **sizes,
            "num_hidden_layers": layers,
            "image_size": IMAGE_SIZE,
            "patch_size": PATCH_SIZE,
            "layer_norm_eps": 1e-5,
            "initializer_range": 0.02,  # the library's default of 1e-10 does not learn
        },
        qformer_config={
            **sizes,
            "vocab_size": 4,
            "encoder_hidden_size": width,
            "num_hidden_layers": qformer_layers,
            "cross_attention_frequency": 1,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        text_config=_opt(tokenizer, width, text_layers),
        num_query_tokens=queries,
        image_token_index=tokenizer.vocab[IMAGE_TOKEN],
    )
    model = Blip2ForConditionalGeneration(config).eval()
    torch.nn.init.normal_(model.query_tokens, std=0.5)  # zeros in the library: all queries would stay alike
    return model


def _opt(tokenizer: GPT2Tokenizer, width: int, layers: int) -> dict[str, Any]:
    """Return the configuration of the language model."""
    return {
        "model_type": "opt",
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "word_embed_proj_dim": width,
        "ffn_dim": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": max(width // 32, 1),
        "max_position_embeddings": 128,
        "dropout": 0.0,
        "init_std": 0.06,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def start_from_clip(model: Blip2ForConditionalGeneration, clip_state: dict[str, Tensor]) -> None:
    """Copy an open_clip ViT's weights into the image tower of the same size.

    open_clip normalises the tokens before the first layer (`ln_pre`) and BLIP-2 does not. The scales of the tokens
    differ little, so their mean goes into the embeddings, and training does the rest.
    """
    import torch

    state: dict[str, Any] = {
        name.removeprefix("visual."): value.float() for name, value in clip_state.items() if name.startswith("visual.")
    }
    gain, shift = state["ln_pre.weight"], state["ln_pre.bias"]
    position = state["positional_embedding"]
    patches = state["conv1.weight"]
    # Measure the tokens' standard deviation on patches of one colour: the world's images are made of them, mostly.
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
        for index, layer in enumerate(tower.encoder.layers):
            source = f"transformer.resblocks.{index}"
            for module, name in (
                (layer.layer_norm1, "ln_1"),
                (layer.layer_norm2, "ln_2"),
                (layer.mlp.fc1, "mlp.c_fc"),
                (layer.mlp.fc2, "mlp.c_proj"),
                (layer.self_attn.projection, "attn.out_proj"),
            ):
                module.weight.copy_(state[f"{source}.{name}.weight"])
                module.bias.copy_(state[f"{source}.{name}.bias"])
            layer.self_attn.qkv.weight.copy_(state[f"{source}.attn.in_proj_weight"])
            layer.self_attn.qkv.bias.copy_(state[f"{source}.attn.in_proj_bias"])
        tower.post_layernorm.weight.copy_(state["ln_post.weight"])
        tower.post_layernorm.bias.copy_(state["ln_post.bias"])


def save_captioner(
    folder: Path, model: Blip2ForConditionalGeneration, tokenizer: GPT2Tokenizer, *, half: bool = False
) -> Path:
    """Write model and processor to a folder, whole or not at all; `half` for half precision."""
    from transformers import Blip2Processor, BlipImageProcessor

    vision: Any = model.config.vision_config
    size = {"height": vision.image_size, "width": vision.image_size}
    images = BlipImageProcessor(size=size, image_mean=MEAN, image_std=STD)
    processor = Blip2Processor(images, tokenizer, num_query_tokens=model.config.num_query_tokens)
    return save(folder, model, processor, half=half)
