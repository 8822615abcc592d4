"""What the tests of `capivara export` share."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from capivara_cli.exporting.export import export
from capivara_cli.exporting.options import ExportOptions, Format
from capivara_cli.importing.import_data import import_data
from capivara_cli.importing.options import ImportOptions
from tests.helpers import odd_records, read_jsonl, write_jsonl

ODD = odd_records("images/1.png", "images/2.jpg", "images/3.webp")


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Three odd records, and a hundred plain ones."""
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    for record in ODD:
        Image.new("RGB", (9, 8), (10, 20, 30)).save(str(record["image"]))
    plain = [
        {"id": f"p{n}", "image": "images/2.jpg", "captions": [{"text": f"text {n}", "lang": "en"}], "label": str(n % 3)}
        for n in range(100)
    ]
    return write("in.jsonl", [*ODD, *plain])


def write(name: str, records: list[dict[str, Any]]) -> str:
    return str(write_jsonl(Path(name), records))


def run(format: Format, source: str, output: str, **flags: Any) -> None:
    export(format, source, output, ExportOptions(**flags))


def imported(name: str, **flags: Any) -> list[dict[str, Any]]:
    """The records that `import` makes of a file or a folder."""
    import_data([name], "back.jsonl", ImportOptions(overwrite=True, **flags))
    return read_jsonl(Path("back.jsonl"))


def answer(script: str) -> dict[str, Any]:
    """What a script prints last, as JSON. Other tools' readers leave files open, so they run in another process."""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    printed: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return printed
