"""`merge-lora`: a run and its base model become one OpenCLIP folder that needs nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from capivara_cli import artifacts, console
from capivara_cli.errors import CapivaraError
from capivara_cli.models import checkpoint
from capivara_cli.models import lora as adapters
from capivara_cli.models.clip import Clip
from capivara_cli.models.spec import DEFAULT_MODEL, NOTES, ModelSpec, adapter_base, adapter_folder
from capivara_cli.runtime import Runtime
from capivara_cli.training.model_card import merged_card

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = ("float32", "float16", "bfloat16")


def merge_lora(
    run: Path,
    output: Path,
    *,
    scale: float = 1.0,
    dtype: str = "float32",
    model: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Merge a run into its base model and write the folder. The arguments are those of `capivara merge-lora`.

    Every weight that the run changed becomes base + scale * (trained - base): 0 is the base model, 1 the trained
    one, between them robustness is traded for the new language (WiSE-FT, arXiv 2109.01903). For LoRA's
    W + (alpha / r) B A that is the adapter's usual scaling.

    Raises:
        CapivaraError: no such run, another base model, or a folder in the way.
    """
    if dtype not in DTYPES:
        raise CapivaraError(f"--dtype {dtype} is none of {', '.join(DTYPES)}")
    if output.exists() and not overwrite:
        raise CapivaraError(f"{output} is there already", "--overwrite replaces it, -o FOLDER names another")
    if output.resolve() in (run.resolve(), *run.resolve().parents):
        raise CapivaraError(f"{output} would replace the run that it is made from", "-o FOLDER names another")
    summary = _summary(run)
    base_name = _base(run, summary, model)
    if summary.get("from_scratch") and scale != 1:
        raise CapivaraError(f"--scale {scale:g}: {run} began from scratch and has no base model", "leave --scale out")
    runtime = Runtime.start("cpu", "fp32")
    base = checkpoint.load(base_name, runtime, weights=not summary.get("from_scratch"))
    before = _copy(base)
    after = _trained(run, base)
    state = {name: _between(before[name], tensor, scale, dtype) for name, tensor in after.items()}
    changed = sum(not before[name].equal(tensor) for name, tensor in after.items())
    card = merged_card(output.name, str(base_name), _languages(run, summary), summary, _licence(base_name))
    checkpoint.save(base, output, state=state, card=card)
    size = (output / checkpoint.WEIGHTS).stat().st_size / 2**20
    console.say(f"wrote {output}: {changed} of {len(after)} tensors differ from {base_name}; {size:,.1f} MiB")
    return output


def _summary(run: Path) -> dict[str, Any]:
    if not run.is_dir():
        raise CapivaraError(f"{run}: no such run", "capivara train --lang hi --lora makes runs/hi-lora")
    marker = run / "run.json"
    summary: dict[str, Any] = artifacts.read_json(marker) if marker.is_file() else {}
    if not summary and (run / "state.safetensors").is_file():
        console.warn(f"{run} is not complete: its best weights so far are merged")
    return summary


def _base(run: Path, summary: dict[str, Any], model: str | None) -> ModelSpec:
    if model is not None:
        return ModelSpec.parse(model)
    if summary:
        return ModelSpec.parse(summary["model"], summary["pretrained"])
    if base := adapter_base(run):
        return base
    raise CapivaraError(f"{run} does not say which model it was trained on", "--model NAME says it")


def _copy(clip: Clip) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in clip.model.state_dict().items()}


def _trained(run: Path, base: Clip) -> dict[str, Tensor]:
    """The run's weights under the base model's names; the adapter is merged by PEFT."""
    import torch

    if (run / "model" / checkpoint.WEIGHTS).is_file():
        return artifacts.load_tensors(run / "model" / checkpoint.WEIGHTS)
    adapters.load(base, run)
    with torch.no_grad():
        base.model = base.model.merge_and_unload(safe_merge=True)
    return _copy(base)


def _between(before: Tensor, after: Tensor, scale: float, dtype: str) -> Tensor:
    import torch

    if not after.is_floating_point():
        return after
    mixed = after if scale == 1 else before.double().lerp(after.double(), scale)
    return mixed.to(getattr(torch, dtype))


def _languages(run: Path, summary: dict[str, Any]) -> list[str]:
    if summary:
        return list(summary["lang"])
    notes = adapter_folder(run) / NOTES
    return list(artifacts.read_json(notes).get("lang", [])) if notes.is_file() else []


def _licence(base: ModelSpec) -> str:
    """What the base model's own card says, where it can be read; the recipe's model is MIT."""
    import yaml

    if base.folder is not None and (base.folder / "README.md").is_file():
        parts = (base.folder / "README.md").read_text(encoding="utf-8").split("---\n")
        head = yaml.safe_load(parts[1]) if len(parts) > 2 else None
        if isinstance(head, dict) and isinstance(head.get("license"), str):
            return str(head["license"])
    return "mit" if base.name == DEFAULT_MODEL else "that of the base model"
