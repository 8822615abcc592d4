"""Model folders that cannot be: each is refused in one line that names the file, and costs no memory."""

from __future__ import annotations

import json
import os
import re
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from capivara_cli.captioning.load import load as load_captioner
from capivara_cli.captioning.options import CaptionOptions
from capivara_cli.errors import CapivaraError
from capivara_cli.models import checkpoint, model_config
from capivara_cli.models.spec import ModelSpec
from capivara_cli.runtime import Runtime
from capivara_cli.translation.local import Local
from capivara_cli.translation.options import TranslateOptions
from tests import small_models
from tests.conftest import peak_memory
from tests.forks import Forks
from tests.hostile.conftest import HUGE, VALUES, edit_json, fuzz, load_or_refuse, refusal

if TYPE_CHECKING:
    import torch

CONFIGURATIONS: list[tuple[str, dict[str, Any], str]] = [
    (model_config.CONFIG, {"model_cfg": None}, "model_cfg = None is not"),
    (model_config.CONFIG, {"model_cfg": [1]}, "model_cfg = \\[1\\] is not keys and values"),
    (model_config.CONFIG, {"model_cfg__text_cfg": None}, "text_cfg = None is not"),
    (model_config.CONFIG, {"model_cfg__vision_cfg": "x"}, "vision_cfg = 'x' is not keys and values"),
    (model_config.CONFIG, {"model_cfg__embed_dim": -1}, "embed_dim = -1 is not a number"),
    (model_config.CONFIG, {"model_cfg__embed_dim": HUGE}, "is not a number from 1 to 65,536"),
    (model_config.CONFIG, {"model_cfg__embed_dim": 96}, r"\(96,|\(96\)|96"),
    (model_config.CONFIG, {"model_cfg__text_cfg__context_length": -1}, "context_length = -1 is not"),
    (model_config.CONFIG, {"model_cfg__text_cfg__context_length": 0}, "context_length = 0 is not"),
    (model_config.CONFIG, {"model_cfg__text_cfg__context_length": "77"}, "context_length = '77' is not"),
    (model_config.CONFIG, {"model_cfg__text_cfg__context_length": HUGE}, "1 to 4,096"),
    (model_config.CONFIG, {"model_cfg__text_cfg__context_length": 41}, "41 tokens, but its text tower has only 40"),
    (model_config.CONFIG, {"model_cfg__text_cfg__hf_pooler_type": "magic"}, "'magic' is missing"),
    (model_config.CONFIG, {"model_cfg__text_cfg__magic": 1}, "magic"),
    (model_config.CONFIG, {"model_cfg__text_cfg__tokenizer_kwargs": 1}, "tokenizer_kwargs = 1 is not"),
    (model_config.CONFIG, {"model_cfg__vision_cfg__layers": HUGE}, "layers = 1000000000 is more than 512"),
    (model_config.CONFIG, {"model_cfg__vision_cfg__layers": [HUGE]}, "layers = 1000000000 is more than 512"),
    (model_config.CONFIG, {"model_cfg__vision_cfg__width": 10**6}, "GiB"),
    (model_config.CONFIG, {"model_cfg__vision_cfg__width": 64}, "in the configuration"),
    (model_config.CONFIG, {"model_cfg__vision_cfg__image_size": 10**6}, "1 to 2,048 pixels"),
    (model_config.CONFIG, {"model_cfg__vision_cfg__patch_size": 0}, "cannot be loaded"),
    (model_config.CONFIG, {"model_cfg__vision_cfg__timm_model_name": "local-dir:/"}, "a name that timm knows"),
    (model_config.CONFIG, {"preprocess_cfg__interpolation": "magic"}, "interpolation = 'magic' is not bicubic"),
    (model_config.CONFIG, {"preprocess_cfg__resize_mode": "magic"}, "resize_mode = 'magic' is not shortest"),
    (model_config.CONFIG, {"preprocess_cfg__mean": [0.5]}, "three numbers"),
    (model_config.CONFIG, {"preprocess_cfg__std": [0, 0, 0]}, "three numbers above 0"),
    (model_config.CONFIG, {"preprocess_cfg__mode": "CMYK"}, "assert self.mode in"),
    ("config.json", {"num_hidden_layers": HUGE}, "num_hidden_layers = 1000000000 is more than 512"),
    ("config.json", {"num_labels": HUGE}, "num_labels = 1000000000 is more than"),
    ("config.json", {"vocab_size": HUGE}, "word_embeddings.weight: 1000000000 x 128"),
    ("config.json", {"vocab_size": 3000}, "in the configuration"),
    ("config.json", {"max_position_embeddings": HUGE}, "GiB"),
    ("config.json", {"intermediate_size": 10**7}, "GiB"),
    ("config.json", {"num_attention_heads": 0}, "cannot be loaded"),
    ("config.json", {"model_type": "magic"}, "magic"),
]


