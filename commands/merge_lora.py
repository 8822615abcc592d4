"""`capivara merge-lora`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from capivara_cli.console import answer

from .options import Model, Overwrite


def command(
    run: Annotated[Path, typer.Argument(help="Run folder, or a PEFT adapter folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    scale: Annotated[
        float, typer.Option("--scale", min=0.0, help="0 is the base model, 1 the trained one; between: both.")
    ] = 1.0,
    dtype: Annotated[str, typer.Option("--dtype", help="float32, float16 or bfloat16.")] = "float32",
    model: Model = None,
    overwrite: Overwrite = False,
) -> None:
    """Merge a run into its base model: one OpenCLIP folder that needs nothing else.

    The folder holds weights, configuration, tokenizer and a model card, and loads without network, here as
    `local-dir:FOLDER` and in plain open_clip. Runs of --full work too.

    Examples:

        capivara merge-lora runs/hi-lora -o clip-hi

        capivara merge-lora runs/hi-lora -o clip-hi-half --scale 0.5 --dtype float16
    """
    from capivara_cli.training.merge_lora import merge_lora

    answer(str(merge_lora(run, output, scale=scale, dtype=dtype, model=model, overwrite=overwrite)))
