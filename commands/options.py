"""Options that several commands share: declared once, spelt the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Lang = Annotated[
    list[str] | None, typer.Option("--lang", help="Language of the captions, BCP-47: hi, pt-BR. Repeatable.")
]
Model = Annotated[
    str | None,
    typer.Option("--model", help="Architecture of open_clip, hf-hub:ORG/REPO or local-dir:FOLDER.", show_default=False),
]
Pretrained = Annotated[str | None, typer.Option("--pretrained", help="Tag of an architecture's weights.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]

Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")]
Precision = Annotated[str, typer.Option("--precision", help="auto, fp32, bf16 or fp16.")]
Seed = Annotated[int, typer.Option("--seed", help="Of everything random.")]

Adapter = Annotated[Path | None, typer.Option("--adapter", help="Run folder whose adapter is put on the model.")]
