"""Files that appear whole or not at all (safetensors, JSON, text), and fingerprints of files and values."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capivara_cli.errors import CapivaraError, explained
from capivara_cli.files import is_stream

if TYPE_CHECKING:
    from torch import Tensor

NO_ROOM = "free some space, or write elsewhere: -o, and $CAPIVARA_CACHE for the cache"

MODEL_FILES = {".bin", ".json", ".model", ".pt", ".pth", ".safetensors", ".txt"}
SAMPLES, SAMPLE_BYTES = 256, 4096  # of a model's file, for its identity


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to, and rename it to `path` when the block succeeds.

    Works for a file and for a folder; an existing file or folder is replaced. A killed process leaves at most a
    temporary file behind, never half of `path`; the next process that writes `path` removes it. A device or a named
    pipe gets the content once it is complete. Raises CapivaraError when the disk is full or writing is not permitted.
    """
    if is_stream(path):
        with _writing_stream(path) as temporary:
            yield temporary
        return
    target = Path(os.path.realpath(path))  # of a link to a folder, the folder is replaced and the link stays
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(target)
        yield temporary
        _sync(temporary)
        swap_in(temporary, target)
    except BaseException as error:
        _remove(temporary)
        if reason := _write_failure(error):
            raise CapivaraError(f"cannot write {path}: {reason}", NO_ROOM) from error
        if isinstance(error, CapivaraError):  # about a file in this folder: name it as the user does
            error.message = error.message.replace(str(temporary), str(path))
        raise


@contextmanager
def _writing_stream(path: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="capivara-") as folder:
        temporary = Path(folder, path.name)
        yield temporary
        # "ab": /dev/stdout may be a file to which the shell appends; "wb" would empty it.
        with explained(f"cannot write {path}"), temporary.open("rb") as file, path.open("ab") as stream:
            shutil.copyfileobj(file, stream)


def _sync(path: Path) -> None:
    """Wait until a file, or each file in a folder, is on the disk: a power cut must not leave it empty once renamed."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            with file.open("r+b" if os.name == "nt" else "rb") as opened:
                os.fsync(opened.fileno())


def swap_in(temporary: Path, path: Path) -> None:
    """Rename a file or folder to `path`, replacing an existing one of the same kind. Raises OSError."""
    if path.exists() and temporary.exists() and path.is_dir() != temporary.is_dir():
        number = errno.EISDIR if path.is_dir() else errno.ENOTDIR  # never replace a folder by a file, or a file by one
        raise OSError(number, os.strerror(number))
    if not path.is_dir():
        os.replace(temporary, path)
        return
    shutil.rmtree(put_in_place(temporary, path))


def put_in_place(temporary: Path, path: Path) -> Path:
    """Rename a folder to the path of another folder, and return where that one is now. Raises OSError.

    The one at `path` is never lost, whenever the process is killed: both are exchanged in one step, or, where the
    system cannot do that, `remove_stale` puts it back.
    """
    if _exchange(temporary, path):
        return temporary
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    os.replace(path, old)
    try:
        os.replace(temporary, path)
    except OSError:
        os.replace(old, path)
        raise
    return old


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two paths in one step. Return whether the system can do that: Linux, on most file systems."""
    if sys.platform != "linux":
        return False
    import ctypes

    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)  # the C library has it since 2018
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return renameat2 is not None and renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


_TEMPORARY = r"\.([^/]+)\.(\d+)\.(tmp|old)"  # name, process


