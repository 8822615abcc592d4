"""`capivara classify-eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from capivara_cli.console import answer

from .options import Adapter, Baseline, Device, Lang, Model, Precision, Pretrained, Seed, codes


def _list_sets(value: bool) -> None:
    if value:
        from capivara_cli.data.class_sets import shipped

        for name, entry in shipped().items():
            where = f"names in {', '.join(entry['langs'])}" if entry["langs"] else f"names: {entry['source']}"
            answer(f"{name:19} {entry['classes']:5,} classes  {entry['metric']:22} {where}")
        raise typer.Exit


def command(
    data: Annotated[
        list[str], typer.Option("--data", help="Images with labels: class folders, JSONL, shards with .cls, CSV.")
    ],
    lang: Lang = None,
    classes: Annotated[
        str | None,
        typer.Option(
            "--classes",
            metavar="FILE|NAME",
            help="Names of the classes: FILE, FILE#KEY, or a set. [by the data's name]",
        ),
    ] = None,
    templates: Annotated[
        str | None,
        typer.Option("--templates", metavar="FILE", help="Sentences with {c}, or prompts by class. [the set's]"),
    ] = None,
    metric: Annotated[
        str,
        typer.Option(
            "--metric", help="auto, acc1, acc5, mean_per_class_recall, map, map11 or roc_auc: the one that counts."
        ),
    ] = "auto",
    split: Annotated[str | None, typer.Option("--split", help="Part of the data, where it has parts.")] = None,
    images: Annotated[
        Path | None, typer.Option("--images", metavar="DIR", help="Folder of the images that a table names.")
    ] = None,
    model: Model = None,
    pretrained: Pretrained = None,
    adapter: Adapter = None,
    baseline: Baseline = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Result file, JSON in CLIP_benchmark's form.")
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", metavar="FILE", help="JSONL with the answers for each image.")
    ] = None,
    per_class: Annotated[
        Path | None, typer.Option("--per-class", metavar="FILE", help="CSV with the recall of each class.")
    ] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    seed: Seed = 0,
    _list: Annotated[
        bool, typer.Option("--list", callback=_list_sets, is_eager=True, help="List the class sets that are known.")
    ] = False,
) -> None:
    """Measure zero-shot classification: each image is given the class whose prompts are most like it.

    Class files of CLIP_benchmark, Babel-ImageNet and CuPL are read as they are. With --baseline also the difference,
    with its 95 % interval. Several languages or models: one result file each.

    Examples:

        capivara classify-eval --data cifar-10/test --lang hi --lang en --model local-dir:clip-hi

        capivara classify-eval --data val/ --lang hi --classes babel_imagenet.json --adapter runs/hi-lora -o hi.json
    """
    from capivara_cli.evaluation.classify_eval import classify_eval

    classify_eval(
        data,
        codes("--lang", lang),
        classes=classes,
        templates=templates,
        metric=metric,
        split=split,
        images=images,
        model=model,
        pretrained=pretrained,
        adapter=adapter,
        baseline=baseline,
        output=output,
        predictions=predictions,
        per_class=per_class,
        device=device,
        precision=precision,
        seed=seed,
    )
