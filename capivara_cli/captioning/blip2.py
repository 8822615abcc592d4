"""BLIP-2: image tower, Q-Former and projection run once an image, whatever the number of prefixes.

Its Q-Former does not see the prefix. With a decoder-only language model (OPT) the image tokens' keys and values are
computed once as well; with T5, whose encoder reads image and prefix together, the language model runs for each prefix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capivara_cli.captioning.captioner import Asked, Captioner, PreparePixels, dtype_of
from capivara_cli.captioning.decoding import Decoder
from capivara_cli.runtime import Runtime

if TYPE_CHECKING:
    from torch import Tensor

# What a language model's own generation config may say without asking for more than `Decoder` does.
PLAIN = {
    *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "transformers_version", "use_cache"),
    *("max_length", "length_penalty", "early_stopping", "num_beams", "_from_model_config", "return_dict_in_generate"),
    *("output_attentions", "output_hidden_states", "num_return_sequences", "max_new_tokens"),
}


class Blip2(Captioner):
    """Blip2ForConditionalGeneration with all its prefixes."""

    @staticmethod
    def parts(source: str, runtime: Runtime) -> tuple[Any, Any]:
        """Model and processor."""
        from transformers import Blip2ForConditionalGeneration, Blip2Processor

        model = Blip2ForConditionalGeneration.from_pretrained(source, dtype=dtype_of(runtime))
        return model.eval().to(runtime.device), Blip2Processor.from_pretrained(source)

    def __init__(self, model: Any, processor: Any, asked: Asked, runtime: Runtime) -> None:
        import torch

        super().__init__(model, asked, runtime)
        self.prepare = PreparePixels(processor.image_processor)
        self.tokenizer = processor.tokenizer
        # T5 tells places by their distance: nothing may come between image and prefix.
        side = "right" if model.language_model.config.is_encoder_decoder else "left"
        prompts = self.tokenizer(list(asked.prefixes), return_tensors="pt", padding=True, padding_side=side)
        self.prompt_ids = prompts.input_ids.to(runtime.device)  # (K, P)
        self.prompt_mask = prompts.attention_mask.to(runtime.device)
        positions = getattr(model.config.text_config, "max_position_embeddings", None)  # T5 has none
        self.check_length(positions, model.config.num_query_tokens + self.prompt_ids.shape[1])
        settings = model.language_model.generation_config
        ends = settings.eos_token_id if settings.eos_token_id is not None else []
        self.decoder = Decoder(
            model.language_model,
            torch.tensor(ends if isinstance(ends, list) else [ends], device=runtime.device),
            asked.max_new_tokens,
            asked.num_beams,
            *_beam_settings(settings),
        )
        special = set(settings.to_diff_dict()) - PLAIN
        self.shares_cache = not model.language_model.config.is_encoder_decoder and not special

    def captions(self, images: Tensor) -> list[list[str]]:
        """(N, 3, H, W) float32 -> N lists of K texts."""
        import torch

        with torch.inference_mode():
            pixels = images.to(self.runtime.device, self.model.dtype, non_blocking=True)
            features = self.model.get_image_features(pixels, return_dict=True).pooler_output  # (N, Q, d)
            embeds = self.model.get_input_embeddings()(self.prompt_ids)  # (K, P, d)
            if self.shares_cache:
                new = self.decoder(features, embeds, self.prompt_mask)
            else:
                new = self._generate(features, embeds)
        count = len(self.asked.prefixes)
        texts = [self._text(i % count, tokens) for i, tokens in enumerate(new)]
        return [texts[i : i + count] for i in range(0, len(texts), count)]

    def _generate(self, features: Tensor, embeds: Tensor) -> list[list[int]]:
        """The library's own loop, for language models that want more than `Decoder` does."""
        import torch

        images, prefixes = len(features), len(embeds)
        inputs = torch.cat([features.repeat_interleave(prefixes, 0), embeds.repeat(images, 1, 1)], dim=1)
        seen = self.prompt_mask.new_ones(len(inputs), features.shape[1])
        ids = torch.cat([seen * self.model.config.image_token_index, self.prompt_ids.repeat(images, 1)], dim=1)
        echoed = not self.model.language_model.config.is_encoder_decoder
        tokens = self.model.language_model.generate(
            inputs_embeds=inputs,
            attention_mask=torch.cat([seen, self.prompt_mask.repeat(images, 1)], dim=1),
            **({"input_ids": ids} if echoed else {}),  # what must not be repeated is counted in the prompt too
            max_new_tokens=self.asked.max_new_tokens,
            num_beams=self.asked.num_beams,
            do_sample=False,
        )
        return tokens[:, ids.shape[1] if echoed else 0 :].tolist()

    def _text(self, prefix: int, tokens: list[int]) -> str:
        if self.model.language_model.config.is_encoder_decoder:
            return f"{self.asked.prefixes[prefix]} {self.tokenizer.decode(tokens, skip_special_tokens=True)}"
        before = self.prompt_ids[prefix].tolist()  # decoded together: whether a space is between is in the tokens
        return self.tokenizer.decode(before + tokens, skip_special_tokens=True)

    def bytes_per_image(self) -> int:
        """Keys and values of all prefixes' sequences, their logits, and the image tower's activations."""
        text, vision = self.model.config.text_config, self.model.config.vision_config
        size = self.model.dtype.itemsize
        length = self.model.config.num_query_tokens + self.prompt_ids.shape[1] + self.asked.max_new_tokens
        sequences = len(self.asked.prefixes) * self.asked.num_beams
        cache = 2 * length * text.num_hidden_layers * text.hidden_size * size
        # Compaction and beams copy a layer at a time, which the free share of the memory is for.
        tower = 20 * (vision.image_size // vision.patch_size) ** 2 * vision.hidden_size * size
        return int(sequences * (cache + 12 * text.vocab_size) + tower)


def _beam_settings(settings: Any) -> tuple[float, bool | str]:
    penalty, early = settings.length_penalty, settings.early_stopping
    return 1.0 if penalty is None else float(penalty), early or False
