"""Locks that die with their process, and not with its children."""

from __future__ import annotations

import os
from pathlib import Path

_held: set[int] = set()
"""File descriptors of the locks of this process. Nothing else knows them, so a child may close them."""


def _release_in_child() -> None:
    # A lock belongs to an open file, which a forked child shares. The child would keep the lock when this process is
    # killed: loader workers outlive it by some seconds.
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):  # Windows has neither forks nor these locks
    os.register_at_fork(after_in_child=_release_in_child)


class Lock:
    """The lock on a file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def is_on(self, path: Path) -> bool:
        """Return whether this is still the file of that name: who held the lock before may have removed it."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Give the lock back; more than once is once."""
        if self._descriptor in _held:
            _held.remove(self._descriptor)
            os.close(self._descriptor)


def acquire(path: Path) -> Lock | None:
    """Lock a file or a folder; a file is made if it does not exist. Return None if another process has locked it.

    Where the file system has no locks, as some network drives, the lock is no protection. Raises OSError.
    """
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, flags, 0o666)
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except (ImportError, OSError):  # ImportError: Windows has no such locks
        pass
    _held.add(descriptor)
    return Lock(descriptor)
