"""The one way in for models that others made: none of their code runs, and they cost no more memory than their weights.

Nothing that a model's files say is trusted, whether they are in a folder or in a repository of the hub: see
docs/security.md.
"""

from __future__ import annotations

import os
import re
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from capivara_cli import artifacts
from capivara_cli.errors import CapivaraError, first_line

if TYPE_CHECKING:
    from torch import Tensor

# Counts in a configuration, by the ends and the beginnings of their names. A library would loop over them, or make a
# list of them, before it compares the model with its weights. The largest that exist: some 150 layers, 30,000 labels.
MAX_COUNTS = {r"(layers?|depths?|blocks?)$": 512, r"^(num|n)_": 1 << 20}
SPREAD = 8  # times that a model may be larger than its files: weights of 4 bits are loaded as 32 bits
SPARE_BYTES = 256 << 20  # and beyond that
NEEDS_CODE = "it needs code or an adapter of its own, which are never run"
Checks = Mapping[str, tuple[Callable[[Any], bool], str]]
MISSING: Any = object()
PICKLES = {".bin", ".pt", ".pth"}


@contextmanager
def loading(name: object, hint: str | None = None) -> Iterator[None]:
    """Load a model in this block: no code of its own runs, and whatever a library raises becomes one line.

    Raises CapivaraError.
    """
    with _without_code():
        try:
            yield
        except CapivaraError:
            raise
        except Exception as error:  # a broken folder makes torch, safetensors and tokenizers raise nearly anything
            reason = NEEDS_CODE if "custom code" in str(error) else first_line(error)
            raise CapivaraError(f"{name} cannot be loaded: {reason}", hint) from error


