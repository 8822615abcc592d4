"""`capivara retrieve-eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Adapter, Baseline, Device, Lang, Model, Precision, Pretrained, Seed, codes


def command(
    data: Annotated[list[str], typer.Option("--data", help="Test images and captions: JSONL, folder, shards or -.")],
    lang: Lang = None,
    model: Model = None,
    pretrained: Pretrained = None,
    adapter: Adapter = None,
    baseline: Baseline = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Result file, JSON in CLIP_benchmark's form.")
    ] = None,
    ranks: Annotated[Path | None, typer.Option("--ranks", help="JSONL with the rank of each query.")] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    seed: Seed = 0,
) -> None:
    """Measure retrieval in both directions: recall@1, 5 and 10, mean recall, median rank, MRR.

    With --baseline also the difference, with its 95 % interval. Without -o, results go to standard output
    when that is a pipe or a file. Several languages or models: one result file each.

    Examples:

        capivara retrieve-eval --data test.jsonl --lang hi --model local-dir:clip-hi

        capivara retrieve-eval --data test.jsonl --lang hi,en --adapter runs/hi --baseline local-dir:base -o hi.json
    """
    from capivara_cli.evaluation.retrieve_eval import retrieve_eval

    retrieve_eval(
        data,
        codes("--lang", lang),
        model=model,
        pretrained=pretrained,
        adapter=adapter,
        baseline=baseline,
        output=output,
        ranks=ranks,
        device=device,
        precision=precision,
        seed=seed,
    )
