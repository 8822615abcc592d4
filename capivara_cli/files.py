"""Files that a command writes: which of them it may replace, and which are not files but streams.

One rule for all commands: a file that exists is refused; with `--overwrite` a file is replaced if it is one that this
command writes, recognised by its content. What cannot be recognised is never replaced. A device or a named pipe is
written to directly, and never replaced.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from capivara_cli.errors import CapivaraError, explained

HEAD = 64 << 10  # bytes at the start of a file that say what it is
FIRST_LINE = 16 << 20  # bytes to read at most when the first line is longer than that: a record with many captions
STANDARD_STREAMS = ("/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/self/fd/")


class Kind(NamedTuple):
    """What a command writes.

    Attributes:
        name: for messages: `a file of records`.
        matches: the first bytes of a file -> whether it is of this kind.
    """

    name: str
    matches: Callable[[bytes], bool]


def _first_record(head: bytes) -> dict[str, Any]:
    """Return the JSON object that is the whole first line; {} if it is anything else, such as an indented JSON file."""
    line, end, _ = head.partition(b"\n")
    with suppress(ValueError, RecursionError):
        value = json.loads(line)
        if end and isinstance(value, dict):  # we end every line; other programs' JSON in one line has often no end
            return value
    return {}


def _is_record(record: dict[str, Any]) -> bool:
    return "id" in record and isinstance(record.get("image") or record.get("file_name"), str)


def _is_rejected(record: dict[str, Any]) -> bool:
    """Return whether it is a rejected record, or a rejected part of one, which has a text instead of an image."""
    return isinstance(record.get("rejected"), str) and (_is_record(record) or {"id", "text"} <= record.keys())


RECORDS = Kind("a file of records", lambda head: _is_record(_first_record(head)))
REJECTED = Kind("a file of rejected records", lambda head: _is_rejected(_first_record(head)))
RESULT = Kind("a result file", lambda head: head.startswith(b'{\n  "dataset": ') and b'"task": "zeroshot_' in head)
QUERIES = Kind("a file of ranks or predictions", lambda head: head.startswith(b'{"role": '))
PER_CLASS = Kind("a table of classes", lambda head: head.startswith(b"role,lang,label,name,"))
PLOT = Kind("a plot of scores", lambda head: head.startswith(b"\x89PNG") and b"Software\0capivara score" in head)
TABLE = Kind("a table of captions", lambda head: head.startswith((b"filepath,title,", b"filepath\ttitle\t")))
NEVER = Kind("recognisable: a text or a class file does not say who wrote it", lambda _: False)
"""Texts of captions, and class files: only an empty one is replaced."""


def is_stream(path: Path) -> bool:
    """Return whether it is standard output, another character device, or a named pipe."""
    if str(path).startswith(STANDARD_STREAMS):
        return True  # also where the shell has sent it to a file: the file is the shell's
    with suppress(OSError):
        mode = path.stat().st_mode
        return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)
    return False


def check_writable(path: Path, kind: Kind, *, overwrite: bool, flag: str = "-o") -> None:
    """Raise CapivaraError for a file that must not be replaced, or that cannot be written once the work is done.

    Args:
        flag: that names the file, for messages.
    """
    if is_stream(path):
        return
    with explained(f"{flag} {path}"):
        _check_place(path, flag)
        with suppress(FileNotFoundError):
            path.stat()  # raises for a name that is too long, or a link that leads to itself
            _check_replaceable(path, kind, flag, overwrite=overwrite)


def refuse_folder(path: Path, flag: str = "-o") -> None:
    """Raise CapivaraError for a folder, where a file is to be named."""
    if path.is_dir():
        raise CapivaraError(f"{flag} {path} is a folder", f"{flag} {path / 'FILE'}")


def _check_place(path: Path, flag: str) -> None:
    refuse_folder(path, flag)
    folder = next(folder for folder in path.absolute().parents if folder.exists())  # the others will be made
    if not folder.is_dir():
        raise CapivaraError(f"cannot write {path}: {folder} is not a folder", f"{flag} in another folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CapivaraError(f"cannot write {path}: no permission", f"{flag} in another folder")


def _check_replaceable(path: Path, kind: Kind, flag: str, *, overwrite: bool) -> None:
    if not path.is_file():
        raise CapivaraError(f"{flag} {path} is not a file", f"{flag} another file")
    with path.open("rb") as file:
        head = file.read(HEAD)
        head += b"" if b"\n" in head else file.readline(FIRST_LINE)
    is_ours = not head or kind.matches(head)
    if not overwrite:
        hint = "--overwrite replaces it" if is_ours else f"{flag} another file"
        raise CapivaraError(f"{path} already exists", hint)
    if not is_ours:
        raise CapivaraError(f"{path} is not replaced, because it is not {kind.name}", f"{flag} another file")
