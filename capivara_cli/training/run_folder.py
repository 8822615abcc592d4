"""The run folder: what a training run writes, and what it is resumed from.

config.yaml         the resolved options; --recipe reads them again
metrics.jsonl       a line every few steps, and one per validation
adapter/ or model/  the best weights so far: a PEFT adapter, or an OpenCLIP folder
state.safetensors   what to resume from: trained weights, Adam's moments, step; removed when the run is complete
seen.safetensors    hashes of the images and captions that are trained on, to tell test data that are among them
rejected.jsonl      images that could not be read, and why
curves.png          loss and recall
README.md           the model card
run.json            the summary; written last, so its presence says that the run is complete
.capivara.json      the marker of our folders (see `folders`); who trains in the folder holds a lock on it
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from capivara_cli import artifacts, folders, locks
from capivara_cli.data.images import Rejected
from capivara_cli.errors import CapivaraError, explained
from capivara_cli.folders import FolderKind
from capivara_cli.locks import Lock
from capivara_cli.models import checkpoint
from capivara_cli.models.spec import ModelSpec
from capivara_cli.options import below_each_other
from capivara_cli.training.options import TrainOptions, read_options, result_values, to_yaml

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MAX_SHARE_OF_SAVING = 0.05  # of a run's time: a whole text tower with Adam's moments takes seconds to write
STATE = "state.safetensors"
OTHER_FOLDER = "-o FOLDER keeps both, --overwrite replaces it"
RUN_FOLDER = FolderKind(
    "run",
    r"(config\.yaml|run\.json|(metrics|rejected)\.jsonl|(state|seen)\.safetensors|curves\.png|README\.md)"
    r"|adapter/(adapter_config\.json|adapter_model\.safetensors|capivara\.json|README\.md)"
    rf"|model/({checkpoint.FILES})",
    required=("config.yaml", "metrics.jsonl"),
    marked=("model",),
)


@dataclass
class TrainerState:
    """How far a run has come, beside its weights.

    Attributes:
        step: optimiser steps done.
        best: validation score of the best weights so far; `best_step` is their step.
        data: fingerprint of the data, so that a run is not resumed on other data.
        model: fingerprint of the base model's weights, so that it is not resumed on others; "" in older runs.
        base: where the base model is, for `merge-lora`; empty in older runs.
        seconds: that the run has taken so far, in all of its processes.
        numerics: device, precision and ranks, for a warning when the run is resumed on others.
        micro_batch: texts per forward pass; kept because sums of floats depend on how a batch is cut. None: not yet
            estimated.
        scaler: state of fp16's loss scaling.
        losses: of the steps since the last log line.
    """

    step: int = 0
    best: float | None = None
    best_step: int | None = None
    data: str = ""
    model: str = ""
    base: dict[str, str | None] = field(default_factory=dict)
    seconds: float = 0.0
    numerics: str = ""
    micro_batch: int | None = None
    scaler: dict[str, float] | None = None
    losses: list[float] = field(default_factory=list)


class RunFolder:
    """The files of a run.

    Attributes:
        writes: whether this process writes them. Every rank reads them, only the first one writes.
    """

    def __init__(self, path: Path, save_seconds: float = 30, recipe: Path | None = None) -> None:
        self.path = path
        self._recipe = recipe  # a file that `overwrite` must not remove
        self._lock: Lock | None = None
        self._config = path / "config.yaml"
        self._metrics = path / "metrics.jsonl"
        self._state = path / STATE
        self._summary = path / "run.json"
        self._marker = path / folders.MARKER
        self.writes = True
        self._save_seconds = save_seconds
        self._saved_at = time.monotonic()
        self._saving_took = 0.0
        self._started = time.monotonic()  # or earlier, by the time that earlier processes took

    @property
    def seconds(self) -> float:
        """How long the run has taken, in all of its processes; what a killed one had not saved is not counted."""
        return time.monotonic() - self._started

    @property
    def is_complete(self) -> bool:
        """Whether the run has ended."""
        return self._summary.is_file()

    def check(self, options: TrainOptions) -> None:
        """Raise CapivaraError unless the folder does not exist, is empty, or may be used with these options.

        It may be used if it holds a run with the same options, but for those that do not change the result; and with
        `overwrite` if it holds any run, and nothing else.
        """
        reads = [Path(source) for source in [*options.data.train, options.data.val] if source not in (None, "-")]
        folders.check_not_above(self.path, reads)
        folders.check_link(self.path)
        folders.check_kind(self.path, RUN_FOLDER)
        if options.overwrite:
            # A run may be resumed with its own config.yaml as recipe, so only these are refused here.
            reads += ModelSpec(options.model.name, options.model.pretrained).paths()
            reads += [self._recipe] if self._recipe is not None else []
            folders.check_replaceable(self.path, RUN_FOLDER, reads)
        elif self._config.is_file():
            old, new = result_values(read_options(self._config)), result_values(options)
            # What is yet to be fitted to the data is compared later, when `open` checks again.
            differences = [text for text in _differences(old, new) if text.partition(":")[0] not in options.fit]
            if differences:
                text = below_each_other([f"{self.path} holds a run with other settings:", *differences[:10]])
                raise CapivaraError(text, OTHER_FOLDER)
        elif self.path.exists() and not folders.is_marked(self.path, RUN_FOLDER) and not folders.is_empty(self.path):
            raise CapivaraError(f"{self.path} is not empty and not a run of ours", "-o FOLDER names another")

    def open(self, options: TrainOptions) -> None:
        """Make the folder if it does not exist, and lock it.

        Raises CapivaraError when another process is training in it, or when it cannot be used now, see `check`.
        """
        artifacts.make_folder(self.path)
        self._lock = self._mark(self.path)
        self.check(options)  # again: another process may have used the folder since
        if self.is_complete and not options.overwrite:
            raise CapivaraError(f"{self.path} was completed by another process meanwhile", OTHER_FOLDER)
        artifacts.remove_leftovers(self.path)

    def begin(self, options: TrainOptions) -> None:
        """Write the options; with `overwrite`, replace the old run by a new one."""
        if not options.overwrite:
            artifacts.write_text(self._config, to_yaml(options))
            return
        path = self.path.resolve()
        with explained(f"cannot write {self.path}", hint=artifacts.NO_ROOM):
            new = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            new.mkdir()
            lock = self._mark(new)
            artifacts.write_text(new / self._config.name, to_yaml(options))
            folders.remove(artifacts.put_in_place(new, path), RUN_FOLDER)
        self.close()
        self._lock = lock

    def _mark(self, folder: Path) -> Lock:
        """Mark a folder as a run, and lock its marker."""
        marker = folder / folders.MARKER
        with explained(f"cannot write {self.path}", hint=artifacts.NO_ROOM):
            lock = locks.acquire(marker)
        if lock is None:
            raise CapivaraError(f"{self.path} is being written by another process", "-o FOLDER names another")
        if not marker.stat().st_size:  # written in place, because a new file would not have the lock
            marker.write_text(folders.marker_text(RUN_FOLDER), encoding="utf-8")
        return lock

    def close(self) -> None:
        """Let other processes use the folder. If nothing was begun in it, nothing is left behind."""
        if self._lock is None:
            return
        with suppress(OSError):  # the first error is the one to show
            if os.listdir(self.path) == [folders.MARKER]:
                self._marker.unlink()
                self.path.rmdir()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read_state(self) -> TrainerState:
        """Return how far the run has come; a new state when none was saved. The weights follow by `load_state`."""
        if not self._state.is_file():
            return TrainerState()
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self._state, "pt") as file:
                values = json.loads(file.metadata()["position"])
            values["numerics"] = values.pop("arithmetic", "") or values["numerics"]  # its name in older runs
            state = TrainerState(**values)
            if not isinstance(state.base, dict):
                raise TypeError(f"base = {state.base!r}")
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CapivaraError(f"{self._state} cannot be read: {error}", "--overwrite starts over") from error
        self._started -= state.seconds
        return state

    def load_state(self, parameters: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        """Put the saved weights and Adam's moments back."""
        tensors = artifacts.load_tensors(self._state)
        for name, parameter in parameters.items():
            parameter.data.copy_(tensors[f"weight/{name}"])
            if f"exp_avg/{name}" not in tensors:
                continue  # it never had a gradient
            # Adam counts the steps of each parameter in a tensor on the CPU, which costs no transfer; only the fused
            # CUDA kernel wants it beside the weights.
            step = tensors[f"step/{name}"]
            optimizer.state[parameter] = {
                "step": step.to(parameter.device) if parameter.is_cuda else step,
                "exp_avg": tensors[f"exp_avg/{name}"].to(parameter.device),
                "exp_avg_sq": tensors[f"exp_avg_sq/{name}"].to(parameter.device),
            }

    def state_is_due(self) -> bool:
        """Return whether enough time has passed to save the state again."""
        wait = max(self._save_seconds, self._saving_took / MAX_SHARE_OF_SAVING)
        return time.monotonic() - self._saved_at > wait

    def save_state(
        self, state: TrainerState, parameters: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
    ) -> None:
        """Write all that is needed to resume as if nothing had happened."""
        started = time.monotonic()
        tensors: dict[str, Tensor] = {}
        for name, parameter in parameters.items():
            tensors[f"weight/{name}"] = parameter
            tensors |= {f"{key}/{name}": value for key, value in optimizer.state.get(parameter, {}).items()}
        if self.writes:
            position = asdict(state) | {"seconds": self.seconds}
            artifacts.save_tensors(self._state, tensors, {"position": json.dumps(position)})
        self._saved_at = time.monotonic()
        self._saving_took = self._saved_at - started

    def log(self, **values: Any) -> None:
        """Append a line to metrics.jsonl."""
        if self.writes:
            artifacts.append_line(self._metrics, json.dumps(values, ensure_ascii=False))

    def metrics(self) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl, without a last one that was cut short."""
        lines = self._metrics.read_text(encoding="utf-8").splitlines() if self._metrics.is_file() else []
        metrics = []
        for line in lines:
            try:
                metrics.append(json.loads(line))
            except ValueError:
                break
        return metrics

    def forget_after(self, step: int) -> None:
        """Drop the metrics of steps that will be done again."""
        self._write_lines(self._metrics, (line for line in self.metrics() if line["step"] <= step))

    def write_rejected(self, rejected: list[Rejected]) -> None:
        """Write the images that could not be used, and why."""
        if rejected:
            self._write_lines(self.path / "rejected.jsonl", map(asdict, rejected))

    def complete(self, summary: dict[str, Any]) -> None:
        """Write the marker that the run is complete, and remove the state, which is not needed any more."""
        if self.writes:
            artifacts.write_json(self._summary, summary)
            self._state.unlink(missing_ok=True)

    def _write_lines(self, path: Path, values: Iterable[dict[str, Any]]) -> None:
        text = "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)
        if self.writes:
            artifacts.write_text(path, text)


def _differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """Yield `key: was A, now B` for each leaf that differs. `replay` counts as a leaf: its keys are languages."""
    if isinstance(old, dict) and isinstance(new, dict) and path != "replay.":
        for key in {**old, **new}:
            yield from _differences(old.get(key), new.get(key), f"{path}{key}.")
    elif old != new:
        yield f"{path.rstrip('.')}: was {old}, now {new}"
