"""The original BLIP (not BLIP-2): the image tower runs once per image, the text decoder once per prefix."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from capivara_cli.captioning.captioner import Captioner
from capivara_cli.captioning.options import CaptionOptions
from capivara_cli.runtime import Runtime

if TYPE_CHECKING:
    from torch import Tensor


class Blip(Captioner):
    """BlipForConditionalGeneration with all prefixes."""

    def __init__(
        self, model: Any, processor: Any, options: CaptionOptions, prefixes: tuple[str, ...], runtime: Runtime
    ) -> None:
        import torch

        super().__init__(model, processor, options, prefixes, runtime)
        config = model.config.text_config
        # The tokenizer adds [CLS] and [SEP]. The decoder needs its own start token instead of [CLS], and no [SEP],
        # because [SEP] would end the text.
        prompts = [[config.bos_token_id, *ids[1:-1]] for ids in self.tokenizer(list(prefixes)).input_ids]
        # BLIP's positions count padding too, so padded prefixes would give other captions: only prefixes of the same
        # length share a batch.
        by_length: dict[int, list[int]] = defaultdict(list)
        for prefix_index, prompt in enumerate(prompts):
            by_length[len(prompt)].append(prefix_index)
        self.check_length(config.max_position_embeddings, max(by_length))
        # Per length P: indices of the k prefixes, and their prompts (k, P).
        self.prompts_by_length = [
            (indices, torch.tensor([prompts[i] for i in indices], device=runtime.device))
            for indices in by_length.values()
        ]

    def captions(self, images: Tensor) -> list[list[str]]:
        """Describe (N, 3, H, W) float32 images: return N lists of K texts."""
        import torch

        texts = [[""] * len(self.prefixes) for _ in images]
        with torch.inference_mode():
            pixels = images.to(self.runtime.device, self.model.dtype, non_blocking=True)
            features = self.model.vision_model(pixel_values=pixels).last_hidden_state  # (N, patches, D)
            for indices, prompts in self.prompts_by_length:
                for row, text in enumerate(self._generate(features, prompts)):
                    image, i = divmod(row, len(indices))
                    texts[image][indices[i]] = _with_prefix(text, self.prefixes[indices[i]])
        return texts

    def _generate(self, features: Tensor, prompts: Tensor) -> list[str]:
        """Continue k prompts of one length for N images: return N * k texts, image by image.

        Args:
            features: (N, patches, D).
            prompts: (k, P) int64.
        """
        import torch

        expanded = features.repeat_interleave(len(prompts), 0)  # (N * k, patches, D)
        ids = prompts.repeat(len(features), 1)  # (N * k, P)
        config = self.model.config.text_config
        tokens = self.model.text_decoder.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            encoder_hidden_states=expanded,
            encoder_attention_mask=torch.ones(expanded.shape[:2], dtype=torch.long, device=expanded.device),
            eos_token_id=config.sep_token_id,
            pad_token_id=config.pad_token_id,
            max_new_tokens=self.options.max_new_tokens,
            num_beams=self.options.num_beams,
            do_sample=False,
        )
        return self.tokenizer.batch_decode(tokens, skip_special_tokens=True)

    def bytes_per_image(self) -> int:
        """Return the bytes of keys and values (of text and image tokens), expanded image features and logits."""
        text, vision = self.model.config.text_config, self.model.config.vision_config
        size = self.model.dtype.itemsize
        patches = (vision.image_size // vision.patch_size) ** 2 + 1  # and the class token
        sequences = len(self.prefixes) * self.options.num_beams
        longest = max(prompts.shape[1] for _, prompts in self.prompts_by_length)
        # The decoder reads the image by cross-attention, whose keys and values are cached too.
        length = patches + longest + self.options.max_new_tokens
        cache = 2 * length * text.num_hidden_layers * text.hidden_size * size
        # 12 bytes per logit: the model's, their copy in float32, and what is computed from it.
        return int(sequences * (cache + patches * vision.hidden_size * size + 12 * text.vocab_size))


def _with_prefix(text: str, prefix: str) -> str:
    """Restore the prefix as it was written: the tokenizer makes all letters lower case."""
    return prefix + text[len(prefix) :] if text.lower().startswith(prefix.lower()) else text
