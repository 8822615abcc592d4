"""The recipes: what is built in, and what a run's settings are made of."""

from __future__ import annotations

import importlib.resources
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from capivara_cli.data.records import languages, read
from capivara_cli.errors import BadOption, CapivaraError
from capivara_cli.training.options import TrainOptions, read_options, to_yaml, train_options

RECIPES = {path.stem: path for path in Path(str(importlib.resources.files("capivara_cli.configs"))).glob("*.yaml")}


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def lora(*sets: str, **flags: Any) -> TrainOptions:
    return train_options("lora", **{"lang": ["hi"], "set": sets} | flags)


def recipe(text: str, name: str = "r.yaml") -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


@pytest.mark.parametrize("name", RECIPES)
def test_a_built_in_recipe_is_what_its_file_says(name: str) -> None:
    values = yaml.safe_load(RECIPES[name].read_text(encoding="utf-8"))
    options = train_options(recipe=name, lang=["hi"])
    assert (options.method, options.batch_size) == (values["method"], values["batch_size"])
    assert (options.max_steps, options.replay) == (values["max_steps"], values["replay"])
    assert options.optimizer.lr == values["optimizer"]["lr"]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        # arXiv 2310.13683, section 4, and the published code. CAPIVARA + Opt.: Adam, 1,500 steps of 1,000.
        ("capivara-opt", ("adam", 1e-5, 1e-6, (0.9, 0.98), 1e-6, 0.2, 250, 1000, 1500)),
        ("capivara-plus", ("adamw", 1e-5, 1e-6, (0.9, 0.98), 1e-6, 0.2, 250, 1000, 1500)),
        # CAPIVARA: the whole text tower, 5,863 steps of 2,816.
        ("capivara", ("adam", 5e-7, 1e-7, (0.9, 0.98), 1e-8, 0.2, 500, 2816, 5863)),
    ],
)
def test_the_recipes_have_the_papers_values(name: str, values: tuple[object, ...]) -> None:
    options = train_options(recipe=name, lang=["hi"])
    adam = options.optimizer
    rates = (adam.name, adam.lr, adam.min_lr, tuple(adam.betas), adam.eps, adam.weight_decay, adam.warmup_steps)
    assert (*rates, options.batch_size, options.max_steps) == values


@pytest.mark.parametrize(
    ("name", "others", "tokens", "replay"),
    [
        ("capivara-opt", [], False, {}),
        ("capivara-plus", ["q_proj", "v_proj", "q", "v"], True, {"en": 0.25}),  # for other text towers
    ],
)
def test_the_papers_lora_is_rank_8_on_query_and_value(
    name: str, others: list[str], tokens: bool, replay: dict[str, float]
) -> None:
    options = train_options(recipe=name, lang=["hi"])
    lora = options.lora
    assert (lora.r, lora.alpha, list(lora.target_modules), lora.projection) == (8, 8, ["query", "value", *others], True)
    assert (lora.tokens, options.replay) == (tokens, replay)


@pytest.mark.parametrize(
    ("text", "sets", "message"),
    [
        ("batch_size: {a: 1}", [], "r.yaml: batch_size = {'a': 1}: not a number"),
        ("batch_size: {a: 1}", ["max_steps=9"], "r.yaml: batch_size = {'a': 1}: not a number"),
        ("max_steps: 9", ["batch_size={a: 1}"], "--set: batch_size = {'a': 1}: not a number"),
        ("max_steps: 9", ["batch_size.a=1"], "--set: batch_size = {'a': 1}: not a number"),
        ("batch_size: 64", ["batch_size.a=1"], "--set: batch_size = {'a': 1}: not a number"),
    ],
)
def test_keys_where_a_number_is_expected_are_blamed_on_who_wrote_them(text: str, sets: list[str], message: str) -> None:
    with pytest.raises(CapivaraError) as error:
        lora(*sets, recipe=recipe(text))
    assert error.value.message == message


def test_the_method_chooses_the_recipe_below_all() -> None:
    full = train_options("full", lang=["hi"])
    assert (lora().batch_size, lora().replay, lora().optimizer.name) == (1000, {"en": 0.25}, "adamw")
    assert (full.batch_size, full.replay, full.optimizer.name) == (2816, {}, "adam")
    assert train_options(set=["method=full"], lang=["hi"]) == full
    assert train_options(recipe=recipe("method: full"), lang=["hi"]) == full
    other = train_options("full", recipe="capivara-opt", lang=["hi"])
    assert (other.method, other.optimizer.lr) == ("full", 1e-5)


@pytest.mark.parametrize(
    ("method", "text", "message"),
    [
        (None, "{}", "neither --lora nor --full"),
        ("fulll", "{}", "method = 'fulll': neither lora nor full"),
        (None, "method: [lora]", "method = ['lora']: neither lora nor full"),
    ],
)
def test_without_a_method_both_are_offered(method: str | None, text: str, message: str) -> None:
    with pytest.raises(CapivaraError) as error:
        train_options(method, recipe=recipe(text), lang=["hi"])
    assert error.value.message == message


