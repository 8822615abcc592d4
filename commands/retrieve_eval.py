"""`capivara retrieve-eval`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from capivara_cli.evaluation.options import RetrieveOptions

from .binding import bind

ResultFile = Annotated[
    Path | None, typer.Option("--output", "-o", help="Result file, JSON in CLIP_benchmark's form.", show_default=False)
]


def or_pipe(output: Path | None) -> Path | None:
    """Return `-` (standard output) instead of None, unless standard output is a screen."""
    return Path("-") if output is None and not sys.stdout.isatty() else output


@bind
def command(
    data: Annotated[list[str], typer.Option("--data", help="Test images with captions: JSONL, folder, shards or -.")],
    options: RetrieveOptions,
    output: ResultFile = None,
) -> None:
    """Measure retrieval in both directions: recall@1, 5 and 10, mean recall, median rank, MRR.

    With --baseline also the difference, with its 95 % interval. Without -o, results go to standard output if that is a
    pipe or a file. Several languages or models: one result file for each.

    Examples:

        capivara retrieve-eval --data test.jsonl --lang hi --model local-dir:clip-hi

        capivara retrieve-eval --data test.jsonl --lang hi,en --adapter runs/hi --baseline local-dir:base -o hi.json
    """
    from capivara_cli.evaluation.retrieve_eval import retrieve_eval

    retrieve_eval(data, options, or_pipe(output))
