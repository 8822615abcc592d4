"""LoRA on the text tower, in PEFT's own form."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Any

from capivara_cli import artifacts
from capivara_cli.errors import CapivaraError
from capivara_cli.models.clip import Clip
from capivara_cli.models.options import LoraOptions
from capivara_cli.models.spec import NOTES, adapter_base, adapter_folder

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig
    from torch import Tensor

# What of an adapter's configuration is read: its shape.
SHAPE = (
    *("r", "lora_alpha", "target_modules", "exclude_modules", "modules_to_save", "trainable_token_indices", "bias"),
    *("fan_in_fan_out", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "layers_to_transform"),
    *("layers_pattern", "lora_bias"),
)


def add(clip: Clip, lora: LoraOptions, tokens: Sequence[int] = ()) -> None:
    """Wrap the model in LoRA; only the text tower's adapter, its projection and these tokens' rows then train.

    The whole CLIP is wrapped and not just its text tower, so that plain PEFT loads the adapter onto the model
    as open_clip makes it: `PeftModel.from_pretrained(model, "runs/hi-lora/adapter")`.

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
    projection = lora.projection and any(True for _ in clip.model.text.proj.parameters())
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=0.0,
        bias="none",
        # Names are matched by their ends, and the image tower has layers of the same name: say whose.
        target_modules=rf"text\..*\.({'|'.join(map(re.escape, targets))})",
        modules_to_save=["text.proj"] if projection else None,
        trainable_token_indices={_word_embeddings(clip): list(tokens)} if tokens else None,
    )
    with _Quiet():
        clip.model = get_peft_model(clip.model, config).eval()
    if tokens:
        _fast_token_rows(clip.model)


def _linear_layers(clip: Clip) -> list[str]:
    """Last names of the text tower's linear layers."""
    import torch

    parts = clip.model.text.named_modules() if clip.has_hf_text else []
    return sorted({name.rpartition(".")[2] for name, part in parts if isinstance(part, torch.nn.Linear)})


def _word_embeddings(clip: Clip) -> str:
    """Full name of the text tower's word embeddings."""
    words = clip.model.text.transformer.get_input_embeddings()
    return next(name for name, part in clip.model.named_modules() if part is words)


def _fast_token_rows(model: torch.nn.Module) -> None:
    """Look the trained rows up instead of copying the whole embedding matrix at every forward, as PEFT does.

    XLM-R's matrix has 250,002 rows of 768: the copy and its gradient cost more than the rest of a CPU step.
    The parameters, and so the saved adapter, stay PEFT's own; the result is the same.
    """
    import torch
    from peft.tuners.trainable_tokens.layer import TrainableTokensLayer

    layer = next(part for part in model.modules() if isinstance(part, TrainableTokensLayer))
    base: Any = layer.get_base_layer()
    adapter = layer.active_adapters[0]
    slots = torch.full((base.num_embeddings,), -1, device=base.weight.device)
    ids = torch.tensor(layer.token_indices[adapter], device=slots.device)
    slots[ids] = torch.arange(len(ids), device=slots.device)
    plain = layer.forward

    def forward(self: TrainableTokensLayer, x: Tensor) -> Tensor:
        if self.merged or self.disable_adapters:
            return plain(x)
        slot = slots[x][..., None]  # (B, L, 1) row of the trained ones, or -1
        rows = torch.nn.functional.embedding(slot[..., 0].clamp(min=0), self.trainable_tokens_delta[adapter])
        return torch.where(slot >= 0, rows, base(x))

    setattr(layer, "forward", MethodType(forward, layer))  # noqa: B010 - mypy forbids to assign to a method


def save(clip: Clip, folder: Path, notes: dict[str, Any]) -> None:
    """Write the adapter as PEFT does, and `capivara.json` with the base model's name and the logit scale."""
    with artifacts.writing(folder) as temporary, _Quiet():
        clip.model.save_pretrained(temporary, save_embedding_layers=False)
        (temporary / "README.md").unlink(missing_ok=True)  # PEFT's empty template; the run has a card
        artifacts.write_json(temporary / NOTES, notes | {"logit_scale": float(clip.model.logit_scale.detach())})


def load(clip: Clip, path: Path) -> None:
    """Put a saved adapter on the model's text tower.

    Raises CapivaraError when it was made for another model, naming the layers that do not fit.
    """
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

    folder = adapter_folder(path)
    tensors = artifacts.load_tensors(folder / "adapter_model.safetensors")
    try:
        with _Quiet():
            config = LoraConfig(**_harmless(folder), inference_mode=True)
            wrong = _drop_unknown_tokens(clip, config)
            wrapped = get_peft_model(clip.model, config)
            wanted = _shapes(wrapped)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise CapivaraError(f"{folder} does not fit {clip.spec}: {error}", _fit_hint(path)) from error
    given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    names = sorted(name for name in wanted.keys() | given.keys() if wanted.get(name) != given.get(name))
    wrong += [f"{name}: {given.get(name, 'absent')}, the model has {wanted.get(name, 'none')}" for name in names]
    if wrong:
        more = [f"and {len(wrong) - 5} more"] if len(wrong) > 5 else []
        lines = "\n       ".join(["", *wrong[:5], *more])
        raise CapivaraError(f"{folder} does not fit {clip.spec}:{lines}", _fit_hint(path))
    with _Quiet():
        set_peft_model_state_dict(wrapped, tensors)
    clip.model = wrapped.eval().to(clip.runtime.device)
    clip.spec = replace(clip.spec, adapter=folder)
    notes = folder / NOTES
    if notes.is_file():
        clip.model.logit_scale.data.fill_(artifacts.read_json(notes)["logit_scale"])


def _harmless(folder: Path) -> dict[str, Any]:
    """What an adapter's configuration says of its shape, and nothing that would import or compute something else.

    PEFT imports the module that `megatron_core` names, for one. Raises CapivaraError when it is no LoRA adapter.
    """
    settings = artifacts.read_json(folder / "adapter_config.json")
    kind = settings.get("peft_type") if isinstance(settings, dict) else None
    if kind != "LORA":
        raise CapivaraError(f"{folder} is no LoRA adapter: its peft_type is {kind}")
    return {key: settings[key] for key in SHAPE if settings.get(key) is not None}


def _drop_unknown_tokens(clip: Clip, config: LoraConfig) -> list[str]:
    """Take token rows that the model does not have out of the configuration, and say which they were."""
    rows = config.trainable_token_indices or {}
    if not isinstance(rows, dict):
        rows = {_word_embeddings(clip): rows}
    problems = []
    for name, ids in rows.items():
        count = clip.model.get_submodule(name).weight.shape[0]
        if max(ids) >= count:
            problems.append(f"{name}: rows up to {max(ids)}, the model has {count}")
    if problems:
        config.trainable_token_indices = None
    return problems


def _shapes(wrapped: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    from peft import get_peft_model_state_dict

    tensors = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _fit_hint(path: Path) -> str | None:
    base = adapter_base(path)
    return f"it was trained on {base}: --model {base}" if base else None


class _Quiet(warnings.catch_warnings):
    """PEFT warns that it cannot ask the hub for the base model's configuration: it need not."""

    def __enter__(self) -> Any:
        result = super().__enter__()
        warnings.simplefilter("ignore")
        return result
