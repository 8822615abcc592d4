"""Kill a command at random moments, again and again: its output must be byte for byte that of an undisturbed run.

With --overwrite, the file that existed stays until the new one is whole.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LOOP = """
import os, random, shutil, signal, time

# Import everything once, and fork for each run; torch must not have computed anything before.
def start(output, **options):
    child = os.fork()
    if not child:
        run(output, **options)
        os._exit(0)
    return child

def remove_killed():
    for path in folder.glob("killed*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert not list(folder.glob("*partial*")) and not list(folder.glob(".*"))

started = time.monotonic()
assert os.waitpid(start(folder / "whole.jsonl"), 0)[1] == 0
seconds = time.monotonic() - started
rng = random.Random(0)
kills = finished = 0
while kills < wanted or not finished:
    child = start(folder / "killed.jsonl")
    if kills < wanted:
        time.sleep(rng.uniform(0.1, 0.8) * seconds)
        done, _ = os.waitpid(child, os.WNOHANG)
    else:
        done, _ = os.waitpid(child, 0)
    if not done:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills += 1
        # The output may be complete nevertheless, if the kill came after the last step.
        if not (folder / "killed.jsonl").exists() or list(folder.glob("killed.jsonl.partial*")):
            continue
    finished += 1
    for name in ("", ".rejected.jsonl"):
        whole, killed = folder / f"whole.jsonl{name}", folder / f"killed.jsonl{name}"
        assert killed.is_file() == whole.is_file()
        assert not whole.is_file() or killed.read_bytes() == whole.read_bytes()
    remove_killed()

whole, killed = folder / "whole.jsonl", folder / "killed.jsonl"
old = whole.read_bytes() + b"\\n"  # other bytes of the same kind: no other file is replaced
for last in [False] * overwriting + [True] * (overwriting > 0):
    if not killed.exists():
        killed.write_bytes(old)
    child = start(killed, overwrite=True)
    if not last:
        time.sleep(rng.uniform(0.1, 1) * seconds)
        os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == 0 or not last
    content = killed.read_bytes()
    assert content == whole.read_bytes() or (content == old and not last), content[:80]
    if content != old:
        kept = list(folder.glob("killed.jsonl.partial*"))
        assert not last or not kept, kept
        killed.write_bytes(old)
killed.unlink(missing_ok=True)
remove_killed()
print(kills, finished)
"""


def survive(setup: str, folder: Path, *arguments: str | Path, kills: int = 20, overwriting: int = 4) -> None:
    """Kill a command this often, and compare its output with that of an undisturbed run.

    Args:
        setup: Python code that imports what is needed and defines `run(output, overwrite=False)`. It sees `folder`, a
            Path, and the arguments in `sys.argv[2:]`. The names of its other files must start with `output.stem`: they
            are removed.
        folder: folder of the outputs; is created.
        arguments: of the code.
        kills: how often.
        overwriting: how often also with --overwrite.
    """
    folder.mkdir()
    head = f"import sys\nfrom pathlib import Path\nwanted, overwriting = {kills}, {overwriting}\n"
    script = folder.with_name(f"{folder.name}-kills.py")
    script.write_text(f"{head}folder = Path(sys.argv[1])\n{setup}{LOOP}")
    line = [sys.executable, str(script), str(folder), *map(str, arguments)]
    result = subprocess.run(line, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stderr
    killed, finished = map(int, result.stdout.split()[-2:])
    assert killed >= kills
    assert finished >= 1
