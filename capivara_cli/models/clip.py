"""A loaded OpenCLIP model: encode texts and images with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capivara_cli import artifacts, console
from capivara_cli.errors import CapivaraError
from capivara_cli.models.spec import ModelSpec
from capivara_cli.models.tokens import Tokens
from capivara_cli.runtime import Runtime

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

# Items per forward pass, by device type; halved when memory runs out.
IMAGE_BATCH = {"cpu": 64, "cuda": 512, "mps": 128}
TEXT_BATCH = {"cpu": 256, "cuda": 2048, "mps": 512}
TOKENISER_BATCH = 8192  # texts that are padded at once: 5 MB of int64 at a context of 77


@dataclass
class Clip:
    """A loaded model, with its tokenizer and preprocessing.

    Attributes:
        spec: the model's name, and the adapter that is on it.
        model: open_clip's module, in eval mode (Any, because torch gives a module's parts no types). It stays in eval
            mode in training too: without dropout, a step does not depend on how it is cut into micro-batches. The
            recipe's LoRA has no dropout either.
        tokenizer: open_clip's tokenizer: list of texts -> (N, context length) int64.
        preprocess: PIL image -> (3, H, W) float32, as open_clip evaluates.
        model_cfg, preprocess_cfg: the two parts of `open_clip_config.json`.
        runtime: the device and precision that the model runs in.
        verify_cache: compare cached embeddings with the content of their images before they are used.
        cut: the texts that were tokenised and are longer than the model's context.
    """

    spec: ModelSpec
    model: Any
    tokenizer: Any
    preprocess: Any
    model_cfg: dict[str, Any]
    preprocess_cfg: dict[str, Any]
    runtime: Runtime
    verify_cache: bool = False
    cut: set[str] = field(default_factory=set)

    @property
    def has_hf_text(self) -> bool:
        """Whether the text tower is a Hugging Face module. These mask padding, so it can be cut off."""
        return "hf_model_name" in self.model_cfg["text_cfg"]

    @property
    def pad_id(self) -> int | None:
        """Token that the text tower masks; None if it needs texts padded to the full context length."""
        return int(self.model.text.config.pad_token_id) if self.has_hf_text else None

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Encode images (B, 3, H, W) float32 -> (B, D) float32 on the device, normalised."""
        with self.runtime.autocast(), self.runtime.attention():
            features = self.model.encode_image(pixels.to(self.runtime.device, non_blocking=True))
        return _normalise(features)

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Encode tokens (B, L) int64 -> (B, D) float32 on the device, normalised."""
        with self.runtime.autocast(), self.runtime.attention():
            features = self.model.encode_text(tokens.to(self.runtime.device, non_blocking=True))
        return _normalise(features)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Encode N texts, at least one -> (N, D) float32 on the CPU, normalised. Each distinct text is encoded once."""
        import numpy as np
        import torch

        distinct = list(dict.fromkeys(texts))
        tokens = tokenise(self, distinct)
        # Longest first: a batch has little padding, and if memory runs out it does so at the start.
        order = tokens.by_length(np.arange(len(tokens)))
        run = torch.inference_mode()(lambda part: self.encode_tokens(tokens.batch(order[part])).cpu())
        batches = self.runtime.batches(run, len(order), self._batch_size(TEXT_BATCH))
        features = torch.cat([features for _, features in batches])  # (distinct, D), in `order`
        row = {distinct[i]: row for row, i in enumerate(order)}  # text -> its row in `features`
        return features[[row[text] for text in texts]]

    def text_size(self) -> tuple[int, int]:
        """Return layers and width of the text tower."""
        tower = getattr(self.model, "text", self.model)  # open_clip's oldest class, CLIP, is its own text tower
        config = getattr(tower, "config", None)  # Hugging Face's names, else open_clip's
        if config is not None:
            return int(config.num_hidden_layers), int(config.hidden_size)
        return int(tower.transformer.layers), int(tower.transformer.width)

    def image_size(self) -> tuple[int, int, int]:
        """Return tokens, layers and width of the image tower; those of ViT-B/32 if it is not an open_clip ViT."""
        tower = self.model.visual
        if not hasattr(tower, "grid_size") or not hasattr(tower, "transformer"):
            return 50, 12, 768
        # One token per patch, and the class token.
        return tower.grid_size[0] * tower.grid_size[1] + 1, tower.transformer.layers, tower.transformer.width

    def image_batch_size(self) -> int:
        """Return how many images to encode at once."""
        return self._batch_size(IMAGE_BATCH)

    def _batch_size(self, sizes: dict[str, int]) -> int:
        return sizes[self.runtime.device.split(":")[0]]  # cuda:1 -> cuda

    def image_tower_fingerprint(self) -> str:
        """Return a hash of all that changes an image's embedding: the tower's weights, preprocessing and precision."""
        weights = artifacts.fingerprint_tensors(self.model.visual.state_dict())
        return artifacts.fingerprint(weights, self.preprocess_cfg, self.runtime.precision)

    def weights_fingerprint(self) -> str:
        """Return a hash of all weights."""
        return artifacts.fingerprint_tensors(self.model.state_dict())

    def has_other_weights(self, expected: str | None) -> bool:
        """Return whether a run or an adapter was trained on other weights than this model's.

        Args:
            expected: fingerprint of what it was trained on; None, of older versions, is never another.
        """
        return expected is not None and expected != self.weights_fingerprint()

    def warn_of_other_weights(self, trained: Path) -> None:
        """Warn that a run or an adapter was trained on other weights than this model's."""
        console.warn(f"{trained} was trained on other weights than those of {self.spec}: results will be wrong")

    def signature(self) -> dict[str, object]:
        """Return the part of a result's signature that names the model."""
        return {
            "model": str(replace(self.spec, adapter=None)),
            "adapter": str(self.spec.adapter or "none"),
            "weights": self.weights_fingerprint()[:12],
        }


