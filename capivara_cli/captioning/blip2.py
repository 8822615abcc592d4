"""BLIP-2: image tower, Q-Former and projection run once per image, whatever the number of prefixes.

The Q-Former does not see the prefix. With a decoder-only language model (OPT) the keys and values of the image tokens
are computed once as well. With T5, whose encoder reads image and prefix together, the language model runs per prefix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capivara_cli.captioning.captioner import Captioner
from capivara_cli.captioning.decoding import Decoder
from capivara_cli.captioning.options import CaptionOptions
from capivara_cli.runtime import Runtime

if TYPE_CHECKING:
    from torch import Tensor

# Keys of a generation config that `Decoder` supports, or that do not matter to it. A config with any other key
# (no_repeat_ngram_size, for example) is left to the library's own `generate`.
SUPPORTED_BY_DECODER = {
    *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "transformers_version", "use_cache"),
    *("max_length", "length_penalty", "early_stopping", "num_beams", "_from_model_config", "return_dict_in_generate"),
    *("output_attentions", "output_hidden_states", "num_return_sequences", "max_new_tokens"),
}


class Blip2(Captioner):
    """Blip2ForConditionalGeneration with all prefixes."""

    def __init__(
        self, model: Any, processor: Any, options: CaptionOptions, prefixes: tuple[str, ...], runtime: Runtime
    ) -> None:
        import torch

        super().__init__(model, processor, options, prefixes, runtime)
        self.is_encoder_decoder = model.language_model.config.is_encoder_decoder
        # T5 has relative positions: padding between image and prefix would change its output.
        side = "right" if self.is_encoder_decoder else "left"
        prompts = self.tokenizer(list(prefixes), return_tensors="pt", padding=True, padding_side=side)
        self.prompt_ids = prompts.input_ids.to(runtime.device)  # (K, P)
        self.prompt_mask = prompts.attention_mask.to(runtime.device)  # (K, P)
        positions = getattr(model.config.text_config, "max_position_embeddings", None)  # T5 has no limit
        self.check_length(positions, model.config.num_query_tokens + self.prompt_ids.shape[1])
        generation = model.language_model.generation_config
        eos = generation.eos_token_id if generation.eos_token_id is not None else []
        self.decoder = Decoder(
            model.language_model,
            torch.tensor(eos if isinstance(eos, list) else [eos], device=runtime.device),
            options.max_new_tokens,
            options.num_beams,
            1.0 if generation.length_penalty is None else float(generation.length_penalty),
            generation.early_stopping or False,
        )
        unsupported = set(generation.to_diff_dict()) - SUPPORTED_BY_DECODER
        self.shares_cache = not self.is_encoder_decoder and not unsupported

    def captions(self, images: Tensor) -> list[list[str]]:
        """Describe (N, 3, H, W) float32 images: return N lists of K texts."""
        import torch

        with torch.inference_mode():
            pixels = images.to(self.runtime.device, self.model.dtype, non_blocking=True)
            features = self.model.get_image_features(pixels, return_dict=True).pooler_output  # (N, Q, D)
            embeds = self.model.get_input_embeddings()(self.prompt_ids)  # (K, P, D)
            if self.shares_cache:
                new_tokens = self.decoder(features, embeds, self.prompt_mask)
            else:
                new_tokens = self._generate(features, embeds)
        count = len(self.prefixes)
        texts = [self._text(row % count, tokens) for row, tokens in enumerate(new_tokens)]
        return [texts[start : start + count] for start in range(0, len(texts), count)]

    def _generate(self, features: Tensor, embeds: Tensor) -> list[list[int]]:
        """Run the library's own loop, for language models whose settings `Decoder` does not support."""
        import torch

        images, prefixes = len(features), len(embeds)
        inputs = torch.cat([features.repeat_interleave(prefixes, 0), embeds.repeat(images, 1, 1)], dim=1)
        image_mask = self.prompt_mask.new_ones(len(inputs), features.shape[1])  # (N * K, Q)
        image_ids = image_mask * self.model.config.image_token_index
        ids = torch.cat([image_ids, self.prompt_ids.repeat(images, 1)], dim=1)  # (N * K, Q + P)
        echoed = not self.is_encoder_decoder  # the output then starts with the prompt
        tokens = self.model.language_model.generate(
            inputs_embeds=inputs,
            attention_mask=torch.cat([image_mask, self.prompt_mask.repeat(images, 1)], dim=1),
            **({"input_ids": ids} if echoed else {}),  # repetition penalties count the tokens of the prompt too
            max_new_tokens=self.options.max_new_tokens,
            num_beams=self.options.num_beams,
            do_sample=False,
        )
        return tokens[:, ids.shape[1] if echoed else 0 :].tolist()

    def _text(self, prefix: int, tokens: list[int]) -> str:
        if self.is_encoder_decoder:
            return f"{self.prefixes[prefix]} {self.tokenizer.decode(tokens, skip_special_tokens=True)}"
        # Prefix and new tokens are decoded together: only the tokens know whether a space is between them.
        return self.tokenizer.decode(self.prompt_ids[prefix].tolist() + tokens, skip_special_tokens=True)

    def bytes_per_image(self) -> int:
        """Count the keys and values of all sequences, their logits, and the image tower's activations."""
        text, vision = self.model.config.text_config, self.model.config.vision_config
        size = self.model.dtype.itemsize
        length = self.model.config.num_query_tokens + self.prompt_ids.shape[1] + self.options.max_new_tokens
        sequences = len(self.prefixes) * self.options.num_beams
        cache = 2 * length * text.num_hidden_layers * text.hidden_size * size
        # Dropping finished rows and reordering beams copies one layer at a time: the free share of the memory is
        # enough for that. 12 bytes per logit: the model's, their copy in float32, and what is computed from it.
        tower = 20 * (vision.image_size // vision.patch_size) ** 2 * vision.hidden_size * size
        return int(sequences * (cache + 12 * text.vocab_size) + tower)
