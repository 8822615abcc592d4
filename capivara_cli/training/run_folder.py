"""The run folder: what a training run leaves behind, and what it goes on from.

config.yaml         the resolved recipe; --recipe reads it again
metrics.jsonl       a line for every few steps and for each validation
adapter/ or model/  the best weights so far: a PEFT adapter, or an OpenCLIP folder
state.safetensors   what to go on from: trained weights, Adam's moments, step; gone when the run is complete
rejected.jsonl      images that could not be read, and why
curves.png          loss and recall
README.md           the model card
run.json            the summary; written last, so its presence says that the run is complete
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capivara_cli import artifacts
from capivara_cli.data.images import Rejected
from capivara_cli.errors import CapivaraError
from capivara_cli.options import Recipe, read_yaml, to_yaml

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MAX_SHARE_OF_SAVING = 0.05  # of the time; a whole text tower with its moments takes seconds to write


@dataclass
class Position:
    """Where a run stands.

    Attributes:
        step: optimiser steps done.
        best: validation score of the best weights, and its step.
        data: fingerprint of the records, so that nobody goes on with others.
        arithmetic: device and precision, for the same reason.
        micro_batch: texts at once; kept because sums of floats depend on how they are cut.
        scaler: state of fp16's loss scaling.
        losses: of the steps since the last log line.
    """

    step: int = 0
    best: float | None = None
    best_step: int | None = None
    data: str = ""
    arithmetic: str = ""
    micro_batch: int | None = None
    scaler: dict[str, float] | None = None
    losses: list[float] = field(default_factory=list)


class RunFolder:
    """A run's files. Only the first rank writes."""

    def __init__(self, path: Path, *, writes: bool = True, save_seconds: float = 30) -> None:
        self.path = path
        self._writes = writes
        self._save_seconds = save_seconds
        self._saved_at = time.monotonic()
        self._saving_took = 0.0

    @property
    def _config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def is_complete(self) -> bool:
        """Whether the run has ended."""
        return (self.path / "run.json").is_file()

    def check(self, recipe: Recipe) -> None:
        """Raise CapivaraError when the folder holds something else than this very run; an empty one is fine."""
        if not self._config.is_file():
            if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
                raise CapivaraError(f"{self.path} is not empty and not a run of ours", "-o FOLDER names another")
            return
        differences = list(_differences(read_yaml(self._config), recipe.model_dump(mode="json")))
        if differences:
            text = "\n       ".join(differences[:10])
            hint = "-o FOLDER keeps both, --overwrite replaces it"
            raise CapivaraError(f"{self.path} holds a run with other settings:\n       {text}", hint)

    def open(self, recipe: Recipe, *, overwrite: bool) -> None:
        """Make the folder, or find that it holds this very run. Raises CapivaraError when it holds another."""
        if overwrite and self._config.is_file():
            shutil.rmtree(self.path)
        self.check(recipe)
        if self.path.is_dir():
            artifacts.remove_leftovers(self.path)
        artifacts.write_text(self._config, to_yaml(recipe))

    def read_position(self) -> Position:
        """Where the run stands; the beginning when there is no state."""
        path = self.path / "state.safetensors"
        if not path.is_file():
            return Position()
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                return Position(**json.loads(file.metadata()["position"]))
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CapivaraError(f"{path} cannot be read: {error}", "--overwrite starts the run anew") from error

    def load_state(self, parameters: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        """Put the saved weights and moments back."""
        tensors = artifacts.load_tensors(self.path / "state.safetensors")
        for name, parameter in parameters.items():
            parameter.data.copy_(tensors[f"weight/{name}"])
            if f"exp_avg/{name}" in tensors:
                optimizer.state[parameter] = {
                    "step": tensors[f"step/{name}"],
                    "exp_avg": tensors[f"exp_avg/{name}"].to(parameter.device),
                    "exp_avg_sq": tensors[f"exp_avg_sq/{name}"].to(parameter.device),
                }
                if parameter.device.type == "cuda":  # the fused kernel wants the step beside the weights
                    optimizer.state[parameter]["step"] = tensors[f"step/{name}"].to(parameter.device)

    def state_is_due(self) -> bool:
        """Whether enough time has passed to save the state again."""
        wait = max(self._save_seconds, self._saving_took / MAX_SHARE_OF_SAVING)
        return time.monotonic() - self._saved_at > wait

    def save_state(
        self, position: Position, parameters: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
    ) -> None:
        """Write all that the run needs to go on as if nothing had happened."""
        started = time.monotonic()
        tensors: dict[str, Tensor] = {}
        for name, parameter in parameters.items():
            tensors[f"weight/{name}"] = parameter
            tensors |= {f"{key}/{name}": value for key, value in optimizer.state.get(parameter, {}).items()}
        if self._writes:
            metadata = {"position": json.dumps(asdict(position))}
            artifacts.save_tensors(self.path / "state.safetensors", tensors, metadata)
        self._saved_at = time.monotonic()
        self._saving_took = self._saved_at - started

    def log(self, **values: Any) -> None:
        """Append a line to metrics.jsonl."""
        if self._writes:
            artifacts.append_line(self.path / "metrics.jsonl", json.dumps(values, ensure_ascii=False))

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; a torn last one is left out."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        result = []
        for line in lines:
            try:
                result.append(json.loads(line))
            except ValueError:
                break
        return result

    def forget_after(self, step: int) -> None:
        """Drop the metrics of steps that will be done again."""
        kept = [line for line in self.metrics() if line["step"] <= step]
        if self._writes:
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept)
            artifacts.write_text(self.path / "metrics.jsonl", text)

    def reject(self, rejected: list[Rejected]) -> None:
        """Name the images that could not be used."""
        if self._writes and rejected:
            lines = (json.dumps(asdict(item), ensure_ascii=False) + "\n" for item in rejected)
            artifacts.write_text(self.path / "rejected.jsonl", "".join(lines))

    def complete(self, summary: dict[str, Any]) -> None:
        """Write the marker, and drop the state that nobody needs any more."""
        if self._writes:
            artifacts.write_json(self.path / "run.json", summary)
            (self.path / "state.safetensors").unlink(missing_ok=True)


def _differences(old: Any, new: Any, path: str = "") -> Any:
    """`key: was A, now B` for each leaf that differs."""
    if isinstance(old, dict) and isinstance(new, dict) and path != "keep.":
        for key in {**old, **new}:
            yield from _differences(old.get(key), new.get(key), f"{path}{key}.")
    elif old != new:
        yield f"{path.rstrip('.')}: was {old}, now {new}"
