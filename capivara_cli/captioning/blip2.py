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

# Keys of a generation config with which `Decoder` gives what transformers' `generate` gives. A model whose config has
# another key (no_repeat_ngram_size, for example) is run with `generate`.
SUPPORTED_BY_DECODER = {
    # `Decoder` uses these.
    "early_stopping",
    "eos_token_id",
    "length_penalty",
    # The options of `caption` replace these.
    "max_length",
    "max_new_tokens",
    "num_beams",
    # These do not change the tokens.
    "_from_model_config",
    "bos_token_id",
    "decoder_start_token_id",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "return_dict_in_generate",
    "transformers_version",
    "use_cache",
}


class Blip2(Captioner):
    """Blip2ForConditionalGeneration with all prefixes."""

    def __init__(
        self, model: Any, processor: Any, options: CaptionOptions, prefixes: tuple[str, ...], runtime: Runtime
    ) -> None:
        import torch

        super().__init__(model, processor, options, prefixes, runtime)
        self.is_encoder_decoder = model.language_model.config.is_encoder_decoder
        # T5 has relative positions: padding between image and prefix would change its output, so pad on the right. A
        # decoder-only model must continue the last token, so pad on the left; `Decoder` leaves padding out
        # of the positions.
        side = "right" if self.is_encoder_decoder else "left"
        prompts = self.tokenizer(list(prefixes), return_tensors="pt", padding=True, padding_side=side)
        self.prompt_ids = prompts.input_ids.to(runtime.device)  # (K, P)
        self.prompt_mask = prompts.attention_mask.to(runtime.device)  # (K, P)
        max_positions = getattr(model.config.text_config, "max_position_embeddings", None)  # T5 has no limit
        self.check_length(max_positions, model.config.num_query_tokens + self.prompt_ids.shape[1])
        generation = model.language_model.generation_config
        self.decoder: Decoder | None = None  # None: `_generate` is used
        if not self.is_encoder_decoder and set(generation.to_diff_dict()) <= SUPPORTED_BY_DECODER:
            eos = generation.eos_token_id if generation.eos_token_id is not None else []
            self.decoder = Decoder(
                model.language_model,
                torch.tensor(eos if isinstance(eos, list) else [eos], device=runtime.device),
                options.max_new_tokens,
                options.num_beams,
                1.0 if generation.length_penalty is None else float(generation.length_penalty),
                generation.early_stopping or False,
            )

    def captions(self, images: Tensor) -> list[list[str]]:
        """Describe (N, 3, H, W) float32 images: return N lists of K texts."""
        import torch

        with torch.inference_mode():
            pixels = images.to(self.runtime.device, self.model.dtype, non_blocking=True)
            features = self.model.get_image_features(pixels, return_dict=True).pooler_output  # (N, Q, D)
            prefixes = self.model.get_input_embeddings()(self.prompt_ids)  # (K, P, D) token embeddings, not normalised
            if self.decoder is not None:
                new_tokens = self.decoder(features, prefixes, self.prompt_mask)
            else:
                new_tokens = self._generate(features, prefixes)
        count = len(self.prefixes)
        texts = [self._text(row % count, tokens) for row, tokens in enumerate(new_tokens)]
        return [texts[start : start + count] for start in range(0, len(texts), count)]

    def _generate(self, features: Tensor, prefixes: Tensor) -> list[list[int]]:
        """Generate with transformers: for T5, and for generation configs that `Decoder` does not support.

        Args:
            features: (N, Q, D) embeddings of the image tokens.
            prefixes: (K, P, D) embeddings of the prefixes' tokens.

        Returns:
            the new tokens of N * K sequences, image by image.
        """
        import torch

        images = len(features)
        # (N * K, Q + P, D): image tokens, then prefix.
        inputs = torch.cat([features.repeat_interleave(len(prefixes), 0), prefixes.repeat(images, 1, 1)], dim=1)
        image_mask = self.prompt_mask.new_ones(len(inputs), features.shape[1])  # (N * K, Q)
        image_ids = image_mask * self.model.config.image_token_index
        ids = torch.cat([image_ids, self.prompt_ids.repeat(images, 1)], dim=1)  # (N * K, Q + P)
        # Repetition penalties count the tokens of the prompt too, so a decoder-only model gets `input_ids` beside the
        # embeddings. Its output then starts with the prompt.
        output_has_prompt = not self.is_encoder_decoder
        tokens = self.model.language_model.generate(
            inputs_embeds=inputs,
            attention_mask=torch.cat([image_mask, self.prompt_mask.repeat(images, 1)], dim=1),
            **({"input_ids": ids} if output_has_prompt else {}),
            max_new_tokens=self.options.max_new_tokens,
            num_beams=self.options.num_beams,
            do_sample=False,
        )
        return tokens[:, ids.shape[1] if output_has_prompt else 0 :].tolist()

    def _text(self, prefix: int, tokens: list[int]) -> str:
        if self.is_encoder_decoder:  # T5's output is a separate text, without a space before it
            return f"{self.prefixes[prefix]} {self.tokenizer.decode(tokens, skip_special_tokens=True)}"
        # Decode prefix and new tokens together: whether a space is between them is in the tokens, not in the texts.
        return self.tokenizer.decode(self.prompt_ids[prefix].tolist() + tokens, skip_special_tokens=True)

    def bytes_per_image(self) -> int:
        """Return the bytes of the keys and values of all sequences, their logits, and the image tower's activations."""
        text, vision = self.model.config.text_config, self.model.config.vision_config
        size = self.model.dtype.itemsize
        length = self.model.config.num_query_tokens + self.prompt_ids.shape[1] + self.options.max_new_tokens
        sequences = len(self.prefixes) * self.options.num_beams
        cache = 2 * length * text.num_hidden_layers * text.hidden_size * size
        # Dropping finished rows and reordering beams copies one layer at a time. That fits into the memory which
        # `captioner.SHARE_OF_MEMORY` leaves free. 12 bytes per logit: the model's, their copy in float32, and what is
        # computed from it. The tower needs some 20 numbers per patch and unit of width, an estimate: a layer's input,
        # queries, keys and values, and the two tables of its MLP, which are four times as wide.
        tower = 20 * (vision.image_size // vision.patch_size) ** 2 * vision.hidden_size * size
        return int(sequences * (cache + 12 * text.vocab_size) + tower)