@pytest.mark.parametrize(("file", "values", "says"), CONFIGURATIONS)
def test_a_configuration_that_cannot_be_is_one_line(file: str, values: dict[str, Any], says: str, folder: Path) -> None:
    edit_json(folder / file, **values)
    message = refusal(f"local-dir:{folder}")
    assert re.search(says, message), message
    assert str(folder) in message
    assert "\n" not in message


def test_a_configuration_without_a_model_says_so(folder: Path) -> None:
    (folder / model_config.CONFIG).write_text("{}")
    assert refusal(f"local-dir:{folder}").endswith(f"{model_config.CONFIG}: model_cfg is missing")


@pytest.mark.parametrize(
    "text", ["", "[1]", "null", "{", "[" * 100_000, '{"model_cfg": ' * 900 + "1" + "}" * 900, "\xff"]
)
@pytest.mark.parametrize("file", [model_config.CONFIG, "config.json"])
def test_a_configuration_that_is_no_json_is_one_line(file: str, text: str, folder: Path) -> None:
    (folder / file).write_text(text, encoding="latin-1")
    assert str(folder) in refusal(f"local-dir:{folder}")


def test_a_huge_configuration_costs_no_memory(forks: Forks, folder: Path) -> None:
    """Nor without weights, where only the machine's memory is the limit."""
    edit_json(folder / "config.json", vocab_size=10**8)
    script = (
        "import sys\nfrom capivara_cli.models import checkpoint, spec\nfrom capivara_cli.runtime import Runtime\n"
        "try: checkpoint.load(spec.ModelSpec('local-dir:' + sys.argv[1]), Runtime.start('cpu', 'fp32'))\n"
        "except Exception as error: assert 'GiB' in str(error), error\nelse: raise AssertionError"
    )
    assert peak_memory(forks, script, folder) < 1000
    edit_json(folder / "config.json", vocab_size=10**11)
    with pytest.raises(CapivaraError, match="this machine has"):
        checkpoint.load(ModelSpec(f"local-dir:{folder}"), Runtime.start("cpu", "fp32"), weights=False)


@pytest.mark.parametrize("file", [model_config.CONFIG, checkpoint.WEIGHTS, "config.json", "tokenizer.json", "any"])
@pytest.mark.parametrize("device", [False, True])
def test_a_pipe_or_a_device_in_a_folder_is_not_read(file: str, folder: Path, device: bool) -> None:
    (folder / file).unlink(missing_ok=True)
    if device:
        (folder / file).symlink_to("/dev/zero")
    else:
        os.mkfifo(folder / file)
    assert re.search("not a regular file|no open_clip_config.json", refusal(f"local-dir:{folder}"))


def edit_weights(folder: Path, name: str, value: torch.Tensor) -> None:
    path = folder / checkpoint.WEIGHTS
    save_file(load_file(path) | {name: value}, path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["logit_scale", "visual.proj", "text.transformer.embeddings.word_embeddings.weight"])
def test_a_weight_that_is_not_finite_is_named(name: str, value: float, folder: Path) -> None:
    weight = load_file(folder / checkpoint.WEIGHTS)[name].clone()
    weight.view(-1)[0] = value
    edit_weights(folder, name, weight)
    assert f"{name} has values that are not finite" in refusal(f"local-dir:{folder}")


def test_weights_that_are_none_say_so(folder: Path) -> None:
    save_file({}, folder / checkpoint.WEIGHTS)
    assert "has no weights" in refusal(f"local-dir:{folder}")


def test_a_longer_context_than_the_weights_have_is_not_stretched(tmp_path: Path) -> None:
    """open_clip interpolates the positions without a word."""
    small = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    image = {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16}
    config = {"model_cfg": {"embed_dim": 16, "vision_cfg": image, "text_cfg": small}, "preprocess_cfg": {}}
    (tmp_path / model_config.CONFIG).write_text(json.dumps(config))
    plain = checkpoint.load(ModelSpec(f"local-dir:{tmp_path}"), Runtime.start("cpu", "fp32"), weights=False)
    save_file(plain.model.state_dict(), tmp_path / checkpoint.WEIGHTS)
    checkpoint.load(ModelSpec(f"local-dir:{tmp_path}"), Runtime.start("cpu", "fp32"))
    edit_json(tmp_path / model_config.CONFIG, model_cfg__text_cfg__context_length=64)
    assert "positional_embedding is (16, 32), in the configuration (64, 32)" in refusal(f"local-dir:{tmp_path}")


