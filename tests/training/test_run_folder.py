"""What a run folder may hold, when it is replaced, and what it remembers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from capivara_cli.errors import CapivaraError
from capivara_cli.training.options import train_options
from capivara_cli.training.run_folder import RunFolder, TrainerState
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
