"""Vision-language chat models: LLaVA, Qwen-VL, SmolVLM and whatever else transformers loads in the same way.

A prefix becomes an instruction. The model may not follow it: a caption need not begin with its prefix, but the record
still names it. Each instruction is sent in a separate conversation, together with the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from capivara_cli.captioning.captioner import Captioner
from capivara_cli.captioning.options import CaptionOptions
from capivara_cli.data.images import ImageRef, load
from capivara_cli.errors import CapivaraError
from capivara_cli.runtime import Runtime

if TYPE_CHECKING:
    from PIL.Image import Image

LONGEST_SIDE = 1024  # pixels; larger images become more tokens, and a caption needs no more detail
PROMPT_TOKENS = 1200  # an estimate for one prompt (image and instruction), used only to choose the batch size


def instruction(prefix: str, lang: str) -> str:
    """Return the instruction for one caption."""
    language = "" if lang == "en" else f" Write in the language with the code {lang}."
    if not prefix:
        return f"Describe the image in one short sentence.{language}"
    return f'Describe the image in one short sentence that begins with "{prefix}".{language}'


class Chat(Captioner):
    """AutoModelForImageTextToText with a chat template."""

    def __init__(
        self, model: Any, processor: Any, options: CaptionOptions, prefixes: tuple[str, ...], runtime: Runtime
    ) -> None:
        super().__init__(model, processor, options, prefixes, runtime)
        if getattr(processor, "chat_template", None) is None:
            name = model.config.model_type
            raise CapivaraError(f"this {name} has no chat template", "use the instruction-tuned variant of the model")
        self.prepare = load_small
        self.tokenizer.padding_side = "left"  # `generate` appends after the last position
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.prompts = []
        for prefix in prefixes:
            content = [{"type": "image"}, {"type": "text", "text": instruction(prefix, options.lang)}]
            messages = [{"role": "user", "content": content}]
            prompt = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
            self.prompts.append(prompt)

    def captions(self, images: Sequence[Image]) -> list[list[str]]:
        """Describe N images: return N lists of K texts."""
        import torch

        count = len(self.prompts)
        batch = self.processor(
            text=self.prompts * len(images),  # N * K prompts, image by image
            images=[[image] for image in images for _ in range(count)],
            padding=True,
            return_tensors="pt",
        ).to(self.runtime.device)
        batch = {
            key: value.to(self.model.dtype) if torch.is_tensor(value) and value.is_floating_point() else value
            for key, value in batch.items()
        }
        with torch.inference_mode():
            tokens = self.model.generate(
                **batch,
                max_new_tokens=self.options.max_new_tokens,
                num_beams=self.options.num_beams,
                do_sample=False,
                pad_token_id=self.tokenizer.pad_token_id,
            )
        tokens = tokens[:, batch["input_ids"].shape[1] :]  # the output starts with the prompt
        # Some models put the caption in quotation marks, as the instruction does with the prefix.
        texts = [text.strip().strip('"') for text in self.processor.batch_decode(tokens, skip_special_tokens=True)]
        return [texts[start : start + count] for start in range(0, len(texts), count)]

    def bytes_per_image(self) -> int:
        """Return the bytes of the keys and values of all conversations, and of their logits.

        The image tower is left out: with LLaVA-1.5 7B it needs about 4 % of what the keys and values need.
        """
        text = self.model.config.get_text_config()
        sequences = len(self.prompts) * self.options.num_beams
        length = PROMPT_TOKENS + self.options.max_new_tokens
        cache = 2 * length * text.num_hidden_layers * text.hidden_size * self.model.dtype.itemsize
        # 12 bytes per logit: the model's, their copy in float32, and what is computed from it.
        return int(sequences * (cache + 12 * text.vocab_size))


def load_small(image: ImageRef) -> Image:
    """Return the image with its longer side at most LONGEST_SIDE pixels. Raises ImageRejected."""
    pixels = load(image)
    pixels.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return pixels
