"""`merge-lora`: a run and its base model become one OpenCLIP folder that needs no other file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from capivara_cli import artifacts, console, folders
from capivara_cli.errors import CapivaraError
from capivara_cli.models import checkpoint, foreign, lora, seen
from capivara_cli.models.clip import Clip
from capivara_cli.models.spec import NOTES_CHECKS, ModelSpec, noted_base, read_notes
from capivara_cli.runtime import Runtime
from capivara_cli.training.model_card import merged_card
from capivara_cli.training.options import MergeOptions, TrainOptions, read_options
from capivara_cli.training.run_folder import STATE, RunFolder, TrainerState

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
    reads = [
        run,
        run / "model" / checkpoint.WEIGHTS,
        *spec.paths(),
    ]  # a model in run/model would be taken for the run's weights
    artifacts.remove_stale(output)
    _check_output(output, reads, options.overwrite)
    from_scratch = summary.get("from_scratch", False)
    if from_scratch and options.scale != 1:
        raise CapivaraError(
            f"--scale {options.scale:g}: {run} started from scratch and has no base model", "leave --scale out"
        )
    base = checkpoint.load(spec, Runtime.start("cpu", "fp32"), weights=not from_scratch)
    spec = base.spec
    # A base that the run has noted was compared as it was loaded, and an adapter compares one that was named with
    # --model. At scale 1 nothing is left of the base of a `--full` run.
    is_full = _is_full(run)
    if is_full and spec.noted is None and options.scale != 1 and base.has_other_weights(summary.get("base_weights")):
        base.warn_of_other_weights(run)
    before = _copy_weights(base)
    after = _full_weights(run, before, spec) if is_full else _adapted_weights(run, base)
    weights = {name: _interpolate(before[name], tensor, options) for name, tensor in after.items()}
    changed = sum(not before[name].to(tensor.dtype).equal(tensor) for name, tensor in weights.items())
    card = merged_card(output.name, base, summary.get("lang", []), summary, options)
    _check_output(output, reads, options.overwrite)  # again: merging takes minutes
    checkpoint.save(base, output, state=weights, card=card, seen=seen.file_of(run), hub_name=options.hub_name)
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
    if not (run / "config.yaml").is_file():
        return read_notes(run)
    trained, state = read_options(run / "config.yaml"), RunFolder(run).read_state()
    _say_how_far(run, state, trained)
    if trained.method == "lora":
        return read_notes(run)
    model = trained.model
    notes = {"model": model.name, "pretrained": model.pretrained, "base_weights": state.model or None, **state.base}
    foreign.check_values(notes, NOTES_CHECKS, run / STATE)
    return notes | {"from_scratch": model.from_scratch, "lang": list(trained.lang)}


def _say_how_far(run: Path, state: TrainerState, trained: TrainOptions) -> None:
    """Warn that a run is not complete, and say which of its weights are merged.

    Raises CapivaraError when it has no weights yet.
    """
    stands = f"it stands at step {state.step:,} of {trained.max_steps:,}" if state.step else "it has saved no state yet"
    if any((run / "adapter").glob("*.safetensors")) or (run / "model" / checkpoint.WEIGHTS).is_file():
        of_step = f", those of step {state.best_step:,}," if state.best_step else ""
        console.warn(f"{run} is not complete: {stands}, and its best weights so far{of_step} are merged")
    elif trained.method == "full" and state.step:
        console.warn(f"{run} is not complete: {stands}, and its weights of that step are merged")
    else:
        raise CapivaraError(
            f"{run} has no weights to merge: {stands}, and no validation yet",
            "type the same train command again: it resumes the run",
        )


def _base_spec(run: Path, summary: dict[str, Any], model: str | None) -> ModelSpec:
    if model is not None:
        return ModelSpec.parse(model)
    # An adapter lies in its run, from which the base model is seen.
    folder = run.resolve().parent if (run / "adapter_config.json").is_file() else run
    spec = noted_base(summary, folder, run)
    if spec is None:
        raise CapivaraError(f"{run} does not say which model it was trained on", "name it with --model NAME")
    return spec


def _is_full(run: Path) -> bool:
    """Whether a run has whole weights, and not an adapter."""
    has_adapter = (run / "adapter_config.json").is_file() or (run / "adapter").is_dir()
    return (run / "model" / checkpoint.WEIGHTS).is_file() or ((run / STATE).is_file() and not has_adapter)


def _full_weights(run: Path, before: dict[str, Tensor], base: ModelSpec) -> dict[str, Tensor]:
    """Return the weights of a `--full` run: the best ones, or those of its state if it has saved no others yet.

    Args:
        before: the base model's weights; what is not trained is in no state.
    """
    file = run / "model" / checkpoint.WEIGHTS
    if file.is_file():
        weights = artifacts.load_tensors(file)
    else:
        file = run / STATE
        tensors = artifacts.load_tensors(file)
        trained = {
            name.removeprefix("weight/"): tensor for name, tensor in tensors.items() if name.startswith("weight/")
        }
        weights = before | trained
    foreign.check_finite(weights, file)
    wrong = [name for name in weights if name not in before or weights[name].shape != before[name].shape]
    if wrong:
        raise CapivaraError(f"{file} does not fit {base}: {wrong[0]} is not in the model, or has another shape there")
    return weights


def _copy_weights(clip: Clip) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in clip.model.state_dict().items()}


def _adapted_weights(run: Path, base: Clip) -> dict[str, Tensor]:
    """Return the weights of the base model with the run's adapter, which PEFT merges into `base`."""
    import torch

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
