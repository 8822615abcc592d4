"""Files that appear whole or not at all: safetensors, JSON, text; and fingerprints of what they hold."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from capivara_cli.errors import CapivaraError

if TYPE_CHECKING:
    from torch import Tensor

NO_ROOM = "free some space, or write elsewhere: -o, and $CAPIVARA_CACHE for the cache"

MODEL_FILES = {".bin", ".json", ".model", ".pt", ".pth", ".safetensors", ".txt"}
SAMPLES, SAMPLE_BYTES = 256, 4096


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Give a name beside `path` to write to, and rename it to `path` when the block ends well.

    Works for a file and for a folder (an existing folder is replaced). A killed process leaves at most a
    `.tmp` name behind, never half of `path`. Raises CapivaraError when there is no room or no permission.
    """
    given, path = path, path.resolve()  # of a link to a folder, the folder is replaced and the link stays
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        swap_in(temporary, path)
    except BaseException as error:
        _remove(temporary)
        if reason := _write_failure(error):
            raise CapivaraError(f"cannot write {given}: {reason}", NO_ROOM) from error
        if isinstance(error, CapivaraError):  # of a file inside this folder: by the name that the person knows
            error.message = error.message.replace(str(temporary), str(given))
        raise


def swap_in(temporary: Path, path: Path) -> None:
    """Rename a file or a folder to `path`, and replace what is there. Raises OSError."""
    if path.exists() and temporary.exists() and path.is_dir() != temporary.is_dir():  # a file replaces no folder
        number = errno.EISDIR if path.is_dir() else errno.ENOTDIR
        raise OSError(number, os.strerror(number))
    if not path.is_dir():
        os.replace(temporary, path)
        return
    old = path.with_name(f".{path.name}.{os.getpid()}.old")  # a folder cannot be replaced in one step
    os.replace(path, old)
    try:
        os.replace(temporary, path)
    except OSError:
        os.replace(old, path)
        raise
    shutil.rmtree(old)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process may have left in the folder; for a folder that only one process writes."""
    for path in [*folder.glob(".*.tmp"), *folder.glob(".*.old")]:
        _remove(path)


def remove_dead(path: Path) -> None:
    """Remove what processes that are there no more have left of `writing` this path."""
    for each in path.absolute().parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        number = each.name.split(".")[-2]
        if number.isdecimal() and not _is_running(int(number)):
            _remove(each)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # what went wrong before is what the person must hear of
            path.unlink(missing_ok=True)


def _write_failure(error: BaseException) -> str | None:
    """The system's reason if the error is a failed write, from Python or from safetensors' Rust side."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if type(error).__name__ == "SafetensorError" and "os error" in str(error):
        return str(error)
    return None


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file. Raises CapivaraError when it cannot be written."""
    from safetensors.torch import save_file

    own: dict[str, Tensor] = {}
    stored: set[int] = set()
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        storage = value.untyped_storage()
        # safetensors refuses tied weights and views: what shares its memory gets its own.
        if storage.data_ptr() in stored or storage.nbytes() > value.numel() * value.element_size():
            value = value.clone()
        stored.add(value.untyped_storage().data_ptr())
        own[name] = value
    with writing(path) as temporary:
        save_file(own, temporary, metadata=metadata)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file. Raises CapivaraError when it is missing or cut short."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CapivaraError(f"cannot read {path}: {error}") from error


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file, whole or not at all."""
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def make_folder(folder: Path) -> None:
    """Make a folder and those above it. Raises CapivaraError when that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CapivaraError(f"cannot make the folder {folder}: {error.strerror}", NO_ROOM) from error


def append_line(path: Path, line: str) -> None:
    """Add a line to a UTF-8 text file. Raises CapivaraError when it cannot be written."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise CapivaraError(f"cannot write {path}: {error.strerror}", NO_ROOM) from error


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file that a person can read too. NaN is refused: other readers would choke on it."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises CapivaraError with the file and the place when it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CapivaraError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise CapivaraError(f"{path} is not JSON: {error}") from error


def lock(file: IO[bytes] | int) -> bool:
    """Lock the file for this process; whether it was free."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # Windows has no such locks
        return True
    except OSError:
        return False
    return True


def fingerprint(*parts: object) -> str:
    """32 hex digits that change whenever one of the parts does. Parts are compared as sorted JSON."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def fingerprint_tensors(tensors: dict[str, Tensor]) -> str:
    """32 hex digits of names, shapes and exact values: about a second a GB."""
    import torch

    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def files_identity(*paths: Path) -> str | None:
    """32 hex digits that change when a model's files do: their names, sizes, and samples all over them.

    None when none of the paths is there. A fine-tuned model has its base's sizes, and may differ in a twentieth of its
    bytes only, so there are many samples; to read all would take longer than loading it.
    """
    found = [path for path in paths if path.exists()]
    files = [(path, path.iterdir() if path.is_dir() else [path]) for path in found]
    parts = [
        [str(each.relative_to(path)), each.stat().st_size, _samples(each)]
        for path, inside in files
        for each in sorted(inside)
        if each.is_file() and each.suffix in MODEL_FILES
    ]
    return fingerprint(parts) if found else None


def _samples(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= SAMPLES * SAMPLE_BYTES:
            digest.update(file.read())
        else:
            for number in range(SAMPLES):
                file.seek((size - SAMPLE_BYTES) * number // (SAMPLES - 1))
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


def cache_folder() -> Path:
    """Where what can be computed again is kept: $CAPIVARA_CACHE, or the system's cache folder."""
    import platformdirs

    chosen = os.environ.get("CAPIVARA_CACHE")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("capivara", appauthor=False))
