"""`capivara demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Device, Overwrite, Seed


def command(
    folder: Annotated[Path, typer.Argument(help="Folder to make.")] = Path("capivara-demo"),
    lang: Annotated[str, typer.Option("--lang", help="hi, pt or xh.")] = "hi",
    overwrite: Overwrite = False,
    device: Device = "auto",
    seed: Seed = 0,
) -> None:
    """Run the whole job in a small world of drawn scenes, in a minute or two, without network or GPU.

    Writes images, captions and a small CLIP to FOLDER, trains an adapter for the language, merges it, and
    shows recall before and after. Everything in the folder is as it would be with your own images.

    Examples:

        capivara demo

        capivara demo /tmp/world --lang xh
    """
    from capivara_cli.demo import demo

    demo(folder, lang=lang, overwrite=overwrite, device=device, seed=seed)
