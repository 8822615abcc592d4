"""`capivara train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from capivara_cli.console import answer

from .options import Lang, Model, Pretrained


def command(
    lang: Lang = None,
    lora: Annotated[bool, typer.Option("--lora", help="Train a LoRA adapter (CAPIVARA + Opt.).")] = False,
    full: Annotated[bool, typer.Option("--full", help="Train the whole text tower (CAPIVARA).")] = False,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", help="Images and captions: JSONL, folder or tar shards. Repeatable. [data/train.jsonl]"),
    ] = None,
    val: Annotated[
        str | None, typer.Option("--val", help="Records to validate on; without it some images are held out.")
    ] = None,
    model: Model = None,
    pretrained: Pretrained = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="capivara-plus, capivara-opt, capivara, or a YAML file.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any key of the recipe: optimizer.lr=1e-4.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run folder. [runs/LANG-lora or runs/LANG-full]")
    ] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Images a step; the loss is over all.")] = None,
    micro_batch: Annotated[
        str | None, typer.Option("--micro-batch", help="Texts in memory at once: auto or a number. Same result.")
    ] = None,
    max_steps: Annotated[int | None, typer.Option("--max-steps", help="Optimiser steps.")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Highest learning rate.")] = None,
    views: Annotated[
        int | None, typer.Option("--views", help="Views of each image: the plain one and augmented ones.")
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--keep", metavar="LANG[:SHARE]", help="Share of each batch for a language not to forget: en:0.25."
        ),
    ] = None,
    tokens: Annotated[
        bool | None, typer.Option("--tokens/--no-tokens", help="Train the embeddings of the captions' tokens too.")
    ] = None,
    unlock_image: Annotated[
        bool | None, typer.Option("--unlock-image", help="Train the image tower as well, on pixels.")
    ] = None,
    from_scratch: Annotated[bool | None, typer.Option("--from-scratch", help="Start from random weights.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite/--resume", help="Begin anew, or go on from where the run stopped.")
    ] = False,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")] = None,
    precision: Annotated[str | None, typer.Option("--precision", help="auto, fp32, bf16 or fp16.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of everything random.")] = None,
) -> None:
    """Teach a CLIP model a language, from images with captions in it.

    The image tower is frozen and runs once over the images; its embeddings are kept for all later runs.
    Interrupted, the same command goes on. Settings: flags and --set, then --recipe, then ./capivara.yaml,
    then the built-in recipe.

    Examples:

        capivara train --lang hi --lora

        capivara train --lang pt --lora --data captions.jsonl --keep en:0.25 -o runs/pt

        capivara train --lang xh --full --data "shards/{00000..00266}.tar" --set optimizer.lr=1e-6
    """
    from capivara_cli.training.train import train

    run = train(
        lang or [],
        lora=lora,
        full=full,
        data=data or [],
        val=val,
        model=model,
        pretrained=pretrained,
        recipe=recipe,
        set=set_ or [],
        output=output,
        batch_size=batch_size,
        micro_batch=micro_batch,
        max_steps=max_steps,
        lr=lr,
        views=views,
        keep=keep or [],
        tokens=tokens,
        unlock_image=unlock_image,
        from_scratch=from_scratch,
        overwrite=overwrite,
        device=device,
        precision=precision,
        seed=seed,
    )
    answer(str(run))
