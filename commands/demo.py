"""`capivara demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from capivara_cli.demo.options import DemoOptions

from .binding import bind


@bind
def command(
    options: DemoOptions,
    folder: Annotated[Path, typer.Argument(help="Folder to create.")] = Path("capivara-demo"),
) -> None:
    """Run the whole job in a small world of drawn scenes, in a minute or two, without network or GPU.

    Writes images, captions and a small CLIP to FOLDER, trains an adapter for the language, merges it, and shows recall
    before and after. It prints each command before running it: the same commands work with your own images.

    Examples:

        capivara demo

        capivara demo /tmp/world --lang xh
    """
    from capivara_cli.demo.demo import demo

    demo(folder, options, _run)


def _run(arguments: list[str]) -> None:
    """Run `capivara` in this process. Its errors pass through."""
    from . import app

    if code := app(arguments, prog_name="capivara", standalone_mode=False):
        raise typer.Exit(code)
