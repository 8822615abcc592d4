"""BLIP (the first): the image tower runs once an image, the text decoder once a prefix."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from capivara_cli.captioning.captioner import Asked, Captioner, PreparePixels, dtype_of
from capivara_cli.runtime import Runtime

if TYPE_CHECKING:
    from torch import Tensor


class Blip(Captioner):
    """BlipForConditionalGeneration with all its prefixes."""

    @staticmethod
    def parts(source: str, runtime: Runtime) -> tuple[Any, Any]:
        """Model and processor."""
        from transformers import BlipForConditionalGeneration, BlipProcessor

        model = BlipForConditionalGeneration.from_pretrained(source, dtype=dtype_of(runtime))
        return model.eval().to(runtime.device), BlipProcessor.from_pretrained(source)

    def __init__(self, model: Any, processor: Any, asked: Asked, runtime: Runtime) -> None:
        import torch

        super().__init__(model, asked, runtime)
        self.prepare = PreparePixels(processor.image_processor)
        self.tokenizer = processor.tokenizer
        config = model.config.text_config
        # The decoder counts its positions from the first token, padding or not: prefixes of one length go together.
        by_length: dict[int, list[int]] = defaultdict(list)
        prompts = [[config.bos_token_id, *ids[1:-1]] for ids in self.tokenizer(list(asked.prefixes)).input_ids]
        for number, prompt in enumerate(prompts):
            by_length[len(prompt)].append(number)
        self.check_length(config.max_position_embeddings, max(by_length))
        self.groups = [
            (numbers, torch.tensor([prompts[n] for n in numbers], device=runtime.device))
            for numbers in by_length.values()
        ]

    def captions(self, images: Tensor) -> list[list[str]]:
        """(N, 3, H, W) float32 -> N lists of K texts."""
        import torch

        result = [[""] * len(self.asked.prefixes) for _ in images]
        with torch.inference_mode():
            pixels = images.to(self.runtime.device, self.model.dtype, non_blocking=True)
            features = self.model.vision_model(pixel_values=pixels).last_hidden_state  # (N, patches, d)
            for numbers, prompts in self.groups:
                for place, text in enumerate(self._generate(features, prompts)):
                    image, number = divmod(place, len(numbers))
                    result[image][numbers[number]] = self._with_prefix(text, self.asked.prefixes[numbers[number]])
        return result

    def _generate(self, features: Tensor, prompts: Tensor) -> list[str]:
        """(N, patches, d) images and (k, P) prompts of one length -> N * k texts, image by image."""
        import torch

        expanded = features.repeat_interleave(len(prompts), 0)
        ids = prompts.repeat(len(features), 1)
        config = self.model.config.text_config
        tokens = self.model.text_decoder.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            encoder_hidden_states=expanded,
            encoder_attention_mask=torch.ones(expanded.shape[:2], dtype=torch.long, device=expanded.device),
            eos_token_id=config.sep_token_id,
            pad_token_id=config.pad_token_id,
            max_new_tokens=self.asked.max_new_tokens,
            num_beams=self.asked.num_beams,
            do_sample=False,
        )
        return self.tokenizer.batch_decode(tokens, skip_special_tokens=True)

    @staticmethod
    def _with_prefix(text: str, prefix: str) -> str:
        """The tokenizer lower-cases: give the prefix back as it was asked for."""
        return prefix + text[len(prefix) :] if text.lower().startswith(prefix.lower()) else text

    def bytes_per_image(self) -> int:
        """Keys and values of all prefixes' sequences, those of the image among them, and logits."""
        text, vision = self.model.config.text_config, self.model.config.vision_config
        size = self.model.dtype.itemsize
        patches = (vision.image_size // vision.patch_size) ** 2 + 1
        sequences = len(self.asked.prefixes) * self.asked.num_beams
        length = patches + 16 + self.asked.max_new_tokens
        cache = 2 * length * text.num_hidden_layers * text.hidden_size * size
        return int(sequences * (cache + patches * vision.hidden_size * size + 12 * text.vocab_size))
