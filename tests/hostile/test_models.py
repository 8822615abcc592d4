"""Models and adapters of somebody who means harm: none of their code runs, and what cannot be is one line."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from capivara_cli.captioning.load import load as load_captioner
from capivara_cli.captioning.options import CaptionOptions
from capivara_cli.config import resolve
from capivara_cli.errors import CapivaraError
from capivara_cli.evaluation.options import RetrieveOptions
from capivara_cli.models import adapter_config, checkpoint, model_config
from capivara_cli.models.spec import ModelSpec
from capivara_cli.runtime import Runtime
from capivara_cli.training.merge_lora import merge_lora
from capivara_cli.training.options import TrainOptions
from capivara_cli.translation.local import CTranslate2, Local
from capivara_cli.translation.options import TranslateOptions
from tests import small_models
from tests.conftest import peak_memory

Edit = Callable[[Path], None]

CODE = """
import pathlib
pathlib.Path({marker!r}).touch()
from transformers import AutoModel, PretrainedConfig, PreTrainedTokenizerFast, XLMRobertaTokenizerFast
class Evil(PreTrainedTokenizerFast): pass
class EvilConfig(PretrainedConfig): model_type = "evil"
"""


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that any code of a model makes. Whoever asks on the terminal whether to run it is answered with yes."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    (tmp_path / "somewhere").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "somewhere"))  # where `python -m capivara_cli` would be started
    path = tmp_path / "executed"
    yield path
    assert not path.exists()


def edit_json(path: Path, **values: Any) -> None:
    """Change keys of a JSON file; `a__b` is the key b in a."""
    content = json.loads(path.read_text()) if path.is_file() else {}
    for name, value in values.items():
        *parents, last = name.split("__")
        inner = content
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = value
    path.write_text(json.dumps(content))


def add_code(folder: Path, marker: Path) -> None:
    """Put code into a model's folder, and name it in all files where transformers looks for it."""
    (folder / "evil.py").write_text(CODE.format(marker=str(marker)))
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(CODE.format(marker=str(marker)))
    classes = (
        "AutoModel",
        "AutoModelForSeq2SeqLM",
        "AutoModelForImageTextToText",
        "AutoProcessor",
        "AutoImageProcessor",
    )
    auto_map: dict[str, Any] = {"AutoConfig": "evil.EvilConfig", **dict.fromkeys(classes, "evil.Evil")}
    edit_json(folder / "config.json", auto_map=auto_map)
    edit_json(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", "evil.Evil"]})
    for name in ("processor_config.json", "preprocessor_config.json"):
        if (folder / name).is_file():
            edit_json(folder / name, auto_map=auto_map)


def unknown_architecture(folder: Path) -> None:
    edit_json(folder / "config.json", model_type="evil", architectures=["Evil"])


def unknown_tokenizer(folder: Path) -> None:
    edit_json(folder / "tokenizer_config.json", tokenizer_class="Evil")


def own_adapter(folder: Path) -> None:
    """An adapter that transformers would load, with a module that PEFT would import."""
    marker = folder.parent / "executed"
    (folder.parent / "somewhere" / "megatron").mkdir(exist_ok=True)
    (folder.parent / "somewhere" / "megatron" / "evil.py").write_text(f"open({str(marker)!r}, 'w')")
    settings = {"peft_type": "LORA", "r": 1, "target_modules": ["q_proj", "query"], "task_type": None}
    edit_json(folder / "adapter_config.json", **settings, megatron_core="megatron.evil", megatron_config={"a": 1})
    save_file({"lora_A": torch.zeros(1, 1)}, folder / "adapter_model.safetensors")


def kernel_of_the_hub(folder: Path) -> None:
    edit_json(folder / "config.json", attn_implementation="evil/kernel")


def nothing_more(folder: Path) -> None:
    pass


KINDS = [nothing_more, unknown_architecture, unknown_tokenizer, own_adapter, kernel_of_the_hub]

# What open_clip reads in `open_clip_config.json`.
OPEN_CLIP_KEYS: list[dict[str, Any]] = [
    {},
    {"tokenizer_kwargs": {"trust_remote_code": True}},
    {"tokenizer_kwargs": {"trust_remote_code": True, "code_revision": "main"}, "hf_tokenizer_name": "other"},
    {"hf_model_name": "other", "hf_model_pretrained": True},
    {"hf_model_name": "other", "hf_tokenizer_name": "other", "custom_text": True},
]


def load_or_refuse(name: str, **options: Any) -> None:
    with suppress(CapivaraError):
        checkpoint.load(ModelSpec(name, **options), Runtime.start("cpu", "fp32"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keys", OPEN_CLIP_KEYS, ids=lambda keys: "+".join(keys) or "plain")
def test_a_model_folder_runs_no_code(
    kind: Edit, keys: dict[str, Any], base: Path, marker: Path, tmp_path: Path
) -> None:
    """Of train, score, both evaluations and merge-lora, which all load their model in this one way."""
    evil = evil_model(kind, keys, base, marker, tmp_path)
    load_or_refuse(f"local-dir:{evil}")
    if "hf_model_name" in keys:
        (evil / "config.json").unlink()  # then the text tower is loaded from where the file says
        load_or_refuse(f"local-dir:{evil}")


def evil_model(kind: Edit, keys: dict[str, Any], base: Path, marker: Path, tmp_path: Path) -> Path:
    evil, other = (Path(shutil.copytree(base, tmp_path / name)) for name in ("evil", "other"))
    for folder in (evil, other):
        add_code(folder, marker)
        kind(folder)
    paths = {name: str(other) if value == "other" else value for name, value in keys.items()}
    edit_json(evil / model_config.CONFIG, **{f"model_cfg__text_cfg__{name}": value for name, value in paths.items()})
    return evil


@pytest.mark.parametrize("kind", [nothing_more, unknown_tokenizer])
@pytest.mark.parametrize("keys", OPEN_CLIP_KEYS[1:3], ids=lambda keys: "+".join(keys))
def test_a_repository_of_the_hub_runs_no_code(
    kind: Edit, keys: dict[str, Any], base: Path, marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = evil_model(kind, keys, base, marker, tmp_path)
    commit = "0" * 40
    repo = tmp_path / "hub" / "models--evil--model"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    shutil.copytree(evil, repo / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    load_or_refuse("hf-hub:evil/model")


def test_a_model_that_an_adapter_or_a_project_names_runs_no_code(
    base: Path, run: Path, marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = evil_model(unknown_tokenizer, OPEN_CLIP_KEYS[1], base, marker, tmp_path)
    adapter = Path(shutil.copytree(run / "adapter", tmp_path / "adapter"))
    edit_json(adapter / "capivara.json", model=f"local-dir:{evil}")
    with suppress(CapivaraError):
        checkpoint.load(ModelSpec.pick(None, None, adapter), Runtime.start("cpu", "fp32"))
    with suppress(CapivaraError):
        merge_lora(adapter, tmp_path / "merged")
    monkeypatch.chdir(tmp_path)
    Path("capivara.yaml").write_text(f"model: {{name: 'local-dir:{evil}'}}\n")
    options = resolve(RetrieveOptions, {"lang": ["hi"]}, TrainOptions)
    assert options.model == f"local-dir:{evil}"
    load_or_refuse(options.model)


def test_a_model_that_needs_its_code_says_so(folder: Path, marker: Path) -> None:
    add_code(folder, marker)
    unknown_architecture(folder)
    assert refusal(f"local-dir:{folder}").endswith("it needs code or an adapter of its own, which are never run")


def test_a_needless_wish_for_remote_code_does_not_matter(base: Path, marker: Path, tmp_path: Path) -> None:
    """Many files say trust_remote_code though the libraries have the tokenizer's class."""
    folder = Path(shutil.copytree(base, tmp_path / "copy"))
    add_code(folder, marker)
    edit_json(folder / model_config.CONFIG, model_cfg__text_cfg__tokenizer_kwargs={"trust_remote_code": True})
    clip = checkpoint.load(ModelSpec(f"local-dir:{folder}"), Runtime.start("cpu", "fp32"))
    assert clip.encode_texts(["a dog"]).isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [small_models.blip, small_models.blip2, small_models.llava])
def test_a_captioner_runs_no_code(
    make: Callable[[Path], Path], kind: Edit, marker: Path, tmp_path: Path, captioners: Path
) -> None:
    source = captioners / make.__name__
    folder = Path(shutil.copytree(source if source.is_dir() else make(source), tmp_path / "evil"))
    add_code(folder, marker)
    kind(folder)
    with suppress(CapivaraError):
        load_captioner(CaptionOptions(model=str(folder)), ("",), Runtime.start("cpu", "fp32"))


@pytest.fixture(scope="module")
def captioners(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("captioners")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("engine", [Local, CTranslate2])
def test_a_translator_runs_no_code(engine: type[Local], kind: Edit, marker: Path, tmp_path: Path) -> None:
    folder = small_models.marian(tmp_path / "evil")
    add_code(folder, marker)
    kind(folder)
    options = TranslateOptions(to=["hi"], backend="marian", model=str(folder))
    with suppress(CapivaraError):
        list(engine(options, "hi", Runtime.start("cpu", "fp32")).translate(["a red thing"], "hi"))


# What is wrong, and what the message says: one line that names the file or the folder.

HUGE = 10**9
CONFIGURATIONS: list[tuple[str, dict[str, Any], str]] = [
    (model_config.CONFIG, {"model_cfg": None}, "model_cfg = 'None' is not"),
    (model_config.CONFIG, {"model_cfg": [1]}, "model_cfg = '\\[1\\]' is not keys and values"),
    (model_config.CONFIG, {"model_cfg__text_cfg": None}, "text_cfg = 'None' is not"),
    (model_config.CONFIG, {"model_cfg__vision_cfg": "x"}, "vision_cfg = 'x' is not keys and values"),
    (model_config.CONFIG, {"model_cfg__embed_dim": -1}, "embed_dim = '-1' is not a number"),
    (model_config.CONFIG, {"model_cfg__embed_dim": HUGE}, "is not a number from 1 to 65,536"),
    (model_config.CONFIG, {"model_cfg__embed_dim": 96}, r"\(96,|\(96\)|96"),
    (model_config.CONFIG, {"model_cfg__text_cfg__context_length": -1}, "context_length = '-1' is not"),
    (model_config.CONFIG, {"model_cfg__text_cfg__context_length": 0}, "context_length = '0' is not"),
    (model_config.CONFIG, {"model_cfg__text_cfg__context_length": "77"}, "context_length = '77' is not"),
    (model_config.CONFIG, {"model_cfg__text_cfg__context_length": HUGE}, "1 to 4,096"),
    (model_config.CONFIG, {"model_cfg__text_cfg__context_length": 41}, "41 tokens, but its text tower has only 40"),
    (model_config.CONFIG, {"model_cfg__text_cfg__hf_pooler_type": "magic"}, "'magic' is missing"),
    (model_config.CONFIG, {"model_cfg__text_cfg__magic": 1}, "magic"),
    (model_config.CONFIG, {"model_cfg__text_cfg__tokenizer_kwargs": 1}, "tokenizer_kwargs = '1' is not"),
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


def refusal(name: str, **options: Any) -> str:
    """Return the one line that a model which cannot be loaded is refused with."""
    with pytest.raises(CapivaraError) as error:
        checkpoint.load(ModelSpec(name, **options), Runtime.start("cpu", "fp32"))
    message = error.value.message
    assert not message.rstrip().endswith(":"), message
    assert "Error: " not in message
    return message


@pytest.fixture
def folder(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "model"))


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


def test_a_huge_configuration_costs_no_memory(folder: Path) -> None:
    """Nor without weights, where only the machine's memory is the limit."""
    edit_json(folder / "config.json", vocab_size=10**8)
    script = (
        "import sys\nfrom capivara_cli.models import checkpoint, spec\nfrom capivara_cli.runtime import Runtime\n"
        "try: checkpoint.load(spec.ModelSpec('local-dir:' + sys.argv[1]), Runtime.start('cpu', 'fp32'))\n"
        "except Exception as error: assert 'GiB' in str(error), error\nelse: raise AssertionError"
    )
    assert peak_memory(script, folder) < 1500
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


class _Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.marker), "w")


@pytest.mark.parametrize("name", ["open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth", "model.bin"])
def test_a_pickle_is_never_executed(name: str, folder: Path, marker: Path) -> None:
    (folder / checkpoint.WEIGHTS).unlink()
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"visual.proj": _Evil(marker)}))
        archive.writestr("archive/version", "3\n")
    refusal(f"local-dir:{folder}")
    (folder / name).write_bytes(pickle.dumps(_Evil(marker)))
    refusal(f"local-dir:{folder}")
    refusal("ViT-B-32", pretrained=str(folder / name))


def test_a_compressed_pickle_is_a_bomb(folder: Path) -> None:
    (folder / checkpoint.WEIGHTS).unlink()
    with zipfile.ZipFile(folder / "model.bin", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(10**7))
    assert "is compressed" in refusal(f"local-dir:{folder}")


ADAPTERS: list[tuple[str, dict[str, Any], str]] = [
    ("adapter_config.json", {"r": HUGE}, "r = 1000000000, but its weights have rank 8"),
    ("adapter_config.json", {"rank_pattern": {"query": HUGE}}, "r = 1000000000, but its weights have rank 8"),
    ("adapter_config.json", {"r": "8"}, "r = '8' is not a rank"),
    ("adapter_config.json", {"r": -1}, "r = '-1' is not a rank"),
    ("adapter_config.json", {"lora_alpha": float("nan")}, "lora_alpha = 'nan' is not a number"),
    ("adapter_config.json", {"lora_alpha": "x"}, "lora_alpha = 'x' is not a number"),
    ("adapter_config.json", {"alpha_pattern": {"query": float("inf")}}, "alpha_pattern"),
    ("adapter_config.json", {"target_modules": "("}, "target_modules = '\\(' is not names"),
    ("adapter_config.json", {"target_modules": "(t+)+x"}, "target_modules = .* is not names"),
    ("adapter_config.json", {"target_modules": "(.*)*x"}, "target_modules = .* is not names"),
    ("adapter_config.json", {"target_modules": ".*.*.*.*.*x"}, "target_modules = .* is not names"),
    ("adapter_config.json", {"target_modules": ["(a|a)*b"]}, "target_modules = .* is not names"),
    ("adapter_config.json", {"target_modules": 5}, "target_modules = '5' is not names"),
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


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
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


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.sampled_from(FILES_AND_KEYS), value=VALUES)
def test_whatever_a_configuration_says_it_loads_or_is_one_line(
    where: tuple[str, str], value: Any, base: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(base, tmp_path / "fuzz", dirs_exist_ok=True))
    edit_json(folder / where[0], **{where[1]: value})
    load_or_refuse(f"local-dir:{folder}")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from([*adapter_config.CHECKS, "logit_scale", "model", "pretrained"]), value=VALUES)
def test_whatever_an_adapter_says_it_loads_or_is_one_line(
    key: str, value: Any, base: Path, run: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(run / "adapter", tmp_path / "fuzz", dirs_exist_ok=True))
    edit_json(folder / ("adapter_config.json" if key in adapter_config.CHECKS else "capivara.json"), **{key: value})
    load_or_refuse(f"local-dir:{base}", adapter=folder)


def test_a_link_that_is_called_licence_is_not_published(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "private_key").write_text("secret")
    (folder / "LICENSE").symlink_to(tmp_path / "private_key")
    (folder / "LICENCE.txt").write_text("MIT")
    clip = checkpoint.load(ModelSpec(f"local-dir:{folder}"), Runtime.start("cpu", "fp32"))
    checkpoint.save(clip, tmp_path / "saved")
    assert (tmp_path / "saved" / "LICENCE.txt").read_text() == "MIT"
    assert not (tmp_path / "saved" / "LICENSE").exists()
