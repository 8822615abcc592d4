"""LoRA on the text tower, saved and loaded in PEFT's format."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Any

from capivara_cli import artifacts, console
from capivara_cli.errors import CapivaraError, first_line
from capivara_cli.models import adapter_config, foreign
from capivara_cli.models.clip import Clip
from capivara_cli.models.options import LoraOptions
from capivara_cli.models.spec import NOTES, adapter_folder, read_notes

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig
    from torch import Tensor

MAX_PROBLEMS = 5  # shown of an adapter that does not fit


def add(clip: Clip, lora: LoraOptions, tokens: Sequence[int] = ()) -> None:
    """Wrap the model in LoRA: only the text tower's adapter, its projection and the rows of these tokens train.

    The whole CLIP is wrapped, not only its text tower, so that plain PEFT can load the adapter onto open_clip's model:
    `PeftModel.from_pretrained(model, "runs/hi-lora/adapter")`.

    Raises CapivaraError when the text tower has none of the target layers.
    """
    from peft import LoraConfig, get_peft_model

    linear = _linear_layers(clip)
    targets = [name for name in lora.target_modules if name in linear]
    if not targets:
        raise CapivaraError(
            f"{clip.spec}: the text tower has no layers named {', '.join(lora.target_modules)}"
            f" (its linear layers: {', '.join(linear) or 'none'})",
            "--set lora.target_modules=[NAME] names others; --full trains the whole tower",
        )
    projection = lora.projection and any(True for _ in clip.model.text.proj.parameters())  # Identity has none
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=0.0,  # as in the recipe; and GradCache encodes a text twice, which must give the same features
        bias="none",
        # PEFT matches a list of names by their ends, and the image tower has layers of the same names. A string is a
        # pattern for the whole name.
        target_modules=rf"text\..*\.({'|'.join(map(re.escape, targets))})",
        modules_to_save=["text.proj"] if projection else None,
        trainable_token_indices={_word_embeddings(clip): list(tokens)} if tokens else None,
    )
    with _quiet():
        clip.model = get_peft_model(clip.model, config).eval()
    if tokens:
        _fast_token_rows(clip.model)


def _linear_layers(clip: Clip) -> list[str]:
    """Return the last parts of the names of the text tower's linear layers."""
    import torch

    modules = clip.model.text.named_modules() if clip.has_hf_text else []
    return sorted({name.rpartition(".")[2] for name, module in modules if isinstance(module, torch.nn.Linear)})


def _word_embeddings(clip: Clip) -> str:
    """Return the full name of the text tower's word embeddings."""
    embeddings = clip.model.text.transformer.get_input_embeddings()
    return next(name for name, module in clip.model.named_modules() if module is embeddings)


def _fast_token_rows(model: torch.nn.Module) -> None:
    """Replace PEFT's forward, which copies the whole embedding matrix at every step, by a lookup of the trained rows.

    XLM-R's matrix is 250,002 x 768: the copy and its gradient cost more than the rest of a step on a CPU. The
    parameters, and so the saved adapter, stay those of PEFT; the result is the same.

    The model must be on its device already: the table of slots is no parameter, and would not be moved with the model.
    """
    import torch
    from peft.tuners.trainable_tokens.layer import TrainableTokensLayer

    layer = next(module for module in model.modules() if isinstance(module, TrainableTokensLayer))
    base: Any = layer.get_base_layer()
    adapter = layer.active_adapters[0]
    slots = torch.full((base.num_embeddings,), -1, device=base.weight.device)  # token id -> its trained row, or -1
    ids = torch.tensor(layer.token_indices[adapter], device=slots.device)
    slots[ids] = torch.arange(len(ids), device=slots.device)
    peft_forward = layer.forward

    def forward(self: TrainableTokensLayer, x: Tensor) -> Tensor:
        if self.merged or self.disable_adapters:
            return peft_forward(x)
        slot = slots[x]  # (B, L)
        # (B, L, D). PEFT's `delta` holds the whole rows, not differences. A token without a trained row looks up row 0
        # here; `where` drops it, and its gradient is zero.
        trained = torch.nn.functional.embedding(slot.clamp(min=0), self.trainable_tokens_delta[adapter])
        return torch.where(slot[..., None] >= 0, trained, base(x))

    setattr(layer, "forward", MethodType(forward, layer))  # noqa: B010 - mypy does not let us assign to a method


