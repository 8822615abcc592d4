"""`capivara train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from capivara_cli.console import answer
from capivara_cli.errors import BadOption
from capivara_cli.training.options import TrainOptions, train_options

from .binding import FlagsOf, bind


@bind
def command(
    *,
    lora: Annotated[bool, typer.Option("--lora", help="Train a LoRA adapter (CAPIVARA + Opt.).")] = False,
    full: Annotated[bool, typer.Option("--full", help="Train the whole text tower (CAPIVARA).")] = False,
    flags: Annotated[dict[str, Any], FlagsOf(TrainOptions)],
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="capivara-plus, capivara-opt, capivara, from-scratch, or a file.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any key of the recipe: optimizer.lr=1e-4.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run folder. [default: runs/LANG-lora or runs/LANG-full]")
    ] = None,
    keep: Annotated[list[str] | None, typer.Option("--keep", hidden=True)] = None,
) -> None:
    """Teach a CLIP model a language, from images with captions in it.

    The image tower is frozen and runs once over the images; its embeddings are kept for all later runs.
    An interrupted run is resumed by the same command. Settings: flags and --set win over --recipe, which wins over
    ./capivara.yaml and the built-in recipe.

    Examples:

        capivara train --lang hi --lora

        capivara train --lang pt --lora --data captions.jsonl --replay en:0.25 -o runs/pt

        capivara train --lang xh --full --data "shards/{00000..00266}.tar" --set optimizer.lr=1e-6
    """
    from capivara_cli.training.train import train

    if lora and full:
        raise BadOption("both --lora and --full", "choose one: --lora trains an adapter, --full the whole text tower")
    if keep:
        flags.setdefault("replay", keep)  # what the flag was called
    method = "lora" if lora else "full" if full else None
    options = train_options(method, recipe=recipe, set=set_ or [], **flags)
    file = Path(recipe) if recipe and Path(recipe).is_file() else None  # else the name of a built-in recipe
    answer(str(train(options, output, file)))
