from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from peft.tuners.trainable_tokens.layer import TrainableTokensLayer
from safetensors.torch import load_file

from capivara_cli.demo.small_clip import make_small_clip
from capivara_cli.errors import CapivaraError
from capivara_cli.models import checkpoint
from capivara_cli.models import lora as adapters
from capivara_cli.models.clip import Clip
from capivara_cli.models.options import LoraOptions
from capivara_cli.models.spec import ModelSpec
from capivara_cli.training.trainer import trainable
from tests.helpers import plain_clip

TEXTS = ["एक छोटा लाल तारा", "a large blue cross on a grey background"]


def test_only_the_adapter_trains(clip: Clip) -> None:
    adapters.add(clip, LoraOptions(), tokens=[5, 6])
    kinds = {"lora_A", "lora_B", "text.proj", "trainable_tokens_delta"}
    names = trainable(clip)
    assert all(any(kind in name for kind in kinds) for name in names)
    assert {kind for kind in kinds for name in names if kind in name} == kinds
    assert not any("visual" in name for name in names)


def test_a_fresh_adapter_changes_nothing(clip: Clip) -> None:
    before = clip.encode_texts(TEXTS)
    adapters.add(clip, LoraOptions(), tokens=[5, 6, 7])
    torch.testing.assert_close(clip.encode_texts(TEXTS), before, rtol=0, atol=1e-6)


def test_a_model_without_the_layers_says_which_it_has(clip: Clip) -> None:
    with pytest.raises(CapivaraError, match=r"no layers named wq .*query"):
        adapters.add(clip, LoraOptions(target_modules=["wq"]))


def test_a_loaded_adapter_is_w_plus_alpha_over_r_times_b_a(clip: Clip, run: Path) -> None:
    """Base weights changed by hand, from the adapter's file alone, encode as the adapted model does."""
    config = json.loads((run / "adapter" / "adapter_config.json").read_text())
    tensors = load_file(run / "adapter" / "adapter_model.safetensors")
    state = {name: tensor.clone() for name, tensor in clip.model.state_dict().items()}
    for name, a in tensors.items():
        if name.endswith("lora_A.weight"):
            b = tensors[name.replace("lora_A", "lora_B")]
            place = name.removeprefix("base_model.model.").replace("lora_A.", "")
            state[place] += config["lora_alpha"] / config["r"] * b @ a
    for name, tensor in tensors.items():
        if "text.proj" in name:
            state[name.removeprefix("base_model.model.")] = tensor
    [(words, rows)] = config["trainable_token_indices"].items()
    delta = next(tensor for name, tensor in tensors.items() if "trainable_tokens_delta" in name)
    state[f"{words}.weight"][rows] = delta

    adapters.load(clip, run)
    adapted = clip.encode_texts(TEXTS)
    clip.model = clip.model.unload()
    clip.model.load_state_dict(state)
    torch.testing.assert_close(clip.encode_texts(TEXTS), adapted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("tokens", [[], [5, 9]])
def test_an_adapter_with_or_without_token_rows_is_loaded_as_it_was_saved(
    tokens: list[int], clip: Clip, base: Path, tmp_path: Path
) -> None:
    adapters.add(clip, LoraOptions(), tokens)
    before = clip.encode_texts(TEXTS)
    for parameter in trainable(clip).values():
        parameter.data += 0.1 * torch.randn_like(parameter)
    adapters.save(clip, tmp_path / "adapter", {"model": f"local-dir:{base}"})
    expected = clip.encode_texts(TEXTS)
    assert not torch.allclose(expected, before, atol=0.01)

    other = checkpoint.load(ModelSpec(f"local-dir:{base}"), clip.runtime)
    adapters.load(other, tmp_path / "adapter")
    torch.testing.assert_close(other.encode_texts(TEXTS), expected, rtol=0, atol=1e-6)
    names = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert any("trainable_tokens_delta" in name for name in names) == bool(tokens)


def test_token_rows_without_a_layers_name_are_those_of_the_word_embeddings(
    clip: Clip, run: Path, base: Path, tmp_path: Path
) -> None:
    adapters.load(clip, run)
    shutil.copytree(run / "adapter", tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    config = json.loads(path.read_text())
    [rows] = config["trainable_token_indices"].values()
    path.write_text(json.dumps(config | {"trainable_token_indices": rows}))
    other = checkpoint.load(ModelSpec(f"local-dir:{base}"), clip.runtime)
    adapters.load(other, tmp_path / "adapter")
    assert other.encode_texts(TEXTS).equal(clip.encode_texts(TEXTS))
    path.write_text(json.dumps(config | {"trainable_token_indices": [*rows, 10**6]}))
    other = checkpoint.load(ModelSpec(f"local-dir:{base}"), clip.runtime)
    with pytest.raises(CapivaraError, match=r"word_embeddings: rows up to 1000000, the model has \d+"):
        adapters.load(other, tmp_path / "adapter")


def test_plain_peft_loads_the_adapter(clip: Clip, run: Path, base: Path) -> None:
    model, _, tokenizer = plain_clip(base)
    peft = PeftModel.from_pretrained(model, str(run / "adapter"))
    with torch.inference_mode():
        plain = peft.encode_text(tokenizer(TEXTS), normalize=True)
    adapters.load(clip, run)
    torch.testing.assert_close(clip.encode_texts(TEXTS), plain, rtol=0, atol=1e-5)


def test_looking_token_rows_up_has_the_gradient_of_pefts_own_way(clip: Clip) -> None:
    adapters.add(clip, LoraOptions(), tokens=[5, 9, 30])
    layer = next(part for part in clip.model.modules() if isinstance(part, TrainableTokensLayer))
    ids = torch.tensor([[0, 5, 9, 5, 2], [30, 31, 1, 1, 2]])
    weights = torch.randn(2, 5, 128)
    parameter = trainable(clip)[next(name for name in trainable(clip) if "trainable_tokens_delta" in name)]
    parameter.data.add_(torch.randn_like(parameter))
    results: list[tuple[torch.Tensor, torch.Tensor]] = []
    for forward in (layer.forward, type(layer).forward.__get__(layer)):
        parameter.grad = None
        output = forward(ids)
        (output * weights).sum().backward()
        assert parameter.grad is not None
        results.append((output.detach(), parameter.grad.clone()))
    torch.testing.assert_close(results[0], results[1])


def test_an_adapter_of_another_model_names_the_layers_that_do_not_fit(clip: Clip, run: Path, tmp_path: Path) -> None:
    folder = make_small_clip(tmp_path / "wide", TEXTS * 20, vocabulary=60, width=96, embed_dim=128)
    other = checkpoint.load(ModelSpec(f"local-dir:{folder}"), clip.runtime, weights=False)
    with pytest.raises(CapivaraError, match=r"does not fit") as error:
        adapters.load(other, run)
    assert "query" in error.value.message
    assert "trained on" in (error.value.hint or "")


def test_an_adapters_configuration_cannot_import_a_module(clip: Clip, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "adapter", tmp_path / "evil")
    (tmp_path / "evil_module.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    config = json.loads((tmp_path / "evil" / "adapter_config.json").read_text())
    config |= {"megatron_core": "evil_module", "megatron_config": {"tensor_model_parallel_size": 1}}
    (tmp_path / "evil" / "adapter_config.json").write_text(json.dumps(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        adapters.load(clip, tmp_path / "evil")
    assert not (tmp_path / "executed").exists()
