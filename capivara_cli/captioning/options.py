"""The flags of `caption`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from capivara_cli.data.languages import Lang
from capivara_cli.models.generation import MAX_BEAMS, MAX_NEW_TOKENS
from capivara_cli.options import ImageWorkers, Machine, Resumable, Summarised, flag
from capivara_cli.values import AutoOrCount


class CaptionOptions(ImageWorkers, Resumable, Summarised, Machine):
    """How to describe images."""

    section = "caption"

    model: str = flag(
        "BLIP-2, BLIP or a vision-language chat model: hub id or folder.",
        default="Salesforce/blip2-opt-2.7b-coco",
        metavar="MODEL",
    )
    prefixes: Path | None = flag(
        "File of caption prefixes (a YAML list, or a .txt with one per line); none for no prefix.",
        default=None,
        metavar="FILE|none",
        shown="ten English prefixes of the CAPIVARA recipe",
    )
    quantize: Literal["none", "8bit", "4bit"] = flag(
        "Quantise the model's linear layers to 8 or 4 bits, for small GPUs; captions may differ slightly.",
        default="none",
    )
    lang: Lang = flag("Language of the captions, BCP-47.", default="en", metavar="LANG")
    batch_size: AutoOrCount = flag("Images per batch.", default=None, metavar="auto|N")
    max_new_tokens: int = flag(
        "Maximum number of new tokens per caption, without the prefix.", default=50, min=1, max=MAX_NEW_TOKENS
    )
    num_beams: int = flag("Number of beams; 1 is greedy decoding.", default=1, min=1, max=MAX_BEAMS)
