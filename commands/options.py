"""Options that several commands share: declared once, spelt the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from capivara_cli.errors import CapivaraError

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
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of everything random.")]

Baseline = Annotated[
    str | None,
    typer.Option(
        "--baseline", metavar="MODEL", help="Model to compare with: ARCHITECTURE[:TAG], hf-hub:… or local-dir:…"
    ),
]
Adapter = Annotated[Path | None, typer.Option("--adapter", help="Run folder whose adapter is put on the model.")]

BatchSize = Annotated[str, typer.Option("--batch-size", metavar="auto|N", help="Images at once.")]
Workers = Annotated[int | None, typer.Option("--workers", min=0, help="Processes that decode images. [one a core]")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first record that cannot be used.")]
OverwriteOrResume = Annotated[
    bool, typer.Option("--overwrite/--resume", help="Begin anew, or go on from where the run stopped.")
]


def auto_or_number(flag: str, text: str) -> int | None:
    """`auto` -> None. Raises CapivaraError for what is no number of at least 1."""
    if text == "auto":
        return None
    if text.isdecimal() and int(text):
        return int(text)
    raise CapivaraError(f"{flag} {text}: neither auto nor a number of at least 1")


def codes(flag: str, given: list[str] | None) -> list[str]:
    """Language codes of an option that may be repeated or hold several: `--to hi,xh --to pt`.

    Raises CapivaraError when something was given, and no language is in it.
    """
    found = [code.strip() for part in given or [] for code in part.split(",") if code.strip()]
    if given and not found:
        raise CapivaraError(f"{flag} {' '.join(given)}: no language in it", f"{flag} hi, or {flag} hi,xh")
    return found
