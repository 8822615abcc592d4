"""`capivara translate`."""

from __future__ import annotations

from typing import Annotated

import typer

from capivara_cli.console import answer
from capivara_cli.translation.options import TranslateOptions

from .binding import Output, bind


def _list_languages(value: bool) -> None:
    if value:
        from capivara_cli.data.languages import BACKENDS, table

        for language in table().values():
            known = " ".join(backend for backend in BACKENDS if backend in language.codes)
            answer(f"{language.code:9} {language.name:32} {language.script}  {known}")
        raise typer.Exit


@bind
def command(
    options: TranslateOptions,
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="SOURCE", help="Records (JSONL, shards, -), or one class file. [default: -]"),
    ] = None,
    output: Output = None,
    _languages: Annotated[
        bool, typer.Option("--languages", callback=_list_languages, is_eager=True, help="List languages and backends.")
    ] = False,
) -> None:
    """Translate captions into other languages; each distinct text is translated once.

    For each caption in --from, one in each target language is added, with its parent and source. Implausible
    translations (empty, the source again, in another script, without its placeholders …) are tried again, then named
    in FILE.rejected.jsonl. A class file (.json, .yaml) is written with its texts translated.

    Examples:

        capivara translate photos.jsonl --to hi,xh -o photos.hi.jsonl

        capivara caption photos/ | capivara translate --to hi --backend m2m100 | gzip > photos.hi.jsonl.gz

        capivara translate classes.json --to pt -o classes.pt.json
    """
    from capivara_cli.translation.translate import translate

    translate(sources or ["-"], output, options)
