"""`capivara score`."""

from __future__ import annotations

from typing import Annotated

import typer

from capivara_cli.scoring.options import ScoreOptions

from .binding import Output, bind


@bind
def command(
    options: ScoreOptions,
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="SOURCE", help="Records with captions: JSONL, shards, -. [default: -]"),
    ] = None,
    output: Output = None,
) -> None:
    """Score captions by CLIP, and keep those that are worth learning from.

    The score is the cosine of the caption's and the image's embeddings. Dropped captions go to FILE.rejected.jsonl,
    each with the reason. The strategies apply in the order of the options below, to each language of each image;
    without a strategy, all captions are kept. If the model hardly knows the language, judge by the original: --by en.

    Examples:

        capivara score photos.hi.jsonl --lang hi --by en --min-score 0.2 -o clean.jsonl

        capivara score photos.hi.jsonl --keep-all --plot scores.png -o scored.jsonl

        capivara score scored.jsonl --scored --min-score 0.15 --diverse 0.3 -o clean.jsonl
    """
    from capivara_cli.scoring.score import score

    score(sources or ["-"], output, options)
