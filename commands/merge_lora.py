"""`capivara merge-lora`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from capivara_cli.console import answer
from capivara_cli.training.options import MergeOptions

from .binding import bind


@bind
def command(
    run: Annotated[Path, typer.Argument(help="Run folder, or a PEFT adapter folder.")],
    options: MergeOptions,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
) -> None:
    """Merge a run into its base model, as one OpenCLIP folder that needs no other file.

    The folder holds weights, configuration, tokenizer and a model card, and no path of this machine. It loads without
    network: here as `local-dir:FOLDER`, and in plain open_clip by the lines in its card. Runs of `--full` work too, and
    runs that were interrupted. The base model is found from any folder.

    Examples:

        capivara merge-lora runs/hi-lora -o clip-hi

        capivara merge-lora runs/hi-lora -o clip-hi-half --scale 0.5 --dtype float16

        capivara merge-lora runs/hi-lora -o clip-hi --hub-name my-org/clip-hi
    """
    from capivara_cli.training.merge_lora import merge_lora

    answer(str(merge_lora(run, output, options)))
