"""Small files in foreign formats, and what `import` makes of them in the working folder."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from capivara_cli.importing.import_data import import_data
from capivara_cli.importing.options import ImportOptions


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with ten images in `images/`."""
    monkeypatch.chdir(tmp_path)
    for number in range(10):
        picture(tmp_path / "images" / f"{number}.png", number)
    return tmp_path


def picture(path: Path | str, shade: int = 0) -> bytes:
    """Write an image, and return its bytes."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8 + shade % 5, 9), (shade, 0, 0)).save(path)
    return path.read_bytes()


def table(name: str, *rows: list[str], delimiter: str = ",") -> str:
    with Path(name).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return name


def json_lines(name: str, *values: object) -> str:
    Path(name).write_text("".join(f"{json.dumps(value)}\n" for value in values))
    return name


def shard(name: str, *samples: dict[str, Any]) -> str:
    """Write samples by the library that owns the format."""
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(name, mtime=0) as writer:
        for sample in samples:
            writer.write(sample)
    return name


def read_lines(path: Path | str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def imported(*sources: str, **options: Any) -> list[dict[str, Any]]:
    """Import sources to `out.jsonl`, and return the records."""
    import_data(sources, "out.jsonl", ImportOptions(overwrite=True, **options))
    return read_lines("out.jsonl")


def rejected() -> dict[str, str]:
    """Return id -> reason of what was rejected in the last import."""
    return {record["id"]: record["rejected"] for record in read_lines("out.jsonl.rejected.jsonl")}


def texts(record: dict[str, Any], lang: str = "en") -> list[str]:
    return [caption["text"] for caption in record.get("captions", []) if caption["lang"] == lang]
