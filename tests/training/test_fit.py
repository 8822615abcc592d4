from __future__ import annotations

from pathlib import Path

import pytest

from capivara_cli.errors import CapivaraError
from capivara_cli.training.fit import fit
from capivara_cli.training.options import read_options, train_options
from capivara_cli.training.train import train


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("images", "batch", "steps", "warmup"),
    [
        (2, 2, 50, 5),
        (40, 16, 125, 12),
        (100, 32, 156, 15),
        (1999, 512, 195, 19),
        (2000, 512, 195, 19),
        (2048, 1000, 102, 10),
        (30_000, 1000, 1500, 150),
        (4_000_000, 1000, 1500, 150),
    ],
)
def test_the_recipe_fits_any_number_of_images(images: int, batch: int, steps: int, warmup: int) -> None:
    fitted = fit(train_options("lora", lang=["hi"]), images)
    assert (fitted.batch_size, fitted.max_steps, fitted.optimizer.warmup_steps) == (batch, steps, warmup)
    assert fitted.fit == ()


def test_what_was_fitted_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    fit(train_options("lora", lang=["hi"]), 40)
    said = (
        "the recipe, fitted to 40 images: batch size 16 instead of 1,000, steps 125 instead of 1,500, warm-up steps 12"
    )
    assert capsys.readouterr().err == f"{said} instead of 250\n"


@pytest.mark.parametrize("source", ["flag", "set", "recipe file", "capivara.yaml", "config of a run"])
def test_what_was_set_is_not_fitted(source: str) -> None:
    batch, lang = "batch_size: 20", ["hi"]
    if source == "flag":
        options = train_options("lora", lang=lang, batch_size=20)
    elif source == "set":
        options = train_options("lora", lang=lang, set=["batch_size=20"])
    elif source == "recipe file":
        Path("my.yaml").write_text(batch)
        options = train_options("lora", lang=lang, recipe="my.yaml")
    elif source == "capivara.yaml":
        Path("capivara.yaml").write_text(batch)
        options = train_options("lora", lang=lang)
    else:
        Path("config.yaml").write_text(f"{batch}\nmethod: lora\nlang: [hi]")
        options = read_options(Path("config.yaml"))
        assert fit(options, 40) == options
    assert fit(options, 40).batch_size == 20


def test_a_built_in_recipe_that_is_named_is_fitted() -> None:
    options = train_options("full", lang=["hi"], recipe="capivara")
    assert options.batch_size == 2816
    assert fit(options, 40).batch_size == 16


def test_a_recipe_says_what_may_be_fitted() -> None:
    options = train_options(lang=["en"], recipe="from-scratch")
    assert fit(options, 700).max_steps == options.max_steps
    assert fit(options, 40).batch_size == 16


def test_a_warm_up_that_was_set_and_is_too_long_is_refused_with_a_way_out() -> None:
    options = train_options("lora", lang=["hi"], set=["optimizer.warmup_steps=200"])
    with pytest.raises(
        CapivaraError, match="40 images: optimizer.warmup_steps 200 is not below --max-steps 125"
    ) as error:
        fit(options, 40)
    assert "--set optimizer.warmup_steps=12" in error.value.message
    assert fit(train_options("lora", lang=["hi"], set=["optimizer.warmup_steps=12"]), 40).max_steps == 125


def test_the_line_of_the_readme_works_on_few_images_and_again(world: Path, base: Path, tmp_path: Path) -> None:
    lines = (world / "train.jsonl").read_text(encoding="utf-8").splitlines()[:40]
    data = world / "forty.jsonl"
    data.write_text("\n".join(lines), encoding="utf-8")
    options = train_options("lora", lang=["hi"], data=[str(data)], model=f"local-dir:{base}")
    run = train(options, tmp_path / "run")
    assert read_options(run / "config.yaml").batch_size == 16
    assert read_options(run / "config.yaml").max_steps == 125
    before = (run / "metrics.jsonl").read_bytes()
    train(options, run)  # is complete, and not an error
    assert (run / "metrics.jsonl").read_bytes() == before
