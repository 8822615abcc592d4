"""`capivara import`."""

from __future__ import annotations

from typing import Annotated

import typer

from capivara_cli.console import answer
from capivara_cli.importing.options import ImportOptions

from .binding import Output, bind


def _list_formats(value: bool) -> None:
    if value:
        from capivara_cli.importing.formats import FORMATS

        for name, format_ in FORMATS.items():
            answer(f"{name:14} {format_.description}")
        raise typer.Exit


@bind
def command(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE", help="Files or folders, all of one format.")],
    options: ImportOptions,
    output: Output = None,
    _formats: Annotated[
        bool, typer.Option("--formats", callback=_list_formats, is_eager=True, help="List the formats.")
    ] = False,
) -> None:
    """Read a data set of any format, and write records: one image per line, with its captions.

    What cannot be used is named in FILE.rejected.jsonl with the reason. Rows of one image need not stand together.
    Images stay where they are, also in tar shards; only images inside a table are written to files.

    Examples:

        capivara import dataset_flickr30k.json --images flickr30k-images --split test -o test.jsonl

        capivara import captions.csv --column image=path --column hi=hindi --verify -o data.jsonl

        capivara import photos.jsonl --translations captions.pt.txt --to pt -o photos.pt.jsonl

        capivara import --format tsv results.token --column image=1 --column caption=2 -o flickr.jsonl
    """
    from capivara_cli.importing.import_data import import_data

    import_data(sources, output, options)
