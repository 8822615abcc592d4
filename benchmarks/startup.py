"""How long a person waits for an answer that needs no model, beside what importing open_clip alone takes.

python benchmarks/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import machine

RUNS = 7
LINES = {
    "capivara --help": ["-m", "capivara_cli", "--help"],
    "capivara train --help": ["-m", "capivara_cli", "train", "--help"],
    "a mistyped flag": ["-m", "capivara_cli", "train", "--lnag", "hi"],
    "a missing file": ["-m", "capivara_cli", "train", "--lang", "hi", "--lora", "--data", "missing.jsonl"],
    "python -c 'import open_clip'": ["-c", "import open_clip"],
}


def seconds(arguments: list[str]) -> float:
    """Median of some runs, after one that warms the file cache."""
    times = []
    for _ in range(RUNS + 1):
        started = time.perf_counter()
        subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def main() -> None:
    """Print the table."""
    print(machine.describe())
    for name, arguments in LINES.items():
        print(f"| {name} | {seconds(arguments):.2f} s |", flush=True)


if __name__ == "__main__":
    main()
