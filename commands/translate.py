"""`capivara translate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from capivara_cli.console import answer

from .options import Device, OverwriteOrResume, Precision, Seed, Strict, auto_or_number, codes


def _list_languages(value: bool) -> None:
    if value:
        from capivara_cli.data.languages import BACKENDS, table

        for language in table().values():
            known = " ".join(backend for backend in BACKENDS if backend in language.codes)
            answer(f"{language.code:9} {language.name:32} {language.script}  {known}")
        raise typer.Exit


def command(
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="SOURCE", help="Records with captions (JSONL, shards, -), or a class file. [-]"),
    ] = None,
    to: Annotated[
        list[str] | None, typer.Option("--to", help="Languages to translate to, BCP-47: hi or hi,xh. Repeatable.")
    ] = None,
    origin: Annotated[
        str, typer.Option("--from", metavar="LANG", help="Language of the captions to translate.")
    ] = "en",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write. [standard output]", show_default=False)
    ] = None,
    backend: Annotated[str, typer.Option("--backend", help="google, nllb, m2m100, madlad or marian.")] = "google",
    model: Annotated[
        str | None, typer.Option("--model", help="Of a local backend: ORG/REPO or a folder. [the backend's default]")
    ] = None,
    engine: Annotated[str, typer.Option("--engine", help="Of a local backend: transformers or ctranslate2.")] = (
        "transformers"
    ),
    memory: Annotated[
        str | None,
        typer.Option("--memory", metavar="FILE|none", help="What was translated before. [in the cache folder]"),
    ] = None,
    google_url: Annotated[
        str | None, typer.Option("--google-url", metavar="HOST[:PORT]", help="Another server that speaks its protocol.")
    ] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", help="Requests under way at once.")] = 4,
    rate: Annotated[float, typer.Option("--rate", help="Requests a second, at most.")] = 5.0,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to wait for a reply.")] = 30.0,
    retries: Annotated[int, typer.Option("--retries", help="How often a request that failed is made again.")] = 6,
    batch_tokens: Annotated[
        str, typer.Option("--batch-tokens", metavar="auto|N", help="Source tokens that a model takes at once.")
    ] = "auto",
    strict: Strict = False,
    overwrite: OverwriteOrResume = False,
    device: Device = "auto",
    precision: Precision = "auto",
    seed: Seed = 0,
    _languages: Annotated[
        bool, typer.Option("--languages", callback=_list_languages, is_eager=True, help="List languages and backends.")
    ] = False,
) -> None:
    """Translate captions into any language; each distinct text once, ever.

    For each caption in --from one in each target is added, with its parent and source. What cannot be a translation
    (empty, the source again, in another script, without its placeholders …) is tried again, then named in
    FILE.rejected.jsonl; it is never recorded. A class file (.json, .yaml) is written with its texts translated.

    Examples:

        capivara translate photos.jsonl --to hi,xh -o photos.hi.jsonl

        capivara caption photos/ | capivara translate --to hi --backend m2m100 | gzip > photos.hi.jsonl.gz

        capivara translate classes.json --to pt -o classes.pt.json
    """
    from capivara_cli.translation.translate import translate

    translate(
        sources or ["-"],
        output,
        to=codes("--to", to),
        origin=origin,
        backend=backend,
        model=model,
        engine=engine,
        memory=memory,
        google_url=google_url,
        concurrency=concurrency,
        rate=rate,
        timeout=timeout,
        retries=retries,
        batch_tokens=auto_or_number("--batch-tokens", batch_tokens),
        strict=strict,
        overwrite=overwrite,
        device=device,
        precision=precision,
        seed=seed,
    )
