"""Rates of `capivara import`, and its memory.

    python benchmarks/importing.py [--rows 1000000]

A table with one caption per row and two rows per image, COCO's JSON with as many annotations in no order, and a shard.
Of the images, only their existence is checked.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import machine
from PIL import Image

RUN = """
import sys, time
from pathlib import Path
from capivara_cli import ImportOptions, import_data

started = time.perf_counter()
import_data([sys.argv[1]], sys.argv[2], ImportOptions(images=Path(sys.argv[3]) if sys.argv[3] else None))
seconds = time.perf_counter() - started
print(seconds, next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def measure(source: Path, images: Path | None) -> tuple[float, float, float]:
    """Seconds, MB of peak memory, and MB of the source; in a process of its own."""
    line = [sys.executable, "-c", RUN, str(source), str(source.with_suffix(".out")), str(images or "")]
    result = subprocess.run(line, capture_output=True, text=True, check=True)
    seconds, memory = result.stdout.split()[-2:]
    return float(seconds), float(memory) / 1024, source.stat().st_size / 1e6


def place(number: int) -> str:
    """A thousand images in a folder."""
    return f"{number // 1000}/{number}.jpg"


def make_images(folder: Path, count: int, picture: bytes) -> None:
    """So many names; those in a folder are of one file."""
    for number in range(count):
        path = folder / place(number)
        if number % 1000:
            os.link(folder / place(number // 1000 * 1000), path)
        else:
            path.parent.mkdir()
            path.write_bytes(picture)


def table(path: Path, rows: int) -> Path:
    """One caption per row; the two captions of an image follow each other."""
    with path.open("w") as file:
        file.write("filepath\ttitle\n")
        file.writelines(f"{place(n // 2)}\ta photograph of number {n} with something beside it\n" for n in range(rows))
    return path


def coco(path: Path, rows: int) -> Path:
    """COCO's captions: the images first, then the annotations in no order."""
    with path.open("w") as file:
        file.write('{"info": {}, "images": [')
        file.write(",".join(json.dumps({"id": n, "file_name": place(n)}) for n in range(rows // 2)))
        file.write('], "annotations": [')
        for n in range(rows):
            text = f"a photograph of number {n} with something beside it"
            found = {"image_id": n * 7919 % (rows // 2), "id": n, "caption": text}
            file.write(("," if n else "") + json.dumps(found))
        file.write("]}")
    return path


def shard(path: Path, samples: int, picture: bytes) -> Path:
    """Image, text and JSON."""
    with tarfile.open(path, "w") as archive:
        for n in range(samples):
            for ending, content in (("jpg", picture), ("txt", b"a photograph"), ("json", b'{"width": 500}')):
                info = tarfile.TarInfo(f"{n:09d}.{ending}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    print(machine.describe())
    print("| source | seconds | rows/s | MB/s | peak memory |")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["CAPIVARA_CACHE"] = str(folder / "cache")
        buffer = io.BytesIO()
        Image.effect_noise((500, 375), 60).convert("RGB").save(buffer, "JPEG")
        make_images(folder, rows // 2, buffer.getvalue())
        for what, source, images, count in (
            (f"TSV, {rows // 10:,} captions", table(folder / "tenth.tsv", rows // 10), folder, rows // 10),
            (f"TSV, {rows:,} captions", table(folder / "whole.tsv", rows), folder, rows),
            (f"COCO's JSON, {rows:,} captions", coco(folder / "coco.json", rows), folder, rows),
            (
                f"a shard of {rows // 50:,} images",
                shard(folder / "0.tar", rows // 50, buffer.getvalue()),
                None,
                rows // 50,
            ),
        ):
            seconds, memory, size = measure(source, images)
            print(
                f"| {what} | {seconds:.1f} | {count / seconds:,.0f} | {size / seconds:.0f} | {memory:.0f} MB |",
                flush=True,
            )


if __name__ == "__main__":
    main()
