"""`python -m tests.mutants MODULE`: change small things in a module, one by one, and show which no test notices.

cosmic-ray makes the changes, in the file itself, and takes them back. A change that survives is either one that does
not change what the module does, or a test that is missing.
"""

from __future__ import annotations

import argparse
import ast
import random
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cosmic_ray.commands import init
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.work_db import use_db
from cosmic_ray.work_item import TestOutcome

Position = tuple[int, int]  # line, counted from 1, and column, from 0


def main() -> None:
    """Run the tests once for each of the changes."""
    arguments = _arguments()
    module: Path = arguments.module
    if subprocess.run(["git", "diff", "--quiet", "--", module], check=False).returncode:
        sys.exit(f"{module} has changes that are not committed; a run that is killed would leave another one there")
    tests = arguments.tests or _tests_of(module)
    command = f"{shlex.quote(sys.executable)} -m pytest -q -x -n0 -p no:cacheprovider {tests}"
    started = time.monotonic()
    if subprocess.run(shlex.split(command), check=False).returncode:
        sys.exit("the tests fail without any change")
    timeout = 3 * (time.monotonic() - started) + 30  # seconds; a change may make a loop that never ends
    survived = []
    mutants = _sample(module, arguments.sample, arguments.seed)
    for number, mutant in enumerate(mutants, start=1):
        result = mutate_and_test(mutant.mutations, command, timeout)
        print(f"{number}/{len(mutants)} line {_start(mutant)[0]}: {result.test_outcome.value}", flush=True)
        if result.test_outcome == TestOutcome.SURVIVED:
            survived.append(result.diff)
    print(*survived, f"{module}: {len(mutants) - len(survived)} of {len(mutants)} were noticed by {tests}", sep="\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("module", type=Path, help="file to change, for example capivara_cli/metrics/retrieval.py")
    parser.add_argument("--sample", type=int, default=25, help="number of changes")
    parser.add_argument("--tests", help="files or folders for pytest [default: those that mirror the module]")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample")
    return parser.parse_args()


def _tests_of(module: Path) -> str:
    """Return the folder of tests of the module's room, or the test file of a module of the floor."""
    room = Path("tests", *module.parent.parts[1:])
    return str(room if room != Path("tests") else room / f"test_{module.name}")


def _sample(module: Path, size: int, seed: int) -> list[Any]:
    """Draw changes, at most one per place in the file, from all that can be made outside of type annotations."""
    with tempfile.TemporaryDirectory() as folder, use_db(Path(folder) / "session.sqlite") as database:
        init([module], database, {})
        mutants = list(database.work_items)
    annotations = [*_annotations(ast.parse(module.read_text(encoding="utf-8")))]
    mutants = [item for item in mutants if not any(start <= _start(item) < end for start, end in annotations)]
    # Their ids, and so their order in the database, are random.
    mutants.sort(key=lambda item: (_start(item), item.mutations[0].operator_name, item.mutations[0].occurrence))
    random.Random(seed).shuffle(mutants)
    by_place = {_start(item): item for item in mutants}
    return sorted(list(by_place.values())[:size], key=_start)


def _start(mutant: Any) -> Position:
    line, column = mutant.mutations[0].start_pos
    return line, column


def _annotations(tree: ast.AST) -> Iterator[tuple[Position, Position]]:
    """Yield where annotations start and end: they are never evaluated, so a change in one changes nothing."""
    for node in ast.walk(tree):
        for name in ("annotation", "returns"):
            part = getattr(node, name, None)
            if part is not None:
                yield (part.lineno, part.col_offset), (part.end_lineno, part.end_col_offset)


if __name__ == "__main__":
    main()
