"""Models of somebody who means harm: none of their code runs, wherever a model may be named."""

from __future__ import annotations

import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from capivara_cli.captioning.load import load as load_captioner
from capivara_cli.captioning.options import CaptionOptions
from capivara_cli.config import resolve
from capivara_cli.errors import CapivaraError
from capivara_cli.evaluation.options import RetrieveOptions
from capivara_cli.models import checkpoint, model_config
from capivara_cli.models.spec import ModelSpec
from capivara_cli.runtime import Runtime
from capivara_cli.training.merge_lora import merge_lora
from capivara_cli.training.options import TrainOptions
from capivara_cli.translation.local import CTranslate2, Local
from capivara_cli.translation.options import TranslateOptions
from tests import small_models
from tests.hostile.conftest import edit_json, load_or_refuse, refusal

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
    edit_json(adapter / "capivara.json", model=f"local-dir:{evil}", model_from_run=None)
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