def save(clip: Clip, folder: Path, notes: dict[str, Any], card: str = "") -> None:
    """Write the adapter as PEFT does, and beside it `capivara.json`: the notes, and the logit scale.

    Args:
        notes: `base_notes` and `base_weights` of the base model, and whatever else is to be kept.
        card: text of README.md, in the place of PEFT's empty template.
    """
    for config in clip.model.peft_config.values():
        config.base_model_name_or_path = clip.spec.public_name
    with artifacts.writing(folder) as temporary, _quiet():
        clip.model.save_pretrained(temporary, save_embedding_layers=False)
        artifacts.write_text(temporary / "README.md", card)
        artifacts.write_json(temporary / NOTES, notes | {"logit_scale": float(clip.model.logit_scale.detach())})


def load(clip: Clip, path: Path) -> None:
    """Put a saved adapter on the model's text tower, and set the logit scale that was saved beside it.

    Warns if the adapter was trained on other weights.

    Raises CapivaraError when it was made for another model, naming the layers that do not fit.
    """
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

    folder = adapter_folder(path)
    foreign.check_files(folder)
    notes = read_notes(folder)
    named = clip.spec.noted is None  # by the user; else it is the model that the adapter has noted
    hint = f"it was trained on {notes['model']}: leave --model out" if named and notes.get("model") else None
    tensors = artifacts.load_tensors(folder / "adapter_model.safetensors")
    foreign.check_finite(tensors, folder)
    settings = adapter_config.read(folder, tensors)
    # Now, because PEFT changes the model in place. A base that the adapter has noted was checked when it was loaded.
    other_weights = named and clip.has_other_weights(notes.get("base_weights"))
    try:
        with _quiet():
            config = LoraConfig(**settings, inference_mode=True)
            problems = _drop_unknown_tokens(clip, config)
            wrapped = get_peft_model(clip.model, config)
            problems += _shape_problems(wrapped, tensors)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:  # what PEFT raises for a bad config
        raise CapivaraError(f"{folder} does not fit {clip.spec}: {first_line(error)}", hint) from error
    if problems:
        more = [f"and {len(problems) - MAX_PROBLEMS} more"] if len(problems) > MAX_PROBLEMS else []
        lines = "\n       ".join(["", *problems[:MAX_PROBLEMS], *more])
        raise CapivaraError(f"{folder} does not fit {clip.spec}:{lines}", hint)
    if other_weights:
        clip.warn_of_other_weights(folder)
    with _quiet():
        set_peft_model_state_dict(wrapped, tensors)
    clip.model = wrapped.eval().to(clip.runtime.device)
    clip.spec = replace(clip.spec, adapter=folder)
    scale = notes.get("logit_scale")
    if scale is None:
        console.say(f"note: {folder} has no logit scale ({NOTES}), so the base model's is used")
    else:
        clip.model.logit_scale.data.fill_(scale)


def _drop_unknown_tokens(clip: Clip, config: LoraConfig) -> list[str]:
    """Remove the token rows from the configuration if the model does not have them all, and return what is wrong.

    A plain list of rows, which means the word embeddings, gets the name of that layer.
    """
    rows = config.trainable_token_indices or {}
    if not isinstance(rows, dict):  # PEFT would look for `embed_tokens`, which no CLIP has
        rows = config.trainable_token_indices = {_word_embeddings(clip): rows}
    problems = []
    for name, ids in rows.items():
        count = clip.model.get_submodule(name).weight.shape[0]
        if max(ids, default=0) >= count:
            problems.append(f"{name}: rows up to {max(ids)}, the model has {count}")
    if problems:
        config.trainable_token_indices = None
    return problems


def _shape_problems(wrapped: torch.nn.Module, tensors: dict[str, Tensor]) -> list[str]:
    """Return a line for each tensor that the file or the model lacks, or that has another shape in the model."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    expected = {name: tuple(tensor.shape) for name, tensor in state.items()}
    saved = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return [
        f"{name}: {saved.get(name, 'absent')}, the model has {expected.get(name, 'none')}"
        for name in sorted(expected.keys() | saved.keys())
        if expected.get(name) != saved.get(name)
    ]


def _quiet() -> warnings.catch_warnings[None]:
    """Silence PEFT's warning that the hub has no configuration of the base model: it needs none."""
    return warnings.catch_warnings(action="ignore")
