"""Result files of evaluations, in CLIP_benchmark's form, and what is said about images that were left out."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from capivara_cli import artifacts, console
from capivara_cli.data.images import Rejected
from capivara_cli.data.output import check_not_read
from capivara_cli.errors import CapivaraError


def dataset_name(data: Sequence[str]) -> str:
    """CLIP_benchmark's `dataset`: the sources' names."""
    return "+".join(Path(name).stem if name != "-" else "stdin" for name in data)


def show_rejected(rejected: Sequence[Rejected]) -> None:
    """Name the images that could not be used."""
    if rejected:
        shown = "; ".join(f"{item.image}: {item.reason}" for item in rejected[:10])
        more = f"; and {len(rejected) - 10} more" if len(rejected) > 10 else ""
        console.warn(f"{len(rejected)} images left out: {shown}{more}")


def check_files(
    read: Sequence[str], langs: Sequence[str], roles: Sequence[str], *, output: Path | None, **others: Path | None
) -> None:
    """Raise CapivaraError for a file that could not be written once the work is done, or that would cost another one.

    Args:
        read: names of what is read.
        others: flag -> file that is asked for beside the results.
    """
    given = {flag: [path] for flag, path in others.items() if path is not None}
    if output is not None and str(output) != "-":
        named = [{"language": lang, "role": role} for role in roles for lang in langs]
        given["output"] = [_own_path(output, each, named) for each in named]
    seen: dict[Path, str] = {}
    for name, paths in given.items():
        flag = f"--{name.replace('_', '-')}"
        for path in paths:
            if path.is_dir():
                raise CapivaraError(f"{flag} {path} is a folder", f"{flag} {path}/FILE")
            if str(path) == "-":
                raise CapivaraError(f"{flag} -: standard output is for the results", f"{flag} FILE")
            if other := seen.get(path.resolve()):
                raise CapivaraError(f"{flag} and {other} are both {path}", "another name")
            seen[path.resolve()] = flag
            check_not_read(read, path)
            folder = path.absolute().parent
            artifacts.make_folder(folder)
            if not os.access(folder, os.W_OK):
                raise CapivaraError(f"cannot write {path}: no permission", f"{flag} elsewhere")


def write_results(results: Sequence[dict[str, Any]], output: Path | None) -> None:
    """One file a result, which is what `clip_benchmark build` reads; without -o, JSON lines into a pipe."""
    if output is None or str(output) == "-":
        if output is not None or not sys.stdout.isatty():
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
    stem = output.stem + (f".{re.sub(r'[^A-Za-z0-9_-]', '_', result['language'])}" if several else "")
    stem += ".baseline" if result["role"] == "baseline" else ""
    return output.with_name(stem + (output.suffix or ".json"))