def test_a_tokenizer_of_a_larger_vocabulary_says_so(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": 99_999, "content": "<large>"})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    edit_json(folder / "tokenizer_config.json", extra_special_tokens=["<large>"])
    clip = checkpoint.load(ModelSpec(f"local-dir:{folder}"), Runtime.start("cpu", "fp32"))
    with pytest.raises(CapivaraError, match="its tokenizer makes token .*, but its text tower knows only"):
        clip.encode_texts(["a <large> dog"])


def test_a_compressed_pickle_is_a_bomb(folder: Path) -> None:
    (folder / checkpoint.WEIGHTS).unlink()
    with zipfile.ZipFile(folder / "model.bin", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(10**7))
    assert "is compressed" in refusal(f"local-dir:{folder}")


@pytest.mark.parametrize(
    "values",
    [{"encoder_layers": HUGE}, {"d_model": 10**6}, {"vocab_size": HUGE}, {"model_type": "magic"}, {"d_model": "x"}],
    ids=str,
)
def test_a_translator_that_cannot_be_is_one_line(values: dict[str, Any], tmp_path: Path) -> None:
    folder = small_models.marian(tmp_path / "model")
    edit_json(folder / "config.json", **values)
    options = TranslateOptions(to=["hi"], backend="marian", model=str(folder))
    with pytest.raises(CapivaraError, match=str(folder)):
        list(Local(options, "hi", Runtime.start("cpu", "fp32")).translate(["a red thing"], "hi"))


@pytest.mark.parametrize(
    "values",
    [{"text_config__num_hidden_layers": HUGE}, {"text_config__vocab_size": HUGE}, {"vision_config": 1}],
    ids=str,
)
def test_a_captioner_that_cannot_be_is_one_line(values: dict[str, Any], tmp_path: Path) -> None:
    folder = small_models.blip(tmp_path / "model")
    edit_json(folder / "config.json", **values)
    with pytest.raises(CapivaraError, match=str(folder)):
        load_captioner(CaptionOptions(model=str(folder)), ("",), Runtime.start("cpu", "fp32"))


KEYS = [
    *(f"model_cfg__{name}" for name in ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "init_logit_scale")),
    *(f"model_cfg__text_cfg__{name}" for name in ("context_length", "hf_proj_type", "hf_model_name", "vocab_size")),
    *(f"model_cfg__text_cfg__{name}" for name in ("tokenizer_kwargs", "hf_tokenizer_name", "tokenizer_mode")),
    *(f"model_cfg__vision_cfg__{name}" for name in ("layers", "width", "patch_size", "image_size", "act_kwargs")),
    *(f"preprocess_cfg__{name}" for name in ("mean", "std", "size", "fill_color", "interpolation", "resize_mode")),
]
TOWER_KEYS = [
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "hidden_act", "intermediate_size"),
    *("pad_token_id", "max_position_embeddings", "type_vocab_size", "model_type", "architectures", "dtype"),
    *("attn_implementation", "quantization_config", "auto_map", "id2label", "layer_norm_eps", "is_decoder"),
]
TOKENIZER_KEYS = ["tokenizer_class", "auto_map", "model_max_length", "pad_token", "added_tokens_decoder", "backend"]
FILES_AND_KEYS = [
    *((model_config.CONFIG, key) for key in KEYS),
    *(("config.json", key) for key in TOWER_KEYS),
    *(("tokenizer_config.json", key) for key in TOKENIZER_KEYS),
]


@fuzz
@given(where=st.sampled_from(FILES_AND_KEYS), value=VALUES)
def test_whatever_a_configuration_says_it_loads_or_is_one_line(
    where: tuple[str, str], value: Any, base: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(base, tmp_path / "fuzz", dirs_exist_ok=True))
    edit_json(folder / where[0], **{where[1]: value})
    load_or_refuse(f"local-dir:{folder}")


def test_a_link_that_is_called_licence_is_not_published(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "private_key").write_text("secret")
    (folder / "LICENSE").symlink_to(tmp_path / "private_key")
    (folder / "LICENCE.txt").write_text("MIT")
    clip = checkpoint.load(ModelSpec(f"local-dir:{folder}"), Runtime.start("cpu", "fp32"))
    checkpoint.save(clip, tmp_path / "saved")
    assert (tmp_path / "saved" / "LICENCE.txt").read_text() == "MIT"
    assert not (tmp_path / "saved" / "LICENSE").exists()
