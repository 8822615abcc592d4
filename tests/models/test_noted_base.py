"""Where a run's base model is found again, from wherever a command is typed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from capivara_cli.errors import CapivaraError
from capivara_cli.models import checkpoint
from capivara_cli.models.clip import Clip
from capivara_cli.models.spec import ModelSpec, base_notes
from capivara_cli.runtime import Runtime
from capivara_cli.training.merge_lora import merge_lora
from capivara_cli.training.options import MergeOptions, train_options
from capivara_cli.training.train import train
from tests.training.conftest import FEW_STEPS


class Project:
    """A folder with a base model and a run on it, both typed as they are seen from the folder."""

    def __init__(self, folder: Path, method: str, world: Path, base: Path) -> None:
        self.folder = folder
        self.base = folder / "models" / "base"
        self.run = folder / "runs" / "hi"
        shutil.copytree(base, self.base)
        data = [str(world / "train.jsonl")]
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            options = train_options(method, lang=["hi"], data=data, model="local-dir:models/base", set=FEW_STEPS)
            train(options, "runs/hi")


@pytest.fixture(scope="module", params=["lora", "full"])
def trained(
    request: pytest.FixtureRequest, world: Path, base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Project:
    return Project(tmp_path_factory.mktemp("project"), request.param, world, base)


@pytest.fixture(scope="module")
def adapted(world: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("adapted"), "lora", world, base)


def change_weights(folder: Path) -> None:
    tensors = load_file(folder / checkpoint.WEIGHTS)
    tensors["text.proj.weight"] += 0.01
    save_file(tensors, folder / checkpoint.WEIGHTS, {"format": "pt"})


def load(run: Path) -> Clip:
    return checkpoint.load(ModelSpec.pick(None, None, run), Runtime.start("cpu", "fp32"))


def weights(folder: Path) -> bytes:
    return (folder / checkpoint.WEIGHTS).read_bytes()


def test_a_run_is_merged_from_anywhere_also_after_its_project_was_moved(
    trained: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained.folder)
    expected = weights(merge_lora("runs/hi", tmp_path / "expected"))
    monkeypatch.chdir(trained.run)
    assert weights(merge_lora(".", tmp_path / "from-inside")) == expected
    moved = Path(shutil.copytree(trained.folder, tmp_path / "moved"))
    monkeypatch.chdir(tmp_path)
    trained.base.rename(trained.base.with_name("hidden"))
    try:
        assert weights(merge_lora(moved / "runs" / "hi", tmp_path / "after-a-move")) == expected
    finally:
        trained.base.with_name("hidden").rename(trained.base)


def test_an_adapter_finds_its_base_from_anywhere(adapted: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(adapted.folder)
    expected = load(Path("runs/hi")).encode_texts(["लाल तारा"])
    monkeypatch.chdir(adapted.run / "adapter")
    for path in (adapted.run, adapted.run / "adapter", Path(".."), Path()):
        assert load(path).encode_texts(["लाल तारा"]).equal(expected)


def test_the_fingerprint_decides_between_two_folders_of_one_name(
    trained: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained.folder)
    half = MergeOptions(scale=0.5)  # so that the base model's weights are in the result
    expected = weights(merge_lora("runs/hi", tmp_path / "expected", half))
    # Another model has the typed name here.
    other = Path(shutil.copytree(trained.base, tmp_path / "here" / "models" / "base"))
    change_weights(other)
    monkeypatch.chdir(tmp_path / "here")
    assert weights(merge_lora(trained.run, tmp_path / "merged", half)) == expected
    # Another model has the typed name beside the run, and the right one is in this folder.
    moved = Path(shutil.copytree(trained.folder, tmp_path / "moved"))
    change_weights(moved / "models" / "base")
    monkeypatch.chdir(trained.folder)
    assert weights(merge_lora(moved / "runs" / "hi", tmp_path / "again", half)) == expected


def test_where_no_folder_has_the_right_weights_both_are_named(
    trained: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = Path(shutil.copytree(trained.folder, tmp_path / "moved"))
    change_weights(moved / "models" / "base")
    shutil.copytree(moved / "models", tmp_path / "here" / "models")
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(CapivaraError) as caught:
        merge_lora(moved / "runs" / "hi", tmp_path / "merged")
    assert f"local-dir:{moved / 'models' / 'base'} has other weights" in caught.value.message
    assert "local-dir:models/base has other weights" in caught.value.message
    shutil.rmtree(tmp_path / "here" / "models")
    with pytest.raises(CapivaraError) as caught:
        merge_lora(moved / "runs" / "hi", tmp_path / "merged")
    assert "local-dir:models/base is no model" in caught.value.message
    assert caught.value.hint == "name it with --model NAME"
    merge_lora(moved / "runs" / "hi", tmp_path / "merged", MergeOptions(model=f"local-dir:{moved / 'models' / 'base'}"))


def test_a_file_of_weights_is_seen_from_the_run_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "clip.pt").touch()
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    notes = base_notes(ModelSpec("ViT-B-32", "weights/clip.pt"), Path("run"))
    (tmp_path / "run" / "adapter").mkdir()
    (tmp_path / "run" / "adapter" / "adapter_config.json").write_text("{}")
    (tmp_path / "run" / "adapter" / "capivara.json").write_text(json.dumps(notes))
    assert ModelSpec.pick(None, None, Path("run")).pretrained == "weights/clip.pt"
    monkeypatch.chdir(tmp_path / "run")
    assert ModelSpec.pick(None, None, Path("adapter")).pretrained == str(tmp_path / "weights" / "clip.pt")


def test_a_model_of_the_hub_is_noted_by_its_name_alone(tmp_path: Path) -> None:
    assert base_notes(ModelSpec.parse(None), tmp_path) == {
        "model": "xlm-roberta-base-ViT-B-32",
        "pretrained": "laion5b_s13b_b90k",
    }
