"""Warnings: ours are errors; what other packages deprecate is listed in tests, and never shown to a user."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"

LISTED = [("DeprecationWarning", "torch.nn"), ("FutureWarning", "transformers"), ("PendingDeprecationWarning", "peft")]
ERRORS = [
    ("DeprecationWarning", "capivara_cli.models.clip"),
    ("FutureWarning", "capivara_cli.commands"),
    ("PendingDeprecationWarning", "tests.test_golden"),
    ("UserWarning", "torch.nn"),
    ("ResourceWarning", "zipfile"),
]

TESTS = """
import builtins, pytest, warnings

@pytest.mark.parametrize(("category", "module"), %s)
def test(category, module):
    warnings.warn_explicit("old", getattr(builtins, category), "file.py", 1, module)
"""

# A command that calls packages, which warn.
COMMAND = """
import sys, warnings
from capivara_cli.commands import app, main

@app.command()
def call() -> None:
    warnings.warn_explicit("ours", FutureWarning, "file.py", 1, "capivara_cli.models.clip")
    warnings.warn_explicit("theirs", FutureWarning, "file.py", 1, "transformers.models.opt")
    warnings.warn_explicit("in main", DeprecationWarning, "file.py", 1, "__main__")
    warnings.warn_explicit("important", UserWarning, "file.py", 1, "torch.nn")

sys.argv = ["capivara", "call", *sys.argv[1:]]
main()
"""


@pytest.mark.parametrize(("options", "listed"), [([], LISTED), (["-W", "error"], [])])  # as in `make test-newest`
def test_what_a_package_deprecates_is_listed_and_every_other_warning_fails(
    options: list[str], listed: list[tuple[str, str]], tmp_path: Path
) -> None:
    (tmp_path / "test_one.py").write_text(TESTS % (LISTED + ERRORS))
    line = [sys.executable, "-m", "pytest", "-c", str(PYPROJECT), "--rootdir", str(tmp_path), "-n0", "-rpf", *options]
    result = subprocess.run(
        [*line, "-p", "no:cacheprovider", "test_one.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    passed, failed = (re.findall(rf"^{word} .*\[(.*?)\]", result.stdout, re.M) for word in ("PASSED", "FAILED"))
    assert passed == ["-".join(warning) for warning in listed]
    assert failed == ["-".join(warning) for warning in LISTED + ERRORS if warning not in listed]
    assert len(re.findall("file.py:1: .*: old", result.stdout.partition("warnings summary")[2])) == len(listed)


@pytest.mark.parametrize(("flags", "shown"), [([], []), (["--debug"], ["ours", "theirs", "in main"])])
def test_a_user_sees_no_deprecation_without_debug(flags: list[str], shown: list[str]) -> None:
    line = [sys.executable, "-c", COMMAND, *flags]
    result = subprocess.run(line, capture_output=True, text=True, check=True)
    assert re.findall(r"Warning: (.*)", result.stderr) == [*shown, "important"]
