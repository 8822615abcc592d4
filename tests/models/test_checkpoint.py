from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from capivara_cli.errors import CapivaraError
from capivara_cli.models import checkpoint, model_config
from capivara_cli.models.clip import Clip
from capivara_cli.models.spec import ModelSpec
from capivara_cli.runtime import Runtime
from tests.helpers import plain_clip

TEXTS = ["a small red circle", "a large blue star above a small green square on a white background", "लाल तारा", ""]


def load_folder(folder: Path) -> Clip:
    return checkpoint.load(ModelSpec(f"local-dir:{folder}"), Runtime.start("cpu", "fp32"))


def test_a_saved_model_is_the_same_in_plain_open_clip(clip: Clip, tmp_path: Path) -> None:
    checkpoint.save(clip, tmp_path / "copy")
    model, _, tokenizer = plain_clip(tmp_path / "copy")
    with torch.inference_mode():
        texts = model.encode_text(tokenizer(TEXTS), normalize=True)
    torch.testing.assert_close(clip.encode_texts(TEXTS), texts, rtol=0, atol=1e-6)


def read_text_cfg(folder: Path) -> dict[str, Any]:
    text_cfg: dict[str, Any] = json.loads((folder / model_config.CONFIG).read_text())["model_cfg"]["text_cfg"]
    return text_cfg


def test_the_name_of_the_text_tower_is_kept_and_a_path_of_an_older_version_is_not(
    clip: Clip, base: Path, tmp_path: Path
) -> None:
    checkpoint.save(clip, tmp_path / "kept")
    assert read_text_cfg(tmp_path / "kept")["hf_model_name"] == "capivara-demo"
    older = Path(shutil.copytree(base, tmp_path / "older"))
    config = json.loads((older / model_config.CONFIG).read_text())
    config["model_cfg"]["text_cfg"] |= {"hf_model_name": "/nowhere/older", "hf_tokenizer_name": "/nowhere/older"}
    (older / model_config.CONFIG).write_text(json.dumps(config))
    loaded = load_folder(older)
    assert loaded.encode_texts(TEXTS).equal(clip.encode_texts(TEXTS))
    checkpoint.save(loaded, tmp_path / "renamed")
    text_cfg = read_text_cfg(tmp_path / "renamed")
    assert (text_cfg["hf_model_name"], text_cfg["hf_tokenizer_name"]) == ("renamed", "renamed")


def test_random_weights_follow_the_seed(base: Path) -> None:
    def weights(seed: int) -> torch.Tensor:
        runtime = Runtime.start("cpu", "fp32", seed)
        return checkpoint.load(ModelSpec(f"local-dir:{base}"), runtime, weights=False).encode_texts(TEXTS)

    assert weights(1).equal(weights(1))
    assert not weights(1).equal(weights(2))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("xlm-roberta-bse-ViT-B-32", "did you mean xlm-roberta-base-ViT-B-32"),
        ("ViT-B-32", "openai"),
        ("ViT-B-32:opnai", "has no weights opnai"),
        ("local-dir:nowhere", "no open_clip_config.json"),
    ],
)
def test_a_name_that_cannot_be_loaded_says_what_there_is(name: str, says: str) -> None:
    with pytest.raises(CapivaraError, match=says):
        checkpoint.load(ModelSpec.parse(name), Runtime.start("cpu", "fp32"))


def test_a_folder_without_weights_says_so(base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "empty", ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(CapivaraError, match="no weights"):
        load_folder(tmp_path / "empty")


def test_weights_that_are_cut_short_are_one_clear_line(base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "cut")
    weights = tmp_path / "cut" / checkpoint.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:100_000])
    with pytest.raises(CapivaraError, match="cannot be loaded"):
        load_folder(tmp_path / "cut")
