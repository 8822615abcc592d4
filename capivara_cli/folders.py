"""Folders that a command makes: which of them it may replace, and what it removes of them.

A folder that we make has a marker, a small hidden file that says of which kind it is. A folder with a marker is
replaced only by one of its kind, and only if every file in it is one that we wrote. A folder without one, as older
versions left them, is replaced only if it is exactly what we write, with our model card if the kind has one.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from capivara_cli import artifacts
from capivara_cli.errors import CapivaraError

MARKER = ".capivara.json"
SHOWN = 3  # foreign files that a message names
HINT = "-o FOLDER names another folder"


class FolderKind(NamedTuple):
    """What a folder is, and the files that we write into such a folder.

    Attributes:
        name: as messages have it: `run`.
        files: pattern of their paths, relative to the folder.
        required: files that a folder without a marker must have, so that it is not taken for one by chance.
        card: words that README.md, one of the required files, must have in a folder without a marker; "" if the names
            of the files are enough, because nobody else has the same ones.
        marked: sub-folders that have a marker too, whose files count as ours. Every other marker below the folder is
            that of a folder somebody put there, such as a merged model in the folder of its run.
    """

    name: str
    files: str
    required: tuple[str, ...]
    card: str = ""
    marked: tuple[str, ...] = ()


def mark(folder: Path, kind: FolderKind) -> None:
    """Write the marker, with the names of the files that are in the folder now; they count as ours too."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    artifacts.write_text(folder / MARKER, marker_text(kind, names))


def marker_text(kind: FolderKind, files: Iterable[str] = ()) -> str:
    """Return the content of a marker, with the names of files that are ours though `kind.files` does not match them."""
    return json.dumps({"kind": kind.name, "files": list(files)}, ensure_ascii=False) + "\n"


def check_replaceable(path: Path, kind: FolderKind, reads: Iterable[Path] = ()) -> None:
    """Raise CapivaraError unless the folder does not exist, is empty, or holds nothing but our files of this kind.

    The working folder, the home folder, and every folder above them or above what is read are always refused.

    Args:
        reads: files and folders that the command reads.
    """
    folder = Path(os.path.realpath(path))
    check_not_above(path, reads)
    if not folder.exists():
        return
    if not folder.is_dir():
        raise CapivaraError(f"{path} is not a folder", HINT)
    check_kind(path, kind)
    check_files(path, kind)
    if not (is_marked(folder, kind) or _is_like(folder, kind) or is_empty(folder)):
        raise CapivaraError(f"{path} is not replaced, because it is not a {kind.name} that capivara wrote", HINT)


def check_kind(path: Path, kind: FolderKind) -> None:
    """Raise CapivaraError for a folder whose marker is that of another kind."""
    other, _ = _read_marker(path)
    if other not in (None, kind.name):
        raise CapivaraError(f"{path} is a {other}, not a {kind.name}", HINT)


def is_marked(folder: Path, kind: FolderKind) -> bool:
    """Return whether the folder has the marker of this kind."""
    return _read_marker(folder)[0] == kind.name


def is_empty(folder: Path) -> bool:
    """Return whether a path is a folder with nothing in it. A marker alone is nothing: a killed process left it."""
    return folder.is_dir() and all(path.name == MARKER for path in folder.iterdir())


def check_files(path: Path, kind: FolderKind) -> None:
    """Raise CapivaraError for a file in the folder that is not ours."""
    foreign = [*itertools.islice(_foreign_files(Path(os.path.realpath(path)), kind), SHOWN + 1)]
    if foreign:
        more = " and others" if len(foreign) > SHOWN else ""
        raise CapivaraError(
            f"{path} is not replaced, because it has files that are not those of a {kind.name}:"
            f" {', '.join(foreign[:SHOWN])}{more}",
            HINT,
        )


def check_not_above(path: Path, reads: Iterable[Path] = ()) -> None:
    """Raise CapivaraError for a folder that no command may write as a whole: it is, or is above, one that is in use."""
    folder = Path(os.path.realpath(path))
    in_use = [(Path.cwd(), "the working folder"), (Path.home(), "your home folder")]
    for inner, words in [*in_use, *((read, f"{read}, which is read") for read in reads)]:
        inner = Path(os.path.realpath(inner))
        if folder == inner or folder in inner.parents:
            relation = "is" if folder == inner else "holds"
            raise CapivaraError(f"{path} is never replaced: it {relation} {words}", HINT)


def check_link(path: Path) -> None:
    """Raise CapivaraError if the path, or a folder above it, is a link to something that does not exist."""
    for link in (path, *path.parents):
        if link.is_symlink() and not link.exists():
            target = os.path.realpath(link)
            raise CapivaraError(
                f"{link} is a link to {target}, which does not exist", f"mkdir -p {shlex.quote(target)}"
            )


def remove(folder: Path, kind: FolderKind) -> None:
    """Remove our files, and then the folders that are empty. Whatever else has come into them meanwhile stays."""
    ours = {root / name for root, name, is_ours in _files(folder, kind) if is_ours}
    for path in ours:
        path.unlink(missing_ok=True)
    for root, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):  # not empty
            os.rmdir(root)


def _is_like(folder: Path, kind: FolderKind) -> bool:
    """Return whether a folder without a marker has what an older version always wrote."""
    if not all((folder / name).is_file() for name in kind.required):
        return False
    return not kind.card or kind.card in (folder / "README.md").read_text(encoding="utf-8", errors="replace")


def _foreign_files(folder: Path, kind: FolderKind) -> Iterator[str]:
    return (str((root / name).relative_to(folder)) for root, name, is_ours in _files(folder, kind) if not is_ours)


def _files(folder: Path, kind: FolderKind) -> Iterator[tuple[Path, str, bool]]:
    """Yield the folder and the name of each file, and whether it is ours. A link is a file, whatever it leads to."""
    marked = [folder, *(folder / name for name in kind.marked)]
    listed = {root / name for root in marked for name in (MARKER, *_read_marker(root)[1])}
    for name, folders, files in os.walk(folder):
        root = Path(name)
        folders.sort()  # the order that os.walk takes
        for file in [*sorted(files), *(name for name in folders if (root / name).is_symlink())]:
            relative = artifacts.without_temporary_names((root / file).relative_to(folder).as_posix())
            yield root, file, folder / relative in listed or re.fullmatch(kind.files, relative) is not None


def _read_marker(folder: Path) -> tuple[str | None, list[str]]:
    """Return the kind and the names in a folder's marker; None and none without a marker, or with a broken one."""
    marker = folder / MARKER
    with suppress(CapivaraError, TypeError, KeyError):
        if marker.is_file():
            content = artifacts.read_json(marker)
            return str(content["kind"]), [str(name) for name in content["files"]]
    return None, []
