"""Adapters that cannot be: each is refused in one line that names the file."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from capivara_cli.models import adapter_config, checkpoint
from capivara_cli.models.spec import ModelSpec
from capivara_cli.runtime import Runtime
from tests.hostile.conftest import HUGE, VALUES, edit_json, fuzz, load_or_refuse, refusal

ADAPTERS: list[tuple[str, dict[str, Any], str]] = [
    ("adapter_config.json", {"r": HUGE}, "r = 1000000000, but its weights have rank 8"),
    ("adapter_config.json", {"rank_pattern": {"query": HUGE}}, "r = 1000000000, but its weights have rank 8"),
    ("adapter_config.json", {"r": "8"}, "r = '8' is not a rank"),
    ("adapter_config.json", {"r": -1}, "r = -1 is not a rank"),
    ("adapter_config.json", {"lora_alpha": float("nan")}, "lora_alpha = nan is not a number"),
    ("adapter_config.json", {"lora_alpha": "x"}, "lora_alpha = 'x' is not a number"),
    ("adapter_config.json", {"alpha_pattern": {"query": float("inf")}}, "alpha_pattern"),
    ("adapter_config.json", {"target_modules": "("}, "target_modules = '\\(' is not names"),
    ("adapter_config.json", {"target_modules": "(t+)+x"}, "target_modules = .* is not names"),
    ("adapter_config.json", {"target_modules": "(.*)*x"}, "target_modules = .* is not names"),
    ("adapter_config.json", {"target_modules": ".*.*.*.*.*x"}, "target_modules = .* is not names"),
    ("adapter_config.json", {"target_modules": ["(a|a)*b"]}, "target_modules = .* is not names"),
    ("adapter_config.json", {"target_modules": 5}, "target_modules = 5 is not names"),
    ("adapter_config.json", {"target_modules": []}, "does not fit|no "),
    ("adapter_config.json", {"exclude_modules": "(t+)+x"}, "exclude_modules = .* is not names"),
    ("adapter_config.json", {"layers_pattern": "(t+)+x"}, "layers_pattern = .* is not names"),
    ("adapter_config.json", {"rank_pattern": {"(t+)+x": 8}}, "rank_pattern = .* is not ranks by name"),
    ("adapter_config.json", {"modules_to_save": ["("]}, "modules_to_save = .* is not names"),
    ("adapter_config.json", {"layers_to_transform": "x"}, "layers_to_transform = 'x' is not"),
    ("adapter_config.json", {"trainable_token_indices": {"visual": [1]}}, "does not fit"),
    ("adapter_config.json", {"trainable_token_indices": [-1]}, "trainable_token_indices = .* is not"),
    ("adapter_config.json", {"trainable_token_indices": []}, "does not fit"),
    ("adapter_config.json", {"bias": "magic"}, "bias = 'magic' is not"),
    ("adapter_config.json", {"use_dora": "yes"}, "use_dora = 'yes' is not true or false"),
    ("adapter_config.json", {"peft_type": None}, "not a LoRA adapter"),
    ("adapter_config.json", {"peft_type": "IA3"}, "not a LoRA adapter: its peft_type is IA3"),
    ("capivara.json", {"logit_scale": float("nan")}, "logit_scale = nan is not a number"),
    ("capivara.json", {"logit_scale": float("inf")}, "logit_scale = inf is not a number"),
    ("capivara.json", {"logit_scale": "x"}, "logit_scale = 'x' is not a number"),
    ("capivara.json", {"logit_scale": [4.6]}, "logit_scale = \\[4.6\\] is not a number"),
    ("capivara.json", {"logit_scale": True}, "logit_scale = True is not a number"),
    ("capivara.json", {"logit_scale": 1e9}, "logit_scale = 1000000000.0 is not a number"),
    ("capivara.json", {"model": 5}, "model = 5 is not a name"),
    ("capivara.json", {"pretrained": {}}, "pretrained = {} is not a name"),
]


@pytest.fixture
def adapter(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run / "adapter", tmp_path / "adapter"))


@pytest.mark.parametrize(("file", "values", "says"), ADAPTERS)
def test_an_adapter_that_cannot_be_is_one_line(
    file: str, values: dict[str, Any], says: str, adapter: Path, base: Path
) -> None:
    edit_json(adapter / file, **values)
    message = refusal(f"local-dir:{base}", adapter=adapter)
    assert re.search(says, message), message
    assert str(adapter) in message


@pytest.mark.parametrize("file", ["adapter_config.json", "capivara.json"])
@pytest.mark.parametrize("text", ["", "[1]", "null", "{", "[" * 100_000])
def test_an_adapters_file_that_is_no_json_is_one_line(file: str, text: str, adapter: Path, base: Path) -> None:
    (adapter / file).write_text(text)
    assert str(adapter) in refusal(f"local-dir:{base}", adapter=adapter)


def test_an_adapters_weight_that_is_not_finite_is_named(adapter: Path, base: Path) -> None:
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if "lora_B" in name)
    save_file(tensors | {name: tensors[name] * float("nan")}, path)
    assert f"{name} has values that are not finite" in refusal(f"local-dir:{base}", adapter=adapter)


def test_an_adapter_that_is_a_pipe_is_not_read(adapter: Path, base: Path) -> None:
    (adapter / "adapter_model.safetensors").unlink()
    os.mkfifo(adapter / "adapter_model.safetensors")
    assert "not a regular file" in refusal(f"local-dir:{base}", adapter=adapter)


@pytest.mark.parametrize("keeps_notes", [False, True])
def test_an_adapter_without_a_logit_scale_takes_the_base_models(
    keeps_notes: bool, adapter: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scale = checkpoint.load(ModelSpec(f"local-dir:{base}"), Runtime.start("cpu", "fp32")).model.logit_scale.item()
    (adapter / "capivara.json").write_text("{}") if keeps_notes else (adapter / "capivara.json").unlink()
    capsys.readouterr()
    clip = checkpoint.load(ModelSpec(f"local-dir:{base}", adapter=adapter), Runtime.start("cpu", "fp32"))
    assert clip.model.logit_scale.item() == scale
    assert capsys.readouterr().err.count("has no logit scale") == 1


@pytest.mark.parametrize("pattern", ["text\\..*\\.(query|value)", "query", "text.transformer.encoder.layer.0.query"])
def test_patterns_that_peft_users_write_are_still_allowed(pattern: str) -> None:
    assert adapter_config.CHECKS["target_modules"][0](pattern)
    assert adapter_config.CHECKS["target_modules"][0]([pattern])


@fuzz
@given(key=st.sampled_from([*adapter_config.CHECKS, "logit_scale", "model", "pretrained"]), value=VALUES)
def test_whatever_an_adapter_says_it_loads_or_is_one_line(
    key: str, value: Any, base: Path, run: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(run / "adapter", tmp_path / "fuzz", dirs_exist_ok=True))
    edit_json(folder / ("adapter_config.json" if key in adapter_config.CHECKS else "capivara.json"), **{key: value})
    load_or_refuse(f"local-dir:{base}", adapter=folder)