def _normalise(features: Tensor) -> Tensor:
    import torch

    # Autocast returns half precision, which has about three digits: normalise in float32.
    return torch.nn.functional.normalize(features.float(), dim=-1)


def tokenise(clip: Clip, texts: Sequence[str]) -> Tokens:
    """Tokenise with the model's tokenizer, and cut the padding off if the text tower masks it.

    Texts longer than the model's context are truncated, as open_clip does, and added to `clip.cut`. Raises
    CapivaraError when the tokenizer is that of a larger vocabulary than the text tower's.
    """
    import numpy as np

    vocabulary = getattr(clip.model, "text", clip.model).vocab_size  # 0 if unknown
    flat = [np.zeros(0, np.int32)]  # so that no texts give an empty table
    lengths = [np.zeros(1, np.int64)]  # the first offset
    for start in range(0, len(texts), TOKENISER_BATCH):
        batch = list(texts[start : start + TOKENISER_BATCH])
        padded = clip.tokenizer(batch).numpy()  # (n, context length)
        clip.cut.update(_cut_texts(clip, batch, padded))
        if vocabulary and padded.max() >= vocabulary:
            raise CapivaraError(
                f"{clip.spec}: its tokenizer makes token {padded.max()}, but its text tower knows only {vocabulary}"
            )
        # (n, context length). A tower without a padding mask was trained on padded texts: they keep the full length.
        is_text = np.ones_like(padded, dtype=bool) if clip.pad_id is None else padded != clip.pad_id
        flat.append(padded[is_text].astype(np.int32))
        lengths.append(is_text.sum(axis=1))
    return Tokens(np.concatenate(flat), np.cumsum(np.concatenate(lengths)), clip.pad_id or 0)


def _cut_texts(clip: Clip, texts: Sequence[str], padded: np.ndarray) -> Iterator[str]:
    """Yield the texts that are longer than the context.

    A tokenizer does not say that it truncated a text. It keeps the end token, so a text that was truncated has other
    tokens when there is room for one more; a text that fits exactly has the same.

    Args:
        padded: their tokens, (n, context length).
    """
    pad_id = getattr(getattr(clip.tokenizer, "tokenizer", None), "pad_token_id", None) or clip.pad_id or 0
    full = [i for i, last in enumerate(padded[:, -1]) if last != pad_id]
    if not full:
        return
    context = padded.shape[1]
    longer = clip.tokenizer([texts[i] for i in full], context_length=context + 1).numpy()  # (full, context + 1)
    for i, tokens in zip(full, longer, strict=True):
        if (tokens[:context] != padded[i]).any():
            yield texts[i]
