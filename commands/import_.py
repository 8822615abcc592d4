"""`capivara import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from capivara_cli.console import answer

from .options import OverwriteOrResume, Strict, Workers


def _list_formats(value: bool) -> None:
    if value:
        from capivara_cli.importing.formats import FORMATS

        for name, format_ in FORMATS.items():
            answer(f"{name:14} {format_.what}")
        raise typer.Exit


def command(
    sources: Annotated[
        list[str], typer.Argument(metavar="[FORMAT] SOURCE...", help="Files or folders; the format is found by itself.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSONL to write. [standard output]", show_default=False)
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", metavar="DIR", help="Folder of the images. [the annotations' own]")
    ] = None,
    split: Annotated[str | None, typer.Option("--split", help="Part of the data: train, val, test. [all]")] = None,
    lang: Annotated[str, typer.Option("--lang", help="Language of captions that do not say theirs, BCP-47.")] = "en",
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column", metavar="WHAT=NAME", help="Column for image, caption, id, label or a language; or its number."
        ),
    ] = None,
    labels: Annotated[
        bool | None,
        typer.Option("--labels/--no-labels", help="Folders are classes. [if all images are in some, one deep]"),
    ] = None,
    translations: Annotated[
        Path | None, typer.Option("--translations", metavar="FILE", help="Of the captions: lines, TSV, CSV or XLSX.")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="LANG", help="Language of the translations.")] = None,
    encoding: Annotated[
        str | None, typer.Option("--encoding", help="Of text files. [UTF-8, or UTF-16 by its mark]")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Decode each image, on all cores.")] = False,
    dedupe: Annotated[bool, typer.Option("--dedupe", help="Leave out images whose content came before.")] = False,
    workers: Workers = None,
    strict: Strict = False,
    overwrite: OverwriteOrResume = False,
    _formats: Annotated[
        bool, typer.Option("--formats", callback=_list_formats, is_eager=True, help="List the formats.")
    ] = False,
) -> None:
    """Read any data set, and write records: one image a line, with its captions.

    What cannot be used is named in FILE.rejected.jsonl with the reason. Rows of one image need not stand together.
    Images stay where they are, in tar shards too; only those inside a table are written out.

    Examples:

        capivara import karpathy dataset_flickr30k.json --images flickr30k-images --split test -o test.jsonl

        capivara import captions.csv --column image=path --column hi=hindi --verify -o data.jsonl

        capivara import photos.jsonl --translations captions.pt.txt --to pt -o photos.pt.jsonl
    """
    from capivara_cli.importing.formats import FORMATS
    from capivara_cli.importing.import_data import import_data

    given = sources[0] if len(sources) > 1 and (sources[0] in FORMATS or not Path(sources[0]).exists()) else None
    given = None if given and ("{" in given or "/" in given or "." in given) else given
    import_data(
        sources[1:] if given else sources,
        output,
        format=given,
        images=images,
        split=split,
        lang=lang,
        column=column or [],
        labels=labels,
        translations=translations,
        to=to,
        encoding=encoding,
        verify=verify,
        dedupe=dedupe,
        workers=workers,
        strict=strict,
        overwrite=overwrite,
    )
