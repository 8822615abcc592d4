"""`capivara classify-eval`."""

from __future__ import annotations

from typing import Annotated

import typer

from capivara_cli.console import answer
from capivara_cli.evaluation.options import ClassifyOptions

from .binding import bind
from .retrieve_eval import ResultFile, or_pipe


def _list_sets(value: bool) -> None:
    if value:
        from capivara_cli.data.class_sets import known_sets

        for name, entry in known_sets().items():
            source = f"names in {', '.join(entry['langs'])}" if entry["langs"] else f"names: {entry['source']}"
            answer(f"{name:19} {entry['classes']:5,} classes  {entry['metric']:22} {source}")
        raise typer.Exit


@bind
def command(
    data: Annotated[
        list[str], typer.Option("--data", help="Images with labels: class folders, JSONL, shards with .cls, tables.")
    ],
    options: ClassifyOptions,
    output: ResultFile = None,
    _list: Annotated[
        bool, typer.Option("--list", callback=_list_sets, is_eager=True, help="List the known class sets.")
    ] = False,
) -> None:
    """Measure zero-shot classification: each image gets the class whose prompts are most similar to it.

    Class files of CLIP_benchmark, Babel-ImageNet and CuPL are read as they are. With --baseline also the difference,
    with its 95 % interval. Several languages or models: one result file for each.

    Examples:

        capivara classify-eval --data cifar-10/test --classes cifar-10 --lang hi,en --model local-dir:clip-hi

        capivara classify-eval --data val/ --lang hi --classes babel_imagenet.json --adapter runs/hi-lora -o hi.json
    """
    from capivara_cli.evaluation.classify_eval import classify_eval

    classify_eval(data, options, or_pipe(output))
