from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from capivara_cli import locks

# Holds the lock, and has a child that lives longer, as the workers that load images do.
HOLDER = """
import os, sys, time
from pathlib import Path
from capivara_cli import locks
assert locks.acquire(Path(sys.argv[1])) is not None
child = os.fork()
if child:
    print(child, flush=True)
time.sleep(100)
"""


def test_a_lock_is_free_as_soon_as_its_process_is_killed_though_its_children_live(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        assert locks.acquire(tmp_path / "lock") is None
        holder.kill()
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
        lock = locks.acquire(tmp_path / "lock")
        os.kill(child, signal.SIGKILL)
        assert lock is not None
        lock.release()


def test_a_lock_is_held_until_it_is_released(tmp_path: Path) -> None:
    for path in (tmp_path / "file", tmp_path):
        lock = locks.acquire(path)
        assert lock is not None
        assert locks.acquire(path) is None
        lock.release()
        lock.release()
        again = locks.acquire(path)
        assert again is not None
        again.release()


def test_a_lock_knows_whether_its_file_was_replaced(tmp_path: Path) -> None:
    lock = locks.acquire(tmp_path / "file")
    assert lock is not None
    assert lock.is_on(tmp_path / "file")
    (tmp_path / "file").unlink()
    assert not lock.is_on(tmp_path / "file")
    (tmp_path / "file").touch()
    assert not lock.is_on(tmp_path / "file")
    lock.release()
