"""`merge-lora`: a run and its base model become one OpenCLIP folder that needs no other file."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capivara_cli import artifacts, console, folders
from capivara_cli.errors import CapivaraError
from capivara_cli.models import checkpoint, foreign, lora, seen
from capivara_cli.models.clip import Clip
from capivara_cli.models.spec import DEFAULT_MODEL, NOTES_CHECKS, ModelSpec, read_notes
from capivara_cli.runtime import Runtime
from capivara_cli.training.model_card import merged_card
from capivara_cli.training.options import MergeOptions, read_options
from capivara_cli.yaml_files import parse_yaml

if TYPE_CHECKING:
    from torch import Tensor


def _are_scores(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(score, int | float) for score in value.values())


SUMMARY_CHECKS: foreign.Checks = {
    **NOTES_CHECKS,
    "from_scratch": (lambda value: isinstance(value, bool), "true or false"),
    "before": (_are_scores, "scores by language"),
    "after": (_are_scores, "scores by language"),
}


def merge_lora(run: str | Path, output: str | Path, options: MergeOptions | None = None) -> Path:
    """Merge a run into its base model, write the folder, and return it.

    Every weight that the run changed becomes base + scale * (trained - base): 0 is the base model, 1 the trained
    one, and values between trade the new language for the base model's robustness (WiSE-FT, arXiv 2109.01903). For
    LoRA's W + (alpha / r) B A that is the adapter's usual scaling.

    Args:
        run: run folder, or a PEFT adapter folder.

    Raises:
        CapivaraError: the run does not exist, it does not fit the base model, or the output exists.
    """
    run, output, options = Path(run), Path(output), options or MergeOptions()
    if not run.is_dir():
        raise CapivaraError(f"{run}: no such run", "capivara train --data FILE.jsonl --lang hi --lora makes one")
    summary = _read_summary(run)
    spec = _base_spec(run, summary, options.model)
    reads = [run, _full_weights(run), *spec.paths()]  # a model in run/model would be taken for the run's weights
    artifacts.remove_stale(output)
    _check_output(output, reads, options.overwrite)
    from_scratch = summary.get("from_scratch", False)
    if from_scratch and options.scale != 1:
        raise CapivaraError(
            f"--scale {options.scale:g}: {run} started from scratch and has no base model", "leave --scale out"
        )
    base = checkpoint.load(spec, Runtime.start("cpu", "fp32"), weights=not from_scratch)
    # An adapter's base is compared as it is loaded. At scale 1 nothing is left of the base of a `--full` run.
    if _full_weights(run).is_file() and options.scale != 1 and base.has_other_weights(summary.get("base_weights")):
        base.warn_of_other_weights(run)
    before = _copy_weights(base)
    after = _trained_weights(run, base)
    weights = {name: _interpolate(before[name], tensor, options) for name, tensor in after.items()}
    changed = sum(not before[name].to(tensor.dtype).equal(tensor) for name, tensor in weights.items())
    card = merged_card(output.name, str(spec), summary.get("lang", []), summary, _licence(spec))
    _check_output(output, reads, options.overwrite)  # again: merging takes minutes
    checkpoint.save(base, output, state=weights, card=card, seen=seen.file_of(run))
    size = (output / checkpoint.WEIGHTS).stat().st_size / 2**20
    console.say(f"wrote {output}: {changed} of {len(weights)} tensors differ from {spec}; {size:,.1f} MiB")
    return output


def _check_output(output: Path, reads: list[Path], overwrite: bool) -> None:
    if output.exists() and not overwrite:
        raise CapivaraError(f"{output} already exists", "--overwrite replaces it, -o FOLDER names another")
    folders.check_replaceable(output, checkpoint.MODEL_FOLDER, reads)


def _read_summary(run: Path) -> dict[str, Any]:
    """Return run.json. Of an unfinished run or a bare adapter, return what is known of the base model and languages."""
    if (run / "run.json").is_file():
        summary = foreign.read_mapping(run / "run.json")
        foreign.check_values(summary, SUMMARY_CHECKS, run / "run.json")
        return summary
    if (run / "state.safetensors").is_file():
        console.warn(f"{run} is not complete: its best weights so far are merged")
    if _full_weights(run).is_file():  # an unfinished run of --full
        if not (run / "config.yaml").is_file():
            return {}
        trained = read_options(run / "config.yaml")
        model = trained.model
        return {
            "model": model.name,
            "pretrained": model.pretrained,
            "from_scratch": model.from_scratch,
            "lang": list(trained.lang),
        }
    return read_notes(run)


def _base_spec(run: Path, summary: dict[str, Any], model: str | None) -> ModelSpec:
    if model is not None:
        return ModelSpec.parse(model)
    if summary.get("model"):
        return ModelSpec.parse(summary["model"], summary.get("pretrained"))
    raise CapivaraError(f"{run} does not say which model it was trained on", "name it with --model NAME")


def _full_weights(run: Path) -> Path:
    return run / "model" / checkpoint.WEIGHTS


def _copy_weights(clip: Clip) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in clip.model.state_dict().items()}


def _trained_weights(run: Path, base: Clip) -> dict[str, Tensor]:
    """Return the run's weights under the base model's names. The adapter is merged by PEFT, into `base`."""
    import torch

    if _full_weights(run).is_file():
        weights = artifacts.load_tensors(_full_weights(run))
        foreign.check_finite(weights, _full_weights(run))
        return weights
    lora.load(base, run)
    with torch.no_grad():
        base.model = base.model.merge_and_unload(safe_merge=True)  # safe: raises when a merged weight is NaN
    return _copy_weights(base)


def _interpolate(before: Tensor, after: Tensor, options: MergeOptions) -> Tensor:
    import torch

    if not after.is_floating_point():  # position ids and the like
        return after
    # In float64, so that scale 0 gives the base model's weights to the bit.
    mixed = after if options.scale == 1 else before.double().lerp(after.double(), options.scale)
    return mixed.to(getattr(torch, options.dtype))


def _licence(base: ModelSpec) -> str | None:
    """Return the licence that the base model's card names; None if it is not known. The recipe's model is MIT."""
    if base.folder is not None and (base.folder / "README.md").is_file():
        parts = (base.folder / "README.md").read_text(encoding="utf-8", errors="replace").split("---\n")
        head = None
        with suppress(CapivaraError):  # a damaged card names no licence
            head = parse_yaml(parts[1], "README.md") if len(parts) > 2 else None
        if isinstance(head, dict) and isinstance(head.get("license"), str):
            return str(head["license"])
    return "mit" if base.name == DEFAULT_MODEL else None
