"""`capivara cache`."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    clear: Annotated[bool, typer.Option("--clear", help="Remove all that is shown, and nothing else.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what is kept to be faster the next time: embeddings, indexes of shards, translations.

    All of it is made again when it is needed. Translations are asked for again.

    Examples:

        capivara cache

        capivara cache --clear
    """
    from capivara_cli.inspection.cache import cache

    cache(clear=clear, as_json=as_json)
