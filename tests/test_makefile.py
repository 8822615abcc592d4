"""The targets of the Makefile are a chain: each reads what the one before it writes."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[1] / "Makefile"
TARGETS = ["caption", "translate", "score", "train", "merge", "retrieve-eval"]


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make with the environment that runs the tests as the installed one."""
    line = ["make", "-C", str(folder), "-f", str(MAKEFILE), f"VENV={sys.prefix}", "-o", f"{sys.prefix}/.installed"]
    return subprocess.run([*line, *arguments], capture_output=True, text=True, check=False)


def words(folder: Path, target: str, *variables: str) -> list[str]:
    """Return the words of the capivara command that a target runs."""
    result = make(folder, "--dry-run", target, *variables)
    assert result.returncode == 0, result.stderr
    [line] = [line for line in result.stdout.splitlines() if line.startswith(f"{sys.prefix}/bin/capivara")]
    return [word.removeprefix("local-dir:") for word in shlex.split(line)]


@pytest.mark.parametrize("variables", [(), ("LANGUAGE=pt", "RUN=runs/x"), ("CAPTIONS=c", "TRANSLATED=t", "DATA=d")])
def test_each_target_reads_what_the_one_before_it_writes(tmp_path: Path, variables: tuple[str, ...]) -> None:
    lines = [words(tmp_path, target, *variables) for target in TARGETS]
    written = [line[line.index("-o") + 1] for line in lines]
    for output, reader in zip(written[:-1], lines[1:], strict=True):
        assert output in reader[: reader.index("-o")]
    assert written[2] in words(tmp_path, "export", *variables)
    assert written[0] in words(tmp_path, "import", *variables)


@pytest.mark.parametrize("target", ["import", *TARGETS, "export"])
def test_a_target_says_what_it_needs(target: str, tmp_path: Path) -> None:
    result = make(tmp_path, target)
    assert result.returncode == 2
    assert result.stderr.startswith(f"{target} needs ")
    assert not any(tmp_path.iterdir())