def test_each_layer_goes_over_those_before_it() -> None:
    recipe("batch_size: 2\nmax_steps: 400\neval_every: 2\nseed: 2\ntrain: {views: 7, lr: 0.5}", "capivara.yaml")
    file = recipe("max_steps: 300\neval_every: 3\nseed: 3\noptimizer: {eps: 0.5}")
    options = lora("eval_every=4", "seed=4", recipe=file, seed=5)
    assert (options.batch_size, options.views, options.max_steps, options.eval_every) == (2, 7, 300, 4)
    assert (options.seed, options.lora.r) == (5, 8)
    assert (options.optimizer.lr, options.optimizer.eps, options.optimizer.warmup_steps) == (0.5, 0.5, 250)


def test_a_recipe_is_a_file_or_the_nearest_name_is_offered() -> None:
    with pytest.raises(CapivaraError) as error:
        lora(recipe="capivara-pluss")
    assert "no such file, and no built-in recipe, did you mean capivara-plus" in error.value.message
    assert lora(recipe=recipe("seed: 77\n", "capivara-opt")).seed == 77


@pytest.mark.parametrize("name", ["replay", "keep"])
def test_replay_and_its_old_name_keep_are_read_from_all_layers(name: str) -> None:
    assert lora(recipe=recipe(f"{name}: {{pt: 0.5}}")).replay == {"pt": 0.5}
    assert lora(f"{name}.pt=0.5").replay == {"pt": 0.5}
    assert lora(f"{name}={{}}").replay == {}
    recipe(f"{name}: {{pt: 0.5}}", "capivara.yaml")
    assert (lora().replay, lora().replay_missing) == ({"pt": 0.5}, "skip")


def test_a_share_without_a_number_is_a_quarter_and_its_captions_must_exist() -> None:
    options = lora(replay=["en", "pt:0.5"])
    assert (options.replay, options.replay_missing) == ({"en": 0.25, "pt": 0.5}, "error")
    with pytest.raises(CapivaraError, match="--replay en:much: 'much' is not a number, for example en:0.25"):
        lora(replay=["en:much"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"from_scratch": True}, "--from-scratch without --unlock-image"),
        ({"unlock_image": True}, "--unlock-image goes with --full, not with --lora"),
        ({"replay": ["en:0.5", "pt:0.5"]}, "--replay en:0.5, pt:0.5: each share must be above 0, and all together"),
        ({"lr": 1e-9}, "optimizer.min_lr 1e-06 is above --lr 1e-09"),
        ({"max_steps": 250}, "optimizer.warmup_steps 250 is not below --max-steps 250"),
        ({"lang": []}, "no language: --lang LANG is missing"),
        ({"seed": -5}, "--seed -5: must be at least 0"),
        ({"seed": 1e22}, "--seed 1e+22: must be at most 4294967295"),
        ({"set": ["optimizer.betas=[2, -1]"]}, "optimizer.betas [2.0, -1.0]: each must be at least 0 and below 1"),
        ({"set": ["optimizer.betas=[.inf, .nan]"]}, "--set: optimizer.betas = [inf, nan]: not a number"),
        ({"set": ["lora.r=1000000000"]}, "--set: lora.r = 1000000000: must be at most 4096"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(CapivaraError) as error:
        lora(**flags)
    assert error.value.message.startswith(message)


def test_resolved_options_read_back_as_they_were() -> None:
    sets = ["lang=[hi, 'no']", "model.name=local-dir:modèle", "micro_batch=3", "replay.en=0.1"]
    options = train_options("lora", set=sets, seed=9)
    file = recipe(to_yaml(options))
    assert train_options(recipe=file) == read_options(Path(file)) == options.replace(fit=())
    assert "modèle" in Path(file).read_text(encoding="utf-8")


def test_without_a_language_those_of_the_data_are_listed_with_the_line_to_type(world: Path, tmp_path: Path) -> None:
    data = str(world / "train.jsonl")
    with pytest.raises(BadOption) as caught:
        train_options("lora", data=[data])
    counts = ", ".join(f"{lang} ({count:,})" for lang, count in languages(read(data)).most_common())
    assert caught.value.message == f"no language: --lang LANG is missing; the data has captions in: {counts}"
    assert caught.value.hint == f"capivara train --lang pt --lora --data {data}"
    with pytest.raises(BadOption) as caught:
        train_options("full", data=["-"])  # which is not read for a message
    assert caught.value.hint == "capivara train --lang hi --full --data -"
    (tmp_path / "bare.jsonl").write_text(json.dumps({"image": str(tmp_path / "x.png")}))
    with pytest.raises(CapivaraError, match="no caption in en: the data has none"):
        train_options("lora", data=[str(tmp_path / "bare.jsonl")])
