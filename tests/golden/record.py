"""`make golden`, `make golden CASES="A B"`: record what the commands write now, and show what differs from before."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from subprocess import CompletedProcess

from tests.forks import Forks
from tests.golden import runner
from tests.golden.cases import CASES
from tests.golden.inputs import write_inputs


def main(names: list[str]) -> None:
    """Record the cases of these names, or all; then what was recorded for cases that no longer exist is removed."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        write_inputs(folder / "inputs")
        (folder / "forks").mkdir()
        forks = Forks(folder / "forks")

        def capivara(*arguments: str, cwd: Path, env: dict[str, str]) -> CompletedProcess[str]:
            return forks.run(arguments, cwd, env=env)

        for name in names or CASES:
            before = runner.read(name) if (runner.EXPECTED / name).is_dir() else {}
            written = runner.run(CASES[name], folder / "inputs", folder / name, capivara)
            different = list(runner.differences(before, written))
            print(name, *(different or ["as before"]), sep="\n    ", flush=True)
            runner.write(name, written)
        forks.close()
    if not names:
        for old in runner.EXPECTED.iterdir():
            if old.name not in CASES:
                shutil.rmtree(old)


if __name__ == "__main__":
    main(sys.argv[1:])
