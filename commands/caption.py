"""`capivara caption`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import BatchSize, Device, OverwriteOrResume, Precision, Seed, Strict, Workers


def command(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE", help="Images, folders, JSONL, tar shards, {00..99}.tar, or -.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSONL to write. [standard output]", show_default=False)
    ] = None,
    model: Annotated[
        str, typer.Option("--model", help="BLIP-2, BLIP or a chat model that sees: ORG/REPO, or a folder.")
    ] = "Salesforce/blip2-opt-2.7b-coco",
    prefixes: Annotated[
        str | None,
        typer.Option("--prefixes", metavar="FILE|none", help="What captions begin with. [the recipe's ten]"),
    ] = None,
    lang: Annotated[str, typer.Option("--lang", help="Language of the captions, BCP-47.")] = "en",
    batch_size: BatchSize = "auto",
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", help="Tokens after the prefix, at most.")] = 50,
    num_beams: Annotated[int, typer.Option("--num-beams", help="1 is greedy.")] = 1,
    workers: Workers = None,
    strict: Strict = False,
    overwrite: OverwriteOrResume = False,
    device: Device = "auto",
    precision: Precision = "auto",
    seed: Seed = 0,
) -> None:
    """Describe images: one caption for each prefix, the image side computed once.

    Records that come in keep all that they have. An interrupted run goes on from where it stopped. Images that
    cannot be used are named in FILE.rejected.jsonl.

    Examples:

        capivara caption photos/ -o photos.jsonl

        capivara caption "cc3m/{00000..00331}.tar" -o cc3m.jsonl --num-beams 3

        capivara caption photos/ --model Salesforce/blip-image-captioning-base --prefixes none | head
    """
    from capivara_cli.captioning.caption import caption

    from .options import auto_or_number

    caption(
        sources,
        output,
        model=model,
        prefixes=prefixes,
        lang=lang,
        batch_size=auto_or_number("--batch-size", batch_size),
        max_new_tokens=max_new_tokens,
        num_beams=num_beams,
        workers=workers,
        strict=strict,
        overwrite=overwrite,
        device=device,
        precision=precision,
        seed=seed,
    )
