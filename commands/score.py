"""`capivara score`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Adapter, Device, Model, OverwriteOrResume, Precision, Pretrained, Seed, Strict, Workers, codes


def command(
    sources: Annotated[
        list[str] | None, typer.Argument(metavar="SOURCE", help="Records with captions: JSONL, shards, -. [-]")
    ] = None,
    lang: Annotated[
        list[str] | None, typer.Option("--lang", help="Languages whose captions are judged: hi or hi,xh. [all]")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSONL to write. [standard output]", show_default=False)
    ] = None,
    model: Model = None,
    pretrained: Pretrained = None,
    adapter: Adapter = None,
    by: Annotated[
        str | None, typer.Option("--by", metavar="LANG", help="Score the captions in LANG; their translations go too.")
    ] = None,
    pair_score: Annotated[
        float | None, typer.Option("--pair-score", help="Drop images whose human captions all score less.")
    ] = None,
    first: Annotated[int | None, typer.Option("--first", help="Keep so many generated captions, the first.")] = None,
    min_score: Annotated[float | None, typer.Option("--min-score", help="Drop captions that score less.")] = None,
    top_k: Annotated[int | None, typer.Option("--top-k", help="Keep so many captions, those with the best.")] = None,
    diverse: Annotated[
        float | None, typer.Option("--diverse", help="Drop captions while two have a TF-IDF cosine above this.")
    ] = None,
    min_captions: Annotated[int | None, typer.Option("--min-captions", help="--diverse leaves so many. [3]")] = None,
    human: Annotated[
        list[str] | None,
        typer.Option("--human", metavar="SOURCE", help="`source` of captions by people, beside none. [human]"),
    ] = None,
    scored: Annotated[bool, typer.Option("--scored", help="Take the scores that are there: no model.")] = False,
    keep_all: Annotated[bool, typer.Option("--keep-all", help="Mark what is dropped instead: `rejected`.")] = False,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE.png", help="Histogram of the scores.")] = None,
    workers: Workers = None,
    strict: Strict = False,
    overwrite: OverwriteOrResume = False,
    device: Device = "auto",
    precision: Precision = "auto",
    seed: Seed = 0,
) -> None:
    """Score captions by CLIP, and keep those that are worth learning from.

    The score is the cosine of the caption's and the image's embeddings. What is dropped goes to FILE.rejected.jsonl
    with the reason. Strategies follow each other in the order of the options, image by image and language by
    language; without any, all is kept. A model that hardly knows a language cannot judge it: --by en.

    Examples:

        capivara score photos.hi.jsonl --lang hi --by en --min-score 0.2 -o clean.jsonl

        capivara score photos.hi.jsonl --keep-all --plot scores.png -o scored.jsonl

        capivara score scored.jsonl --scored --min-score 0.15 --diverse 0.3 -o clean.jsonl
    """
    from capivara_cli.data.selection import HUMAN
    from capivara_cli.scoring.score import score

    score(
        sources or ["-"],
        output,
        lang=codes("--lang", lang),
        model=model,
        pretrained=pretrained,
        adapter=adapter,
        by=by,
        min_score=min_score,
        top_k=top_k,
        first=first,
        diverse=diverse,
        min_captions=min_captions,
        pair_score=pair_score,
        human=(*HUMAN, *(human or [])),
        scored=scored,
        keep_all=keep_all,
        plot=plot,
        workers=workers,
        strict=strict,
        overwrite=overwrite,
        device=device,
        precision=precision,
        seed=seed,
    )
