"""A loaded OpenCLIP model: encode texts and images with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from capivara_cli import artifacts
from capivara_cli.models.spec import ModelSpec
from capivara_cli.models.tokens import Tokens
from capivara_cli.runtime import Runtime

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

IMAGE_BATCH = {"cpu": 64, "cuda": 512, "mps": 128}
TEXT_BATCH = {"cpu": 256, "cuda": 2048, "mps": 512}
CHUNK = 8192  # texts that are padded at once: 5 MB


@dataclass
class Clip:
    """A loaded model with all that is needed to use it.

    Attributes:
        model: open_clip's own module (Any, because torch gives the parts of a module no types), in eval mode. It
            stays there in training too: without dropout a step does not depend on how it is cut into
            micro-batches, and LoRA's own dropout is 0 in the recipe.
        tokenizer: open_clip's tokenizer: list of texts -> (N, context length) int64.
        preprocess: PIL image -> (3, H, W) float32, as open_clip evaluates.
        runtime: where it is, with the precision settled.
    """

    spec: ModelSpec
    model: Any
    tokenizer: Any
    preprocess: Any
    model_cfg: dict[str, Any]
    preprocess_cfg: dict[str, Any]
    runtime: Runtime

    @property
    def has_hf_text(self) -> bool:
        """Whether the text tower is a Hugging Face module, which masks padding: such texts can be trimmed."""
        return "hf_model_name" in self.model_cfg["text_cfg"]

    @property
    def pad_id(self) -> int | None:
        """Token that the text tower masks; None when it wants its texts at full length."""
        return int(self.model.text.config.pad_token_id) if self.has_hf_text else None

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) float32 -> (B, D) float32 on the device, normalised."""
        with self.runtime.autocast(), self.runtime.attention():
            features = self.model.encode_image(pixels.to(self.runtime.device, non_blocking=True))
        return _normalise(features)

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """(B, L) int64 -> (B, D) float32 on the device, normalised."""
        with self.runtime.autocast(), self.runtime.attention():
            features = self.model.encode_text(tokens.to(self.runtime.device, non_blocking=True))
        return _normalise(features)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """N texts -> (N, D) float32 on the CPU, normalised. Each distinct text is encoded once."""
        distinct = list(dict.fromkeys(texts))
        features = self.encode_rows(tokenise(self, distinct))  # (distinct, D)
        row = {text: i for i, text in enumerate(distinct)}
        return features[[row[text] for text in texts]]

    def encode_rows(self, tokens: Tokens) -> Tensor:
        """N tokenised texts -> (N, D) float32 on the CPU, normalised; the longest together and first."""
        import numpy as np
        import torch

        order = tokens.by_length(np.arange(len(tokens)))
        run = torch.inference_mode()(lambda part: self.encode_tokens(tokens.batch(order[part])).cpu())
        batches = self.runtime.batches(run, len(order), self._size(TEXT_BATCH))
        features = torch.cat([features for _, features in batches])  # (N, D), in `order`
        result = torch.empty_like(features)
        result[torch.from_numpy(order)] = features
        return result

    def text_size(self) -> tuple[int, int]:
        """Layers and width of the text tower."""
        return text_tower_size(self.model)

    def image_size(self) -> tuple[int, int, int]:
        """Tokens, layers and width of the image tower; of a tower that is no open_clip ViT, a ViT-B/32's."""
        tower = self.model.visual
        if not hasattr(tower, "grid_size") or not hasattr(tower, "transformer"):
            return 50, 12, 768
        return tower.grid_size[0] * tower.grid_size[1] + 1, tower.transformer.layers, tower.transformer.width

    def image_batch_size(self) -> int:
        """Images to encode at once."""
        return self._size(IMAGE_BATCH)

    def _size(self, sizes: dict[str, int]) -> int:
        return sizes[self.runtime.device.split(":")[0]]

    def image_tower_fingerprint(self) -> str:
        """Changes with the image tower's weights, its preprocessing or the precision it runs in."""
        weights = artifacts.fingerprint_tensors(self.model.visual.state_dict())
        return artifacts.fingerprint(weights, self.preprocess_cfg, self.runtime.precision)

    def signature(self) -> dict[str, object]:
        """The part of a result's signature that says which model gave it."""
        return {
            "model": str(replace(self.spec, adapter=None)),
            "adapter": str(self.spec.adapter or "none"),
            "weights": artifacts.fingerprint_tensors(self.model.state_dict())[:12],
        }


def _normalise(features: Tensor) -> Tensor:
    import torch

    return torch.nn.functional.normalize(features if features.dtype == torch.float64 else features.float(), dim=-1)


def text_tower_size(model: Any) -> tuple[int, int]:
    """Layers and width of the text tower, as Hugging Face's and open_clip's own towers name them."""
    tower = getattr(model, "text", model)
    config = getattr(tower, "config", None)
    if config is not None:
        return int(config.num_hidden_layers), int(config.hidden_size)
    return int(tower.transformer.layers), int(tower.transformer.width)


def tokenise(clip: Clip, texts: Sequence[str]) -> Tokens:
    """Tokenise with the model's own tokenizer and cut the padding off, where the text tower masks padding.

    Texts longer than the model's context are truncated, as open_clip does.
    """
    import numpy as np

    flat: list[np.ndarray] = []
    lengths: list[np.ndarray] = []
    pad = clip.pad_id
    for start in range(0, len(texts), CHUNK):
        padded = clip.tokenizer(list(texts[start : start + CHUNK])).numpy()  # (n, context length)
        inside = np.ones_like(padded, dtype=bool) if pad is None else padded != pad
        flat.append(padded[inside].astype(np.int32))
        lengths.append(inside.sum(axis=1))
    offsets = np.concatenate([[0], np.cumsum(np.concatenate([[], *lengths]))]).astype(np.int64)
    return Tokens(np.concatenate([np.zeros(0, np.int32), *flat]), offsets, 0 if pad is None else pad)
