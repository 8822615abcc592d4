from __future__ import annotations

import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from open_clip.loss import ClipLoss
from PIL import Image
from safetensors.torch import load_file

from capivara_cli.data import image_records
from capivara_cli.errors import CapivaraError
from capivara_cli.models import checkpoint
from capivara_cli.models.clip import Clip
from capivara_cli.models.embedding_cache import embed
from capivara_cli.training.loss import MAX_LOGIT_SCALE
from capivara_cli.training.optimizer import learning_rate
from capivara_cli.training.options import OptimizerSection, TrainOptions, train_options
from capivara_cli.training.run_folder import RunFolder, TrainerState
from capivara_cli.training.sampler import Sampler, tokenise_captions
from capivara_cli.training.train import train
from capivara_cli.training.trainer import Trainer
from tests.conftest import distance
from tests.helpers import plain_clip
from tests.training.conftest import TrainSmall, read_metrics, read_weights


def test_a_run_folder_holds_what_the_documentation_says(run: Path) -> None:
    files = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    assert files == {
        "config.yaml",
        "metrics.jsonl",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "adapter/capivara.json",
        "adapter/README.md",
        "curves.png",
        "README.md",
        "run.json",
        ".capivara.json",
        "seen.safetensors",
    }


def test_the_language_is_learnt_and_the_replayed_one_stays(run: Path) -> None:
    hindi, english = read_metrics(run, "val/hi"), read_metrics(run, "val/en")
    assert max(hindi) > hindi[0] + 0.1
    assert min(english) > english[0] - 0.1


def test_every_step_equals_a_plain_loop_without_cache_and_trimming(
    world: Path, base: Path, clip: Clip, tmp_path: Path
) -> None:
    """Against open_clip and torch alone: pixels at every step, texts padded to the context, the paper's Adam."""
    steps = 6
    adam = OptimizerSection(name="adam", lr=1e-3, min_lr=1e-4, eps=1e-8, warmup_steps=2)
    options = TrainOptions(method="full", lang=["hi"], batch_size=32, max_steps=steps, optimizer=adam)
    scenes = image_records.read_all([world / "train.jsonl"])
    sampler = Sampler(tokenise_captions(scenes, ["hi"], clip), ["hi"], {}, 32, 1, 0)
    clip.model.text.requires_grad_(True)
    clip.model.logit_scale.requires_grad_(True)
    table, _, _ = embed(clip, [record.image for record in scenes])
    ours = Trainer(options, clip, RunFolder(tmp_path), sampler, table, None, lambda: None, TrainerState())

    texts = list(dict.fromkeys(text for record in scenes for text in record.texts("hi")))
    model, preprocess, tokenizer = plain_clip(base)
    model.visual.requires_grad_(False)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.2)
    for step in range(steps):
        ours.step()
        batch = sampler.batch(step)
        pixels = torch.stack([preprocess(Image.open(scenes[image].image.path)) for image in batch.images])
        image_features = model.encode_image(pixels, normalize=True)
        text_features = model.encode_text(tokenizer([texts[text_id] for text_id in batch.text_ids]), normalize=True)
        loss = ClipLoss()(image_features, text_features, model.logit_scale.exp())
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, adam)
        optimizer.step()
        model.logit_scale.data.clamp_(0, MAX_LOGIT_SCALE)
        # The cache holds float16, hence the tolerance.
        assert float(ours.losses[-1]) == pytest.approx(float(loss.detach()), rel=2e-3), step
    assert distance(dict(clip.model.state_dict()), model.state_dict(), load_file(base / checkpoint.WEIGHTS)) < 0.02


@pytest.mark.parametrize("unlock", [False, True])
def test_the_image_tower_is_never_trained_unless_it_is_unlocked(
    unlock: bool, base: Path, train_small: TrainSmall
) -> None:
    before, after = load_file(base / checkpoint.WEIGHTS), read_weights(train_small("full", unlock_image=unlock))
    moved = {key.partition(".")[0] for key in after if not after[key].equal(before[key].float())}
    assert moved == ({"text", "visual", "logit_scale"} if unlock else {"text", "logit_scale"})


@pytest.mark.parametrize("pixels", [False, True])
def test_the_micro_batch_does_not_change_the_result(pixels: bool, base: Path, train_small: TrainSmall) -> None:
    method, settings = "full" if pixels else "lora", ["max_steps=3", "optimizer.lr=1e-4"]
    whole, cut = (
        read_weights(train_small(method, size, lang=["xh"], unlock_image=pixels, micro_batch=size, set=settings))
        for size in ("auto", "7")
    )
    start = load_file(base / checkpoint.WEIGHTS) if pixels else {name: 0 * value for name, value in whole.items()}
    assert distance(whole, cut, start) < 0.01


def test_views_are_drawn_and_kept_beside_the_plain_one(world: Path, train_small: TrainSmall) -> None:
    data = [str(world / "test.jsonl")]
    losses = [
        read_metrics(train_small(output=f"{index}", views=views, data=data, set=["max_steps=4"]), "loss")
        for index, views in enumerate((1, 3, 3))
    ]
    assert losses[0] != losses[1]
    assert losses[1] == losses[2]  # an image's augmented views are the same in every run


