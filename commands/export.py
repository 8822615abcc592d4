"""`capivara export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import OverwriteOrResume, Strict


def command(
    format: Annotated[str, typer.Argument(metavar="FORMAT", help="webdataset, imagefolder, csv or captions.txt.")],
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Records: JSONL, a folder, shards, -.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder, or file (-: standard output), to write."),
    ],
    lang: Annotated[
        str | None,
        typer.Option("--lang", help="Of the caption that stands alone, or a table's. [any]"),
    ] = None,
    shard_size: Annotated[int, typer.Option("--shard-size", help="Images in a shard.")] = 10_000,
    prefix: Annotated[str, typer.Option("--prefix", help="What names of shards and images begin with.")] = "",
    strict: Strict = False,
    overwrite: OverwriteOrResume = False,
) -> None:
    """Write records in a form that other tools read; nothing of them is lost.

    webdataset: tar shards for open_clip's trainer, webdataset and CLIP_benchmark. imagefolder: for Hugging Face's
    datasets. csv: filepath and title, as open_clip has them, a row for each caption. captions.txt: a caption a line.

    Examples:

        capivara export webdataset train.jsonl --lang hi -o shards/

        capivara export csv train.jsonl --lang hi -o train.hi.csv

        capivara export captions.txt train.jsonl --lang en -o captions.en.txt
    """
    from capivara_cli.exporting.export import export

    export(
        format,
        source,
        output,
        lang=lang,
        shard_size=shard_size,
        prefix=prefix,
        overwrite=overwrite,
        strict=strict,
    )
