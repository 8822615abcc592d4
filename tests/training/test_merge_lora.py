from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file, save_file

from capivara_cli.demo.small_clip import make_small_clip
from capivara_cli.errors import CapivaraError
from capivara_cli.models import checkpoint, lora
from capivara_cli.models.clip import Clip
from capivara_cli.models.spec import ModelSpec
from capivara_cli.runtime import Runtime
from capivara_cli.training.merge_lora import merge_lora
from capivara_cli.training.options import MergeOptions
from tests.training.conftest import TrainSmall, read_weights

TEXTS = ["एक छोटा लाल तारा", "a large blue cross on a grey background"]


@pytest.fixture(scope="module")
def merged(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return merge_lora(run, tmp_path_factory.mktemp("merged") / "clip-hi")


def load(folder: Path) -> Clip:
    return checkpoint.load(ModelSpec(f"local-dir:{folder}"), Runtime.start("cpu", "fp32"))


def load_random(folder: Path) -> Clip:
    return checkpoint.load(ModelSpec(f"local-dir:{folder}"), Runtime.start("cpu", "fp32"), weights=False)


def read_model(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / checkpoint.WEIGHTS)


def test_the_merged_model_is_base_and_adapter(merged: Path, clip: Clip, run: Path) -> None:
    lora.load(clip, run)
    ours = load(merged)
    torch.testing.assert_close(ours.encode_texts(TEXTS), clip.encode_texts(TEXTS), rtol=0, atol=1e-5)
    assert float(ours.model.logit_scale.detach()) == float(clip.model.logit_scale.detach())


@pytest.mark.parametrize("scale", [0.0, 0.5])
def test_scale_goes_from_the_base_to_the_trained_model(
    scale: float, merged: Path, base: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = merge_lora(run, tmp_path / "between", MergeOptions(scale=scale))
    assert (": 0 of " in capsys.readouterr().err) == (scale == 0)  # tensors that differ from the base model
    start, end = load_file(base / checkpoint.WEIGHTS), load_file(merged / checkpoint.WEIGHTS)
    for name, tensor in load_file(folder / checkpoint.WEIGHTS).items():
        expected = start[name].float() + scale * (end[name].float() - start[name].float())
        torch.testing.assert_close(tensor.float(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_of_half_size(dtype: Literal["float16", "bfloat16"], run: Path, merged: Path, tmp_path: Path) -> None:
    folder = merge_lora(run, tmp_path / dtype, MergeOptions(dtype=dtype))
    assert {tensor.dtype for tensor in load_file(folder / checkpoint.WEIGHTS).values()} == {getattr(torch, dtype)}
    similarity = (load(folder).encode_texts(TEXTS) * load(merged).encode_texts(TEXTS)).sum(dim=1)
    assert float(similarity.min()) > 0.999


def test_a_full_run_is_merged_too(train_small: TrainSmall, tmp_path: Path) -> None:
    run = train_small("full")
    weights = load_file(merge_lora(run, tmp_path / "merged") / checkpoint.WEIGHTS)
    assert weights.keys() == read_weights(run).keys()
    assert all(tensor.equal(weights[name]) for name, tensor in read_weights(run).items())
    (run / "run.json").unlink()  # as if it were not complete: config.yaml names the base model
    unfinished = merge_lora(run, tmp_path / "unfinished")
    assert all(tensor.equal(weights[name]) for name, tensor in load_file(unfinished / checkpoint.WEIGHTS).items())
    assert "adapted to hi" in (unfinished / "README.md").read_text()


def test_a_full_run_does_not_fit_another_base_model(train_small: TrainSmall, tmp_path: Path) -> None:
    wide = load_random(make_small_clip(tmp_path / "wide", TEXTS * 20, vocabulary=60, width=96, embed_dim=128))
    checkpoint.save(wide, tmp_path / "other")
    with pytest.raises(CapivaraError, match=r"open_clip_model\.safetensors does not fit local-dir:.*other"):
        merge_lora(train_small("full"), tmp_path / "merged", MergeOptions(model=f"local-dir:{tmp_path / 'other'}"))


def test_an_adapter_without_its_run_is_merged_too(run: Path, merged: Path, tmp_path: Path) -> None:
    folder = merge_lora(run / "adapter", tmp_path / "merged")
    expected = load_file(merged / checkpoint.WEIGHTS)
    assert all(tensor.equal(expected[name]) for name, tensor in load_file(folder / checkpoint.WEIGHTS).items())
    assert "adapted to hi" in (folder / "README.md").read_text()


def test_an_adapter_without_token_rows_is_merged(
    train_small: TrainSmall, base: Path, clip: Clip, tmp_path: Path
) -> None:
    run = train_small(recipe="capivara-opt", lang=["xh"], lr=1e-2)
    merged = load(merge_lora(run, tmp_path / "merged")).encode_texts(TEXTS)
    lora.load(clip, run)
    torch.testing.assert_close(merged, clip.encode_texts(TEXTS), rtol=0, atol=1e-5)
    assert not torch.allclose(merged, load(base).encode_texts(TEXTS), atol=1e-3)
    assert not any("trainable_tokens" in name for name in read_weights(run))


def test_an_adapter_that_does_not_name_its_base_model_needs_the_flag(run: Path, base: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "adapter", tmp_path / "adapter")
    (tmp_path / "adapter" / "capivara.json").unlink()
    with pytest.raises(CapivaraError, match="does not say which model") as caught:
        merge_lora(tmp_path / "adapter", tmp_path / "merged")
    assert caught.value.hint == "name it with --model NAME"
    folder = merge_lora(tmp_path / "adapter", tmp_path / "merged", MergeOptions(model=f"local-dir:{base}"))
    expected = merge_lora(run, tmp_path / "expected", MergeOptions(model=None))
    assert read_model(folder).keys() == read_model(expected).keys()
    base_scale = load_file(base / checkpoint.WEIGHTS)["logit_scale"]  # the note beside the adapter had the trained one
    for name, tensor in read_model(folder).items():
        assert tensor.equal(base_scale if name == "logit_scale" else read_model(expected)[name]), name


@pytest.mark.parametrize(
    ("overwrite", "says"), [(False, "already exists"), (True, "not those of a merged model: thesis.tex")]
)
def test_a_folder_with_other_files_is_never_replaced(overwrite: bool, says: str, run: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(CapivaraError, match=says):
        merge_lora(run, tmp_path, MergeOptions(overwrite=overwrite))
    assert (tmp_path / "thesis.tex").is_file()


@pytest.mark.parametrize("marked", [False, True])
def test_a_merged_model_is_replaced_also_one_of_an_older_version(
    marked: bool, merged: Path, run: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(merged, tmp_path / "merged"))
    if not marked:
        (folder / ".capivara.json").unlink()
    merge_lora(run, folder, MergeOptions(overwrite=True, scale=0.5))
    assert (folder / checkpoint.WEIGHTS).read_bytes() != (merged / checkpoint.WEIGHTS).read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]


def test_a_model_without_a_marker_that_is_not_ours_is_not_replaced(run: Path, base: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(base, tmp_path / "downloaded"))
    (folder / ".capivara.json").unlink(missing_ok=True)
    with pytest.raises(CapivaraError, match="not a merged model that capivara wrote"):
        merge_lora(run, folder, MergeOptions(overwrite=True))


def test_what_a_merged_model_is_made_from_is_never_replaced(run: Path, base: Path) -> None:
    for output in (run, run.parent, base, run / "model"):
        with pytest.raises(CapivaraError, match="never replaced"):
            merge_lora(run, output, MergeOptions(overwrite=True))


@pytest.fixture
def changed(base: Path, tmp_path: Path) -> MergeOptions:
    """Options that name a base model whose weights are not those that a run was trained on."""
    folder = Path(shutil.copytree(base, tmp_path / "changed"))
    tensors = read_model(folder)
    tensors["text.proj.weight"] += 0.01
    save_file(tensors, folder / checkpoint.WEIGHTS, {"format": "pt"})
    return MergeOptions(model=f"local-dir:{folder}", scale=0.5)


def test_other_weights_of_the_base_model_are_told(
    changed: MergeOptions, run: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = load(base).weights_fingerprint()
    for file in ("run.json", "adapter/capivara.json"):
        assert json.loads((run / file).read_text())["base_weights"] == weights
    told = f"adapter was trained on other weights than those of {changed.model}"
    merge_lora(run, tmp_path / "merged")
    assert "other weights" not in capsys.readouterr().err
    merge_lora(run, tmp_path / "other", changed)
    assert capsys.readouterr().err.count(told) == 1
    load(tmp_path / "other")
    checkpoint.load(ModelSpec(str(changed.model), adapter=run), Runtime.start("cpu", "fp32"))  # as every --adapter does
    assert capsys.readouterr().err.count(told) == 1
    older = Path(shutil.copytree(run, tmp_path / "older"))
    notes = json.loads((older / "adapter" / "capivara.json").read_text())
    del notes["base_weights"]
    (older / "adapter" / "capivara.json").write_text(json.dumps(notes))
    merge_lora(older, tmp_path / "of-older", changed)
    assert "other weights" not in capsys.readouterr().err


def test_other_weights_under_a_full_run_are_told_where_they_count(
    changed: MergeOptions, train_small: TrainSmall, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train_small("full")
    merge_lora(run, tmp_path / "half", changed)
    assert f"{run} was trained on other weights" in capsys.readouterr().err
    merge_lora(run, tmp_path / "whole", changed.replace(scale=1))
    assert "other weights" not in capsys.readouterr().err


def test_the_base_models_licence_is_included(run: Path, base: Path, tmp_path: Path) -> None:
    (base / "LICENSE").write_text("the licence of the base")
    try:
        folder = merge_lora(run, tmp_path / "merged")
    finally:
        (base / "LICENSE").unlink()
    assert (folder / "LICENSE").read_text() == "the licence of the base"
    assert "license: mit" in (folder / "README.md").read_text()  # as the base model's card says
