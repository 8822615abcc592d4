"""The flags of `caption`."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge

from capivara_cli.options import AutoOrCount, ImageWorkers, Machine, Resumable, flag, options


@options
class CaptionOptions(ImageWorkers, Resumable, Machine):
    """How to describe images."""

    section = "caption"

    model: str = flag(
        "BLIP-2, BLIP or a vision-language chat model: hub id or folder.",
        default="Salesforce/blip2-opt-2.7b-coco",
        metavar="MODEL",
    )
    prefixes: str | None = flag(
        "File with what captions begin with: a YAML list, or a .txt with one per line.",
        default=None,
        metavar="FILE|none",
        shown="the recipe's ten",
    )
    lang: str = flag("Language of the captions, BCP-47.", default="en", metavar="LANG")
    batch_size: AutoOrCount = flag("Images per batch.", default=None, metavar="auto|N")
    max_new_tokens: Annotated[int, Ge(1)] = flag("Most tokens after the prefix.", default=50)
    num_beams: Annotated[int, Ge(1)] = flag("Beams of the search; 1 is greedy.", default=1)