def without_temporary_names(path: str) -> str:
    """`adapter/.a.json.17.tmp` -> `adapter/a.json`: the path that a temporary file of `writing` is to become."""
    return "/".join(re.sub(rf"^{_TEMPORARY}$", r"\1", part) for part in path.split("/"))


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files left by a killed process from a folder that only this process writes."""
    remove_stale_in(folder, all_processes=True)


def remove_stale(path: Path) -> None:
    """Remove what dead processes left that were `writing` this path; put back what one had moved away to replace it."""
    target = Path(os.path.realpath(path))
    remove_stale_in(target.parent, glob.escape(target.name))


def remove_stale_in(folder: Path, name: str = "*", *, all_processes: bool = False) -> None:
    """Do what `remove_stale` does, for all paths in a folder.

    Args:
        name: a pattern that the paths' names match.
        all_processes: whether no process can be `writing` there, so that a process of the same number is another one.
            This process is not: its number may be that of a dead one, as in a container, where numbers repeat.
    """
    for path in [*folder.glob(f".{name}.*.tmp"), *folder.glob(f".{name}.*.old")]:
        match = re.fullmatch(_TEMPORARY, path.name)
        if match is None or not (all_processes or int(match[2]) == os.getpid() or not _is_running(int(match[2]))):
            continue
        if match[3] == "old" and not (folder / match[1]).exists():
            with suppress(FileNotFoundError):  # another rank was faster
                os.replace(path, folder / match[1])
        else:
            _remove(path)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)  # signal 0 only checks
    except ProcessLookupError:
        return False
    except OSError:  # not permitted: it is another user's
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # the user must see the first error, not this one
            path.unlink(missing_ok=True)


def _write_failure(error: BaseException) -> str | None:
    """Return the system's reason if a write failed: in Python, or in safetensors or tokenizers (in Rust)."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error) if "(os error " in str(error) else None


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file. Raises CapivaraError if that fails."""
    from safetensors.torch import save_file

    separate: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        storage = value.untyped_storage()
        # safetensors refuses tied weights and views: copy a tensor that shares its memory.
        if storage.data_ptr() in storages or storage.nbytes() > value.numel() * value.element_size():
            value = value.clone()
        storages.add(value.untyped_storage().data_ptr())
        separate[name] = value
    with writing(path) as temporary:
        save_file(separate, temporary, metadata=metadata)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file. Raises CapivaraError if it is missing or truncated."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.exists() and not path.is_file():
        raise CapivaraError(f"{path} is not a regular file")
    with explained(f"cannot read {path}", (OSError, SafetensorError)):
        return load_file(path)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file, whole or not at all."""
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def make_folder(folder: Path) -> None:
    """Create a folder and its parents. Raises CapivaraError if that fails."""
    with explained(f"cannot make the folder {folder}", hint=NO_ROOM):
        folder.mkdir(parents=True, exist_ok=True)


def append_line(path: Path, line: str) -> None:
    """Append a line to a UTF-8 text file. Raises CapivaraError if that fails."""
    with explained(f"cannot write {path}", hint=NO_ROOM), path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file with indentation. Raises ValueError for NaN, which is not JSON."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises CapivaraError with the file, line and column if it is not JSON."""
    with explained(f"cannot read {path}"), explained(f"{path} is not JSON", (ValueError, RecursionError)):
        return json.loads(path.read_text(encoding="utf-8"))


def fingerprint(*parts: object) -> str:
    """Return 32 hex digits that change whenever one of the parts does. Parts are compared as sorted JSON."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def fingerprint_tensors(tensors: dict[str, Tensor]) -> str:
    """Return 32 hex digits of names, shapes, dtypes and exact values. Takes about a second per GB."""
    import torch

    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def files_identity(*paths: Path) -> str | None:
    """Return 32 hex digits that change when a model's files do, from their names, sizes and samples of their bytes.

    None if none of the paths exists. A fine-tuned model has its base's sizes, and may differ in only a twentieth of its
    bytes, so there are many samples. Reading everything would take longer than loading the model.
    """
    existing = [path for path in paths if path.exists()]
    parts = []
    for path in existing:
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            if file.is_file() and file.suffix in MODEL_FILES:
                parts.append([str(file.relative_to(path)), file.stat().st_size, _sample_digest(file)])
    return fingerprint(parts) if existing else None


def _sample_digest(path: Path) -> str:
    """Return the digest of samples all over the file; of all bytes if the file is small."""
    digest = hashlib.blake2b(digest_size=16)
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= SAMPLES * SAMPLE_BYTES:
            digest.update(file.read())
        else:
            for index in range(SAMPLES):
                file.seek((size - SAMPLE_BYTES) * index // (SAMPLES - 1))
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


def cache_folder() -> Path:
    """Return the folder for files that can be computed again: $CAPIVARA_CACHE, or the system's cache folder."""
    import platformdirs

    folder = os.environ.get("CAPIVARA_CACHE")
    return Path(folder) if folder else Path(platformdirs.user_cache_dir("capivara", appauthor=False))
