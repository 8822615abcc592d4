"""`capivara export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from capivara_cli.exporting.options import ExportOptions, Format

from .binding import bind


@bind
def command(
    # As text, because `export` says more of a wrong one than typer does.
    format: Annotated[
        str,
        typer.Argument(
            metavar="FORMAT",
            help="webdataset, imagefolder, csv or captions.txt.",
            autocompletion=lambda: list(get_args(Format)),
        ),
    ],
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Records: JSONL, a folder, shards, -.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder or file to write (-: standard output).")],
    options: ExportOptions,
) -> None:
    """Write records in a format that other tools read; nothing in them is lost.

    webdataset: tar shards for open_clip's trainer, webdataset and CLIP_benchmark. imagefolder: for Hugging Face's
    datasets. csv: a row per caption, with open_clip's filepath and title. captions.txt: a caption per line.

    Examples:

        capivara export webdataset train.jsonl --lang hi -o shards/

        capivara export csv train.jsonl --lang hi -o train.hi.csv

        capivara export captions.txt train.jsonl --lang en -o captions.en.txt
    """
    from capivara_cli.exporting.export import export

    export(cast("Format", format), source, output, options)
