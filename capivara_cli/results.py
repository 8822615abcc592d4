"""Result files of evaluations, in CLIP_benchmark's form, and what is said about images that were left out."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from capivara_cli import artifacts, console
from capivara_cli.embeddings import Rejected


def dataset_name(data: Sequence[str]) -> str:
    """CLIP_benchmark's `dataset`: the sources' names."""
    return "+".join(Path(name).stem if name != "-" else "stdin" for name in data)


def show_rejected(rejected: Sequence[Rejected]) -> None:
    """Name the images that could not be used."""
    if rejected:
        shown = "; ".join(f"{item.image}: {item.reason}" for item in rejected[:10])
        more = f"; and {len(rejected) - 10} more" if len(rejected) > 10 else ""
        console.warn(f"{len(rejected)} images left out: {shown}{more}")


def write_results(results: Sequence[dict[str, Any]], output: Path | None) -> None:
    """One file a result, which is what `clip_benchmark build` reads; without -o, JSON lines into a pipe."""
    if output is None:
        if not sys.stdout.isatty():
            for result in results:
                console.answer(json.dumps(result, ensure_ascii=False))
        return
    for result in results:
        path = _own_path(output, result, results)
        artifacts.write_json(path, result)
        console.say(f"wrote {path}")


def _own_path(output: Path, result: dict[str, Any], results: Sequence[dict[str, Any]]) -> Path:
    """`result.json`, or `result.hi.json` and `result.hi.baseline.json` when there are several."""
    several = len({each["language"] for each in results}) > 1
    stem = output.stem + (f".{result['language']}" if several else "")
    stem += ".baseline" if result["role"] == "baseline" else ""
    return output.with_name(stem + (output.suffix or ".json"))
