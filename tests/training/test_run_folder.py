"""What a run folder may hold, when it is replaced, and what it remembers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from capivara_cli import folders
from capivara_cli.errors import CapivaraError
from capivara_cli.models.checkpoint import MODEL_FOLDER
from capivara_cli.training.options import train_options
from capivara_cli.training.run_folder import RUN_FOLDER, RunFolder, TrainerState
from tests.conftest import Refused
from tests.training.conftest import TrainSmall


def test_settings_that_do_not_change_the_result_may_change_in_a_resumed_run(tmp_path: Path) -> None:
    options = train_options("lora", lang=["hi"])
    run = RunFolder(tmp_path / "run")
    run.open(options)
    run.begin(options)
    other = options.replace(micro_batch=8, device="cpu", save_seconds=5)
    run.check(other)
    with pytest.raises(CapivaraError, match=r"settings:\n +model.name: was .*, now b\n +lora.r: was 8, now 4$"):
        run.check(other.replace(model=options.model.replace(name="b"), lora=options.lora.replace(r=4)))


@pytest.mark.parametrize("config", [None, "config.yaml"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_other_files_is_never_used(
    config: str | None, overwrite: bool, train_small: TrainSmall, tmp_path: Path
) -> None:
    """A project often has a config.yaml, as a run has."""
    project = tmp_path / "project"
    project.mkdir()
    for name in filter(None, ("thesis.tex", "README.md", config)):
        (project / name).write_text("years: [of work]")
    with pytest.raises(CapivaraError, match="not a run of ours|are not those of a run: thesis.tex|config.yaml"):
        train_small(output=project, overwrite=overwrite)
    assert (project / "thesis.tex").read_text() == "years: [of work]"
    assert not (project / ".capivara.json").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_merged_model_is_not_trained_into(overwrite: bool, tmp_path: Path) -> None:
    (tmp_path / "merged").mkdir()
    folders.mark(tmp_path / "merged", MODEL_FOLDER)
    with pytest.raises(CapivaraError, match="merged is a merged model, not a run") as error:
        RunFolder(tmp_path / "merged").check(train_options("lora", lang=["hi"], overwrite=overwrite))
    assert error.value.hint == "-o FOLDER names another folder"


@pytest.mark.parametrize("name", ["merged", "deep/merged"])
def test_a_model_that_was_merged_into_its_runs_folder_is_not_removed_with_it(name: str, tmp_path: Path) -> None:
    folders.mark(tmp_path, RUN_FOLDER)
    (tmp_path / name).mkdir(parents=True)
    (tmp_path / name / "open_clip_model.safetensors").touch()
    folders.mark(tmp_path / name, MODEL_FOLDER)
    with pytest.raises(CapivaraError, match=f"not those of a run: {name}"):
        RunFolder(tmp_path).check(train_options("lora", lang=["hi"], overwrite=True))


def test_a_full_run_is_replaced_with_its_model_whatever_files_the_tokenizer_has(tmp_path: Path) -> None:
    folders.mark(tmp_path, RUN_FOLDER)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "odd.vocabulary").touch()
    folders.mark(tmp_path / "model", MODEL_FOLDER)
    RunFolder(tmp_path).check(train_options("full", lang=["hi"], overwrite=True))


@pytest.mark.parametrize(
    ("flags", "read"),
    [
        ({"model": "local-dir:RUN/model"}, "RUN/model"),
        ({"model": "ViT-B-32", "pretrained": "RUN/adapter/adapter_model.safetensors"}, "RUN/adapter"),
        ({"val": "RUN/val.jsonl"}, "RUN/val.jsonl"),
        ({"recipe": "RUN/config.yaml"}, "RUN/config.yaml"),
    ],
)
def test_a_run_that_is_read_is_not_replaced(flags: dict[str, str], read: str, run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    flags = {name: value.replace("RUN", str(folder)) for name, value in flags.items()}
    recipe = flags.get("recipe")
    options = train_options("lora", lang=["hi"], overwrite=True, **flags)
    with pytest.raises(CapivaraError, match=f"never replaced: it holds {read.replace('RUN', str(folder))}.*is read"):
        RunFolder(folder, recipe=Path(recipe) if recipe else None).check(options)


def test_a_run_is_resumed_with_its_settings_as_recipe(run: Path) -> None:
    recipe = run / "config.yaml"
    RunFolder(run, recipe=recipe).check(train_options(recipe=str(recipe)))


@pytest.mark.parametrize("name", ["link", "link/run"])
def test_a_link_to_nothing_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    with pytest.raises(CapivaraError, match=r"link is a link to .*nothing, which does not exist") as error:
        RunFolder(tmp_path / name).check(train_options("lora", lang=["hi"]))
    assert error.value.hint == f"mkdir -p {tmp_path / 'nothing'}"


def test_a_run_is_only_replaced_once_the_new_one_can_begin(
    run: Path, world: Path, train_small: TrainSmall, tmp_path: Path
) -> None:
    old = Path(shutil.copytree(run, tmp_path / "run"))
    before = (old / "run.json").read_text()
    (tmp_path / "broken.jsonl").write_text((world / "train.jsonl").read_text().replace("images/", "nowhere/"))
    with pytest.raises(CapivaraError, match="images that can be read"):
        train_small(overwrite=True, data=[str(tmp_path / "broken.jsonl")])
    assert (old / "run.json").read_text() == before
    train_small(overwrite=True)
    assert (old / "run.json").read_text() != before
    assert {path.name for path in tmp_path.iterdir()} == {"run", "broken.jsonl"}


def test_a_run_that_cannot_begin_leaves_nothing(world: Path, train_small: TrainSmall, tmp_path: Path) -> None:
    (tmp_path / "broken.jsonl").write_text((world / "train.jsonl").read_text().replace("images/", "nowhere/"))
    with pytest.raises(CapivaraError, match="images that can be read"):
        train_small(data=[str(tmp_path / "broken.jsonl")])
    assert [path.name for path in tmp_path.iterdir()] == ["broken.jsonl"]


def test_a_resumed_run_counts_the_seconds_of_all_its_processes(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.save_state(TrainerState(seconds=100), {}, torch.optim.SGD([torch.zeros(1)]))
    first = run.read_state().seconds
    assert 0 <= first < 100
    (again := RunFolder(tmp_path)).read_state()
    assert again.seconds >= first
    again.save_state(TrainerState(), {}, torch.optim.SGD([torch.zeros(1)]))
    assert RunFolder(tmp_path).read_state().seconds >= again.seconds - 100


def test_the_recipe_that_the_command_line_names_is_not_replaced(run: Path, tmp_path: Path, refused: Refused) -> None:
    shutil.copytree(run, tmp_path / "run")
    message = refused("train", "--recipe", "run/config.yaml", "--overwrite", "-o", "run")
    assert "run is never replaced: it holds run/config.yaml, which is read" in message
