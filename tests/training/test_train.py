from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import yaml
from open_clip.loss import ClipLoss
from PIL import Image
from safetensors.torch import load_file

from capivara_cli.data import records
from capivara_cli.errors import CapivaraError
from capivara_cli.models import checkpoint
from capivara_cli.models.embedding_cache import embed
from capivara_cli.models.spec import ModelSpec
from capivara_cli.options import Optimizer, Recipe
from capivara_cli.runtime import Runtime
from capivara_cli.training.loss import MAX_LOGIT_SCALE
from capivara_cli.training.run_folder import Position, RunFolder
from capivara_cli.training.sampler import Sampler, collect
from capivara_cli.training.schedule import learning_rate
from capivara_cli.training.train import train
from capivara_cli.training.trainer import Trainer
from tests.conftest import SETTINGS, distance


def metrics(run: Path, key: str) -> list[Any]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [line[key] for line in map(json.loads, lines) if key in line]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(next(run.glob("*/*model.safetensors")))


def test_a_run_folder_holds_what_the_documentation_says(run: Path) -> None:
    files = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    assert files == {
        "config.yaml",
        "metrics.jsonl",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "adapter/capivara.json",
        "curves.png",
        "README.md",
        "run.json",
    }


def test_the_language_is_learnt_and_the_kept_one_stays(run: Path) -> None:
    assert max(metrics(run, "val/hi")) > metrics(run, "val/hi")[0] + 0.1
    assert min(metrics(run, "val/en")) > metrics(run, "val/en")[0] - 0.1


def test_every_step_equals_a_plain_loop_without_cache_and_trimming(world: Path, base: Path, tmp_path: Path) -> None:
    """Against open_clip and torch alone: pixels at every step, texts padded to the context, the paper's Adam."""
    steps, name = 6, f"local-dir:{base}"
    optimizer_settings = Optimizer(name="adam", lr=1e-3, min_lr=1e-4, eps=1e-8, warmup_steps=2)
    recipe = Recipe(method="full", lang=["hi"], batch_size=32, max_steps=steps, optimizer=optimizer_settings)
    clip = checkpoint.load(ModelSpec(name), Runtime.start("cpu", "fp32"))
    found = records.read_all([world / "train.jsonl"])
    sampler = Sampler(collect(found, ["hi"], clip), ["hi"], {}, 32, 1, 0)
    clip.model.text.requires_grad_(True)
    clip.model.logit_scale.requires_grad_(True)
    table, _, _ = embed(clip, [record.image for record in found])
    ours = Trainer(recipe, clip, RunFolder(tmp_path), sampler, table, None, lambda: None, Position())

    texts = list(dict.fromkeys(text for record in found for text in record.texts("hi")))
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    tokenizer = open_clip.get_tokenizer(name)
    model.eval().visual.requires_grad_(False)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.2)
    for step in range(steps):
        ours.step()
        rows, chosen, _ = sampler.batch(step)
        pixels = torch.stack([preprocess(Image.open(found[row].image.path)) for row in rows])
        images = model.encode_image(pixels, normalize=True)
        text = model.encode_text(tokenizer([texts[row] for row in chosen]), normalize=True)
        loss = ClipLoss()(images, text, model.logit_scale.exp())
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, max_steps=steps, warmup_steps=2, lr=1e-3, min_lr=1e-4)
        optimizer.step()
        model.logit_scale.data.clamp_(0, MAX_LOGIT_SCALE)
        # The cache holds float16, hence the tolerance.
        assert float(ours.losses[-1]) == pytest.approx(float(loss.detach()), rel=2e-3), step
    assert distance(dict(clip.model.state_dict()), model.state_dict(), load_file(base / checkpoint.WEIGHTS)) < 0.02