@contextmanager
def _without_code() -> Iterator[None]:
    """Take from transformers what runs the code of a model, whoever asks for it.

    `trust_remote_code=False` alone does not do: open_clip hands on what a file says, and where nobody says anything,
    transformers asks on the terminal.
    """
    from transformers import dynamic_module_utils
    from transformers.integrations import hub_kernels
    from transformers.integrations.peft import PeftAdapterMixin

    changes: list[tuple[Any, str, Any]] = [
        (dynamic_module_utils, "get_cached_module_file", _refuse),  # imports what the code imports
        (dynamic_module_utils, "get_class_in_module", _refuse),
        (dynamic_module_utils, "TIME_OUT_REMOTE_CODE", 0),  # refuses without asking
        (hub_kernels, "get_kernel", _refuse),  # compiled code from the hub, by a name in config.json
        (PeftAdapterMixin, "load_adapter", _refuse),  # its adapter_config.json may name a module to import
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
    try:
        for owner, name, value in changes:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


def _refuse(*_: object, **__: object) -> NoReturn:
    raise PermissionError(NEEDS_CODE)


def check_files(folder: Path) -> None:
    """Raise CapivaraError for a pipe or a device in a model's folder, and for weights that are compressed."""
    for path in folder.iterdir():
        if path.exists() and not path.is_dir():
            check_file(path)


def check_file(path: Path) -> None:
    """Raise CapivaraError for a pipe or a device, which would be read without end, and for a compressed pickle."""
    if not path.is_file():
        raise CapivaraError(f"{path} is not a regular file")
    if path.suffix in PICKLES and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                raise CapivaraError(
                    f"{path} is compressed, which torch.save never does: a small file may expand to fill the memory"
                )


def read_config(path: Path) -> dict[str, Any]:
    """Read a model's configuration. Raises CapivaraError if it is not JSON, or counts something that no model has."""
    config = read_mapping(path)
    _check_counts(config, path, "")
    return config


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a JSON file of keys and values. Raises CapivaraError if it is none."""
    config = artifacts.read_json(path)
    if not isinstance(config, dict):
        raise CapivaraError(f"{path}: not keys and values")
    return config


def check_values(config: Mapping[str, Any], checks: Checks, path: Path) -> None:
    """Raise CapivaraError with the first value that cannot be right. A value that is missing has a default.

    Args:
        checks: path of a value, as `model_cfg.embed_dim` -> whether it can be right, and what is expected.
        path: of the file, for the message.
    """
    for name, (is_good, expected) in checks.items():
        value: Any = config
        for key in name.split("."):
            value = value.get(key, MISSING) if isinstance(value, Mapping) else MISSING
        if value is not MISSING and not is_good(value):
            raise CapivaraError(f"{path}: {name} = {repr(value)[:80]} is not {expected}")


def _check_counts(value: Any, path: Path, name: str) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_counts(item, path, str(key))
    elif isinstance(value, list):
        for item in value:
            _check_counts(item, path, name)
    elif isinstance(value, int | float):
        limit = next((limit for pattern, limit in MAX_COUNTS.items() if re.search(pattern, name)), None)
        if limit is not None and not value <= limit:  # nor NaN
            raise CapivaraError(f"{path}: {name} = {value} is more than {limit:,}")


def load_config(source: str) -> Any:
    """Return the configuration of a transformers model, in a folder or a repository. Call it in `loading`."""
    from transformers import AutoConfig
    from transformers.utils.hub import cached_file

    path = cached_file(source, "config.json")
    if path is not None:
        read_config(Path(path))
    return AutoConfig.from_pretrained(source, trust_remote_code=False)


def check_size(build: Callable[[], Any], name: object, files: Sequence[Path], *, same_shapes: bool = False) -> None:
    """Raise CapivaraError if a model is much larger than its weights, before it costs memory.

    Args:
        build: makes the model; it is called so that this takes no memory.
        files: its weights; empty for random ones, which may fill the machine's memory.
        same_shapes: also check that the shapes are those of the weights.
    """
    import torch

    with torch.device("meta"):
        model = build()
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    needed = sum(tensor.nbytes for tensor in tensors.values())
    size = sum(path.stat().st_size for path in files)
    memory = _machine_memory()
    limit = min(memory, SPREAD * size + SPARE_BYTES) if files else memory
    if needed > limit:
        largest = max(tensors, key=lambda name: tensors[name].nbytes)
        shape = " x ".join(map(str, tensors[largest].shape))
        what = f"this machine has {memory / 2**30:,.1f}" if limit == memory else f"its weights have {size / 2**30:,.1f}"
        raise CapivaraError(
            f"{name}: its configuration describes {needed / 2**30:,.1f} GiB ({largest}: {shape}), {what} GiB"
        )
    for path in files if same_shapes else ():
        _check_shapes(model, path)


def _check_shapes(model: Any, path: Path) -> None:
    """Raise CapivaraError if weights have other shapes than a model's, also where open_clip would stretch a table.

    Of an image tower, the table of positions may differ: it is stretched where the images are larger.
    """
    if path.suffix != ".safetensors":
        return
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        saved = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping
    if not saved:
        raise CapivaraError(f"{path} has no weights")
    for name, tensor in model.state_dict().items():
        shape = tuple(tensor.shape)
        is_number = tensor.numel() == 1  # a logit scale may be a table of one
        if saved.get(name, shape) != shape and not is_number and not (name.startswith("visual.") and "pos" in name):
            raise CapivaraError(f"{path}: {name} is {saved[name]}, in the configuration {shape}")


def check_finite(tensors: Mapping[str, Tensor], source: object) -> None:
    """Raise CapivaraError, naming it, for a weight with a value that is not a number or infinite."""
    for name, tensor in tensors.items():
        # The smallest and the largest value are NaN if any is. This needs no memory, unlike isfinite() of them all.
        if tensor.is_floating_point() and tensor.numel() and not all(end.isfinite() for end in tensor.aminmax()):
            raise CapivaraError(f"{source}: {name} has values that are not finite numbers")


def _machine_memory() -> int:
    """Return the bytes of main memory; no limit where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return sys.maxsize
