"""The flags of `caption`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from capivara_cli.data.languages import Lang
from capivara_cli.models.generation import MAX_BEAMS, MAX_NEW_TOKENS
from capivara_cli.options import ImageWorkers, Machine, Resumable, flag
from capivara_cli.values import AutoOrCount


class CaptionOptions(ImageWorkers, Resumable, Machine):
    """How to describe images."""

    section = "caption"

    model: str = flag(
        "BLIP-2, BLIP or a vision-language chat model: hub id or folder.",
        default="Salesforce/blip2-opt-2.7b-coco",
        metavar="MODEL",
    )
    prefixes: Path | None = flag(
        "File with what captions begin with: a YAML list, or a .txt with one per line.",
        default=None,
        metavar="FILE|none",
        shown="the recipe's ten",
    )
    quantize: Literal["none", "8bit", "4bit"] = flag(
        "Keep the language model's and towers' weights in 8 or 4 bits, for small GPUs; captions change a little.",
        default="none",
    )
    lang: Lang = flag("Language of the captions, BCP-47.", default="en", metavar="LANG")
    batch_size: AutoOrCount = flag("Images per batch.", default=None, metavar="auto|N")
    max_new_tokens: int = flag("Most tokens after the prefix.", default=50, min=1, max=MAX_NEW_TOKENS)
    num_beams: int = flag("Beams of the search; 1 is greedy.", default=1, min=1, max=MAX_BEAMS)