def test_the_image_tower_is_never_trained_unless_it_is_unlocked(world: Path, base: Path, tmp_path: Path) -> None:
    data, before = [str(world / "train.jsonl")], load_file(base / checkpoint.WEIGHTS)
    settings = ["batch_size=32", "max_steps=2", "optimizer.warmup_steps=0", "optimizer.lr=1e-3"]
    for name, unlock in (("locked", False), ("unlocked", True)):
        run = train(
            ["hi"],
            full=True,
            data=data,
            model=f"local-dir:{base}",
            set=settings,
            unlock_image=unlock,
            output=tmp_path / name,
        )
        after = load_file(run / "model" / checkpoint.WEIGHTS)
        moved = {key.partition(".")[0] for key in after if not after[key].equal(before[key].float())}
        assert moved == ({"text", "visual", "logit_scale"} if unlock else {"text", "logit_scale"})


@pytest.mark.parametrize("pixels", [False, True])
def test_the_micro_batch_does_not_change_the_result(pixels: bool, world: Path, base: Path, tmp_path: Path) -> None:
    results = []
    for size in ("auto", "7"):
        run = train(
            ["xh"],
            lora=not pixels,
            full=pixels,
            unlock_image=pixels or None,
            data=[str(world / "train.jsonl")],
            model=f"local-dir:{base}",
            set=["batch_size=32", "max_steps=3", "optimizer.warmup_steps=0", "optimizer.lr=1e-4"],
            micro_batch=size,
            output=tmp_path / size,
        )
        results.append(weights(run))
    start = load_file(base / checkpoint.WEIGHTS) if pixels else {name: 0 * value for name, value in results[0].items()}
    assert distance(results[0], results[1], start) < 0.01


def test_views_are_drawn_and_kept_beside_the_plain_one(world: Path, base: Path, tmp_path: Path) -> None:
    settings = ["batch_size=32", "max_steps=4", "optimizer.warmup_steps=0", "optimizer.lr=1e-3"]
    losses: list[list[float]] = []
    for views in (1, 3, 3):
        run = train(
            ["hi"],
            lora=True,
            views=views,
            data=[str(world / "test.jsonl")],
            model=f"local-dir:{base}",
            set=settings,
            output=tmp_path / f"views-{len(losses)}",
        )
        losses.append(metrics(run, "loss"))
    assert losses[0] != losses[1]
    assert losses[1] == losses[2]  # an image's augmented views are the same whenever they are asked for


def test_the_saved_recipe_runs_again_as_it_is(run: Path, tmp_path: Path) -> None:
    again = train(recipe=str(run / "config.yaml"), output=tmp_path / "again")
    assert (again / "config.yaml").read_text() == (run / "config.yaml").read_text()
    for name, tensor in weights(run).items():
        assert weights(again)[name].equal(tensor)


