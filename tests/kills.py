"""Kill a command at many moments, again and again: its output must be byte for byte that of an undisturbed run.

With --overwrite, the file that existed stays until the new one is whole.
"""

from __future__ import annotations

from pathlib import Path

from tests.forks import Forks

LOOP = """
import os, random, shutil, signal, time

# A fork of this fork for each run.
def start(output, **options):
    child = os.fork()
    if not child:
        run(output, **options)
        os._exit(0)
    return child

def remove_killed():
    for path in folder.glob("killed*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    left = [*folder.glob("*partial*"), *folder.glob(".*")]
    assert not left, left

started = time.monotonic()
assert os.waitpid(start(folder / "whole.jsonl"), 0)[1] == 0
seconds = time.monotonic() - started
rng = random.Random(0)
# In each part of a run once, and in no order, because a run resumes where the one before it was killed.
moments = [0.1 + 0.7 * (part + rng.random()) / wanted for part in rng.sample(range(wanted), wanted)]
kills = finished = 0
interrupted = True
while kills < wanted or interrupted:  # the last one is not killed: it removes what the killed ones left
    child = start(folder / "killed.jsonl")
    if kills < wanted:
        time.sleep(moments[kills] * seconds)
        done, _ = os.waitpid(child, os.WNOHANG)
    else:
        done, _ = os.waitpid(child, 0)
    if not done:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills += 1
        interrupted = True
        # The output may be complete nevertheless, if the kill came after the last step.
        if not (folder / "killed.jsonl").exists() or list(folder.glob("killed.jsonl.partial*")):
            continue
    finished += 1
    interrupted = False
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


def survive(
    forks: Forks, setup: str, folder: Path, *arguments: str | Path, kills: int = 12, overwriting: int = 4
) -> None:
    """Kill a command this often, and compare its output with that of an undisturbed run.

    Args:
        forks: where the command runs.
        setup: Python code that defines `run(output, overwrite=False)`. It sees `folder`, a Path, and the arguments in
            `sys.argv[2:]`. The names of its other files must start with `output.stem`: they are removed.
        folder: folder of the outputs; is created.
        arguments: of the code.
        kills: how often.
        overwriting: how often also with --overwrite.
    """
    folder.mkdir()
    head = f"import sys\nfrom pathlib import Path\nwanted, overwriting = {kills}, {overwriting}\n"
    code = f"{head}folder = Path(sys.argv[1])\n{setup}{LOOP}"
    result = forks.run([folder, *arguments], folder, code=code)
    assert result.returncode == 0, result.stderr
    killed, finished = map(int, result.stdout.split()[-2:])
    assert killed >= kills
    assert finished >= 1