def test_the_saved_recipe_runs_again_as_it_is(run: Path, tmp_path: Path) -> None:
    again = train(train_options(recipe=str(run / "config.yaml")), tmp_path / "again")
    assert (again / "config.yaml").read_text() == (run / "config.yaml").read_text()
    for name, tensor in read_weights(run).items():
        assert read_weights(again)[name].equal(tensor)


def test_a_complete_run_is_not_trained_again(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    times = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    train(train_options(recipe=str(run / "config.yaml")), run)
    assert "is already complete" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == times


def test_a_folder_with_another_run_is_refused_by_the_settings_that_differ(run: Path) -> None:
    with pytest.raises(CapivaraError, match=r"seed: was 0, now 5"):
        train(train_options(recipe=str(run / "config.yaml"), seed=5), run)


def test_overwrite_replaces_a_run_by_a_new_one(train_small: TrainSmall) -> None:
    old = train_small(lang=["xh"], set=["max_steps=3"])
    (old / "rejected.jsonl").write_text("{}\n")
    with pytest.raises(CapivaraError, match=r"max_steps: was 3, now 2"):
        train_small()
    new = train_small(overwrite=True)
    assert json.loads((new / "run.json").read_text())["lang"] == ["hi"]
    assert read_metrics(new, "step") == [0, 2, 2]  # as in a new folder: validation, the last step, validation
    assert not (new / "rejected.jsonl").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_is_not_a_run_folder(overwrite: bool, train_small: TrainSmall, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("years of work")
    with pytest.raises(CapivaraError, match=r"notes\.txt"):
        train_small(output="notes.txt", overwrite=overwrite)
    assert (tmp_path / "notes.txt").read_text() == "years of work"


def test_what_a_killed_process_left_in_a_run_is_removed_when_it_is_resumed(tmp_path: Path) -> None:
    options = train_options("lora", lang=["hi"])
    for _ in range(2):
        with RunFolder(tmp_path / "run") as run:
            run.open(options)
            run.begin(options)
        files = sorted(path.name for path in (tmp_path / "run").rglob("*"))
        assert files == [".capivara.json", "config.yaml"]
        (tmp_path / "run" / ".state.safetensors.1.tmp").write_text("half")
        (tmp_path / "run" / ".adapter.1.tmp").mkdir()


@pytest.mark.parametrize(("rank", "written"), [(0, 1), (1, 0)])
def test_only_the_first_rank_writes_the_weights_of_a_run_without_validation(
    rank: int, written: int, world: Path, clip: Clip, tmp_path: Path
) -> None:
    scenes = image_records.read_all([world / "train.jsonl"])
    sampler = Sampler(tokenise_captions(scenes, ["hi"], clip), ["hi"], {}, 32, 1, 0)
    table, _, _ = embed(clip, [record.image for record in scenes])
    clip.model.text.requires_grad_(True)
    options = TrainOptions(method="full", lang=["hi"], batch_size=32, max_steps=1)
    saved: list[int] = []
    state = TrainerState()
    trainer = Trainer(options, clip, RunFolder(tmp_path), sampler, table, None, lambda: saved.append(state.step), state)
    trainer.step()
    clip.runtime = replace(clip.runtime, rank=rank)
    trainer.fit()  # no step is left: only the end of a run
    assert saved == [1] * written


def test_a_lower_micro_batch_takes_effect_in_a_resumed_run(world: Path, clip: Clip, tmp_path: Path) -> None:
    scenes = image_records.read_all([world / "train.jsonl"])
    sampler = Sampler(tokenise_captions(scenes, ["hi"], clip), ["hi"], {}, 32, 1, 0)
    table, _, _ = embed(clip, [record.image for record in scenes])
    clip.model.text.requires_grad_(True)

    def micro_batch(saved: int | None, option: int | None) -> int | None:
        options = TrainOptions(method="full", lang=["hi"], batch_size=32, micro_batch=option)
        state = TrainerState(micro_batch=saved)
        return Trainer(options, clip, RunFolder(tmp_path), sampler, table, None, lambda: None, state).state.micro_batch

    assert micro_batch(None, None) == 32  # estimated: the batch fits as a whole
    assert micro_batch(None, 16) == 16
    assert micro_batch(16, 8) == 8
    assert micro_batch(8, 16) == 8  # a run that was out of memory does not grow again
    assert micro_batch(8, None) == 8


def test_images_that_cannot_be_read_are_left_out_and_named(
    world: Path, train_small: TrainSmall, tmp_path: Path
) -> None:
    shutil.copytree(world / "images", tmp_path / "images")
    (tmp_path / "images" / "train-00003.png").write_text("not a picture")
    (tmp_path / "images" / "train-00005.png").unlink()
    (tmp_path / "train.jsonl").write_text("\n".join((world / "train.jsonl").read_text().splitlines()[:80]))
    run = train_small(data=[str(tmp_path / "train.jsonl")])
    rejected = [json.loads(line) for line in (run / "rejected.jsonl").read_text().splitlines()]
    assert {(Path(item["image"]).name, item["reason"]) for item in rejected} == {
        ("train-00003.png", "not an image that can be read"),
        ("train-00005.png", "no such file"),
    }
    assert json.loads((run / "run.json").read_text())["rejected"] == 2


def test_a_loss_that_is_not_a_number_stops_the_run_and_keeps_the_last_good_state(
    train_small: TrainSmall, tmp_path: Path
) -> None:
    with pytest.raises(CapivaraError, match=r"loss of step \d+ is (nan|inf)"):
        train_small(lr=1e30, batch_size=64, max_steps=60, set=["eval_every=10"])
    assert not (tmp_path / "run" / "run.json").exists()
    for path in (tmp_path / "run").glob("*/*.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_file(path).values())


def test_contradicting_settings_are_reported_together() -> None:
    with pytest.raises(CapivaraError) as caught:
        train_options("lora", lang=["hi"], unlock_image=True, replay=["en:1.5"], lr=1e-9)
    for flag in ("--unlock-image", "--replay en:1.5", "--lr 1e-09"):
        assert flag in caught.value.message


def test_the_card_says_what_the_run_was(run: Path) -> None:
    head, card = (run / "README.md").read_text().split("---\n")[1:3]
    assert yaml.safe_load(head)["language"] == ["hi", "en"]
    assert "| hi |" in card
    assert "capivara merge-lora" in card
    assert f"capivara train --recipe {run}/config.yaml -o again" in card


def test_records_for_validation_are_scored_and_never_trained_on(world: Path, train_small: TrainSmall) -> None:
    run = train_small(lang=["xh"], val=str(world / "test.jsonl"), replay={})
    summary = json.loads((run / "run.json").read_text())
    assert (summary["images"], summary["held_out"]) == (400, 60)
    assert set(summary["before"]) == {"xh", "en"}  # English is watched even where it is not replayed


def test_several_languages_from_tar_shards(world: Path, train_small: TrainSmall, tmp_path: Path) -> None:
    scenes = [json.loads(line) for line in (world / "train.jsonl").read_text().splitlines()]
    for number in range(2):
        with tarfile.open(tmp_path / f"{number:02d}.tar", "w") as shard:
            for record in scenes[number * 40 : number * 40 + 40]:
                (tmp_path / "side.json").write_text(json.dumps({"captions": record["captions"]}))
                shard.add(world / record["image"], f"{record['id']}.png")
                shard.add(tmp_path / "side.json", f"{record['id']}.json")
    data = [str(tmp_path / "{00..01}.tar")]
    run = train_small(lang=["hi", "xh"], data=data, replay=["en:0.5"], set=["data.val_share=0.25"])
    summary = json.loads((run / "run.json").read_text())
    assert (summary["images"], summary["held_out"]) == (60, 20)
    assert summary["captions"] == {"hi": 120, "xh": 120, "en": 120}


def test_an_image_with_several_records_or_names_is_one_image(
    world: Path, train_small: TrainSmall, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 100 images, 50 have a second record, and 30 a copy under another name."""
    rows = [json.loads(line) for line in (world / "train.jsonl").read_text().splitlines()][:100]
    for number, row in enumerate(rows):
        row["image"] = str(world / row["image"])
        row["captions"] = [{"text": f"तारा {number}", "lang": "hi"}]
    again = [row | {"id": f"again-{row['id']}", "captions": [{"text": "फिर", "lang": "hi"}]} for row in rows[:50]]
    copies = [row | {"id": f"copy-{row['id']}"} for row in rows[50:80]]
    for row in copies:
        row["image"] = str(shutil.copy(row["image"], tmp_path / f"{row['id']}.png"))
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, [*rows, *again, *copies])))
    run = train_small(data=[str(tmp_path / "data.jsonl")], replay={}, set=["data.val_share=0.5"])
    summary, said = json.loads((run / "run.json").read_text()), capsys.readouterr().err
    assert "50 records of an image that came before" in said
    assert "30 images are copies of others" in said
    assert (summary["held_out"], summary["images"]) == (50, 50)


def test_fewer_images_than_a_batch_are_refused_with_a_size_that_fits(train_small: TrainSmall) -> None:
    with pytest.raises(
        CapivaraError, match="400 images with captions in hi, en, fewer than the batch of 500"
    ) as caught:
        train_small(batch_size=500)
    assert caught.value.hint == "--batch-size 128"


def test_a_language_to_replay_that_the_data_do_not_have_is_an_error_only_when_it_was_typed(
    train_small: TrainSmall,
) -> None:
    with pytest.raises(CapivaraError, match="no caption in fr"):
        train_small(replay=["fr"])
    run = train_small(set=["replay={fr: 0.5}"])
    assert json.loads((run / "run.json").read_text())["captions"].keys() == {"hi"}
    assert "language:\n- hi\nlibrary_name" in (run / "README.md").read_text()