def test_a_run_that_is_complete_is_not_trained_again(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    times = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    train(recipe=str(run / "config.yaml"), output=run)
    assert "complete already" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == times


def test_a_folder_with_another_run_is_refused_by_the_settings_that_differ(run: Path) -> None:
    with pytest.raises(CapivaraError, match=r"seed: was 0, now 5"):
        train(recipe=str(run / "config.yaml"), seed=5, output=run)


def test_a_folder_with_something_else_is_never_overwritten(world: Path, base: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(CapivaraError, match="not a run of ours"):
        train(
            ["hi"],
            lora=True,
            data=[str(world / "train.jsonl")],
            model=f"local-dir:{base}",
            set=SETTINGS,
            output=tmp_path,
            overwrite=True,
        )
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_images_that_cannot_be_read_are_left_out_and_named(world: Path, base: Path, tmp_path: Path) -> None:
    lines = (world / "train.jsonl").read_text().splitlines()[:80]
    shutil.copytree(world / "images", tmp_path / "images")
    (tmp_path / "images" / "train-00003.png").write_text("not a picture")
    (tmp_path / "images" / "train-00005.png").unlink()
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    run = train(
        ["hi"],
        lora=True,
        data=[str(tmp_path / "train.jsonl")],
        model=f"local-dir:{base}",
        set=["batch_size=32", "max_steps=2", "optimizer.warmup_steps=0"],
        output=tmp_path / "run",
    )
    rejected = [json.loads(line) for line in (run / "rejected.jsonl").read_text().splitlines()]
    assert {(Path(item["image"]).name, item["reason"]) for item in rejected} == {
        ("train-00003.png", "not an image that can be read"),
        ("train-00005.png", "no such file"),
    }
    assert json.loads((run / "run.json").read_text())["rejected"] == 2


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_state(
    world: Path, base: Path, tmp_path: Path
) -> None:
    arguments: dict[str, Any] = {
        "lora": True,
        "data": [str(world / "train.jsonl")],
        "model": f"local-dir:{base}",
        "set": ["batch_size=64", "max_steps=60", "optimizer.warmup_steps=0", "eval_every=10"],
        "output": tmp_path / "run",
    }
    with pytest.raises(CapivaraError, match=r"loss of step \d+ is (nan|inf)"):
        train(["hi"], lr=1e30, **arguments)
    assert not (tmp_path / "run" / "run.json").exists()
    for path in (tmp_path / "run").glob("*/*.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_file(path).values())


def test_contradicting_settings_are_reported_together(world: Path) -> None:
    with pytest.raises(CapivaraError) as error:
        train(
            ["hi"],
            lora=True,
            data=[str(world / "train.jsonl")],
            unlock_image=True,
            micro_batch="0",
            keep=["en:1.5"],
            lr=1e-9,
        )
    for flag in ("--unlock-image", "--micro-batch 0", "--keep en:1.5", "--lr 1e-09"):
        assert flag in error.value.message


def test_the_card_says_what_the_run_was(run: Path) -> None:
    head, card = (run / "README.md").read_text().split("---\n")[1:3]
    assert yaml.safe_load(head)["language"] == ["hi", "en"]
    assert "| hi |" in card
    assert "capivara merge-lora" in card


def test_records_for_validation_are_scored_and_never_trained_on(world: Path, base: Path, tmp_path: Path) -> None:
    run = train(
        ["xh"],
        lora=True,
        data=[str(world / "train.jsonl")],
        val=str(world / "test.jsonl"),
        model=f"local-dir:{base}",
        set=["batch_size=32", "max_steps=2", "optimizer.warmup_steps=0"],
        output=tmp_path / "run",
    )
    summary = json.loads((run / "run.json").read_text())
    assert (summary["images"], summary["held_out"]) == (400, 60)
    assert set(summary["before"]) == {"xh", "en"}  # English is watched even where it is not kept


def test_several_languages_from_tar_shards(world: Path, base: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in (world / "train.jsonl").read_text().splitlines()]
    for number in range(2):
        with tarfile.open(tmp_path / f"{number:02d}.tar", "w") as shard:
            for record in lines[number * 40 : number * 40 + 40]:
                (tmp_path / "side.json").write_text(json.dumps({"captions": record["captions"]}))
                shard.add(world / record["image"], f"{record['id']}.png")
                shard.add(tmp_path / "side.json", f"{record['id']}.json")
    run = train(
        ["hi", "xh"],
        lora=True,
        data=[str(tmp_path / "{00..01}.tar")],
        model=f"local-dir:{base}",
        keep=["en:0.5"],
        set=["batch_size=32", "max_steps=2", "optimizer.warmup_steps=0", "data.val_share=0.25"],
        output=tmp_path / "run",
    )
    summary = json.loads((run / "run.json").read_text())
    assert (summary["images"], summary["held_out"]) == (60, 20)
    assert summary["captions"] == {"hi": 120, "xh": 120, "en": 120}


def test_a_language_to_keep_that_is_not_there_is_an_error_when_it_was_asked_for(world: Path) -> None:
    with pytest.raises(CapivaraError, match="no caption in fr"):
        train(["hi"], lora=True, data=[str(world / "train.jsonl")], keep=["fr"])
