"""`capivara caption`."""

from __future__ import annotations

from typing import Annotated

import typer

from capivara_cli.captioning.options import CaptionOptions

from .binding import Output, bind


@bind
def command(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE", help="Images, folders, JSONL, tar shards, {00..99}.tar, or -.")
    ],
    options: CaptionOptions,
    output: Output = None,
) -> None:
    """Describe images: one caption for each prefix, the image side computed once.

    Existing records keep everything they have. An interrupted run is resumed. Images that cannot be used are named in
    FILE.rejected.jsonl.

    Examples:

        capivara caption photos/ -o photos.jsonl

        capivara caption "cc3m/{00000..00331}.tar" -o cc3m.jsonl --num-beams 3

        capivara caption photos/ --model Salesforce/blip-image-captioning-base --prefixes none | head
    """
    from capivara_cli.captioning.caption import caption

    caption(sources, output, options)
