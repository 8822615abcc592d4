from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from capivara_cli.errors import CapivaraError
from capivara_cli.options import PROJECT_FILE, Recipe, read_yaml, resolve, to_yaml

BUILT_IN = ["capivara", "capivara-opt", "capivara-plus", "from-scratch"]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def lora(*sets: str, recipe: str | None = None, flags: Mapping[str, Any] | None = None) -> Recipe:
    return resolve("lora", recipe, list(sets), {"lang": ["hi"], **(flags or {})})


def refused(*sets: str, recipe: str | None = None, flags: Mapping[str, Any] | None = None) -> str:
    with pytest.raises(CapivaraError) as caught:
        lora(*sets, recipe=recipe, flags=flags)
    return caught.value.message


def own(text: str, name: str = "own.yaml") -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


def test_all_built_in_recipes_are_tried_here() -> None:
    folder = importlib.resources.files("capivara_cli.configs")
    assert sorted(f"{name}.yaml" for name in BUILT_IN) == sorted(
        entry.name for entry in folder.iterdir() if entry.name.endswith(".yaml")
    )


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_recipe_is_found_by_its_name_and_valid(name: str) -> None:
    recipe = resolve(None, name, [], {"lang": ["hi"]})
    said = read_yaml(Path(str(importlib.resources.files("capivara_cli.configs") / f"{name}.yaml")))
    assert recipe.method == said["method"]
    assert recipe.model_dump(include={"batch_size", "max_steps", "keep"}) == {
        key: said[key] for key in ("batch_size", "max_steps", "keep")
    }
    assert recipe.optimizer.lr == said["optimizer"]["lr"]


def test_the_method_chooses_the_recipe_below_all() -> None:
    full = resolve("full", None, [], {"lang": ["hi"]})
    assert (lora().batch_size, lora().keep, lora().optimizer.name) == (1000, {"en": 0.25}, "adamw")
    assert (full.batch_size, full.keep, full.optimizer.name) == (2816, {}, "adam")


def test_each_layer_goes_over_those_before_it() -> None:
    own("batch_size: 2\nmax_steps: 2\neval_every: 2\nseed: 2\n", PROJECT_FILE)
    recipe = lora(
        "eval_every=4",
        "seed=4",
        recipe=own("max_steps: 3\neval_every: 3\nseed: 3\n"),
        flags={"seed": 5},
    )
    assert (recipe.optimizer.warmup_steps, recipe.batch_size, recipe.max_steps) == (250, 2, 3)
    assert (recipe.eval_every, recipe.seed) == (4, 5)


def test_a_key_of_a_section_leaves_the_others_as_they_were() -> None:
    recipe = lora(recipe=own("optimizer:\n  lr: 0.5\n"))
    assert (recipe.optimizer.lr, recipe.optimizer.warmup_steps) == (0.5, 250)


def test_naming_other_languages_to_keep_replaces_them() -> None:
    assert lora(recipe=own("keep: {pt: 0.5}\n")).keep == {"pt": 0.5}
    assert lora("keep={}").keep == {}


def test_another_models_name_drops_the_tag_of_the_first_ones_weights() -> None:
    own("model: {name: ViT-B-32, pretrained: laion}\n", PROJECT_FILE)
    assert lora().model.pretrained == "laion"
    assert lora(flags={"model.name": "ViT-L-14"}).model.pretrained is None
    assert lora("model.from_scratch=true").model.pretrained == "laion"


def test_a_flag_with_a_tag_keeps_its_tag() -> None:
    model = lora(flags={"model.name": "ViT-L-14", "model.pretrained": "openai"}).model
    assert (model.name, model.pretrained) == ("ViT-L-14", "openai")


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("optimizer.lr=1e-5", ("optimizer", "lr"), 1e-5),  # YAML 1.1 reads that as a text
        ("optimizer.lr=2E-4", ("optimizer", "lr"), 2e-4),
        ("batch_size=1e2", ("batch_size",), 100),
        ("lora.tokens=false", ("lora", "tokens"), False),  # an e that is no number
        ("lora.target_modules=[query, key]", ("lora", "target_modules"), ["query", "key"]),
        ("keep.pt=0.5", ("keep",), {"pt": 0.5}),
        ("model.pretrained=null", ("model", "pretrained"), None),
        ("model.name=local-dir:a=b", ("model", "name"), "local-dir:a=b"),
        (" seed =3", ("seed",), 3),
        ("micro_batch=auto", ("micro_batch",), "auto"),
        ("micro_batch=16", ("micro_batch",), 16),
    ],
)
def test_set_takes_a_path_and_a_yaml_value(text: str, path: tuple[str, ...], value: object) -> None:
    found: Any = lora(text)
    for name in path:
        found = getattr(found, name)
    assert found == value
    assert type(found) is type(value)


def test_the_last_of_several_sets_of_a_key_wins() -> None:
    assert lora("seed=1", "seed=2").seed == 2


@pytest.mark.parametrize("text", ["seed", "=3", " =3", ""])
def test_a_set_that_is_no_key_and_value_is_refused(text: str) -> None:
    assert refused(text) == f"--set {text}: not KEY=VALUE"


def test_a_set_whose_value_is_not_yaml_is_refused() -> None:
    assert refused("data.train=[a, b").startswith("--set: [a, b is not a YAML value")


def test_an_unknown_key_names_the_nearest() -> None:
    assert refused("batch_sise=3") == "--set: unknown key batch_sise, did you mean batch_size?"


def test_an_unknown_key_of_a_section_is_told_with_its_path() -> None:
    message = refused(recipe=own("optimizer: {weigth_decay: 1}\n"))
    assert message.startswith("own.yaml: unknown key optimizer.weigth_decay, did you mean optimizer.weight_decay")


def test_an_unknown_key_that_is_like_no_other_names_none() -> None:
    assert refused("zzzzzz=3") == "--set: unknown key zzzzzz"


def test_all_unknown_keys_of_all_layers_are_told_together() -> None:
    own("sead: 1\n", PROJECT_FILE)
    message = refused("model.nmae=x", recipe=own("langs: [hi]\n"))
    assert [line.split(",")[0].strip() for line in message.splitlines()] == [
        "capivara.yaml: unknown key sead",
        "own.yaml: unknown key langs",
        "--set: unknown key model.nmae",
    ]


def test_a_language_to_keep_may_be_any_key() -> None:
    assert lora("keep={yor: 0.1}").keep == {"yor": 0.1}


@pytest.mark.parametrize(
    "text",
    [
        "batch_size=1",
        "max_steps=0",
        "optimizer.lr=0",
        "optimizer.lr=nan",
        "optimizer.name=sgd",
        "data.val_share=1",
        "views=0",
        "lora.r=2.5",
        "keep.en=much",
        "lang=hi",
        "lora=",
        "micro_batch=few",
    ],
)
def test_a_value_that_does_not_fit_is_told_with_its_layer_and_key(text: str) -> None:
    with pytest.raises(CapivaraError) as caught:
        resolve("lora", own("lang: [hi]\n"), [text], {})
    assert caught.value.message.startswith(f"--set: {text.split('=')[0]} = ")
    assert len(caught.value.message.splitlines()) == 1


def test_a_bad_value_is_told_where_it_was_given_last() -> None:
    message = refused("seed=3", recipe=own("seed: x\nviews: 0\n"))
    assert message.startswith("own.yaml: views = 0: ")


def test_a_bad_value_that_is_put_right_above_is_no_error() -> None:
    assert lora("views=2", recipe=own("views: 0\n")).views == 2


def test_no_language_is_told_by_the_flag_to_give() -> None:
    with pytest.raises(CapivaraError, match="no language: --lang LANG is missing"):
        resolve("lora", None, [], {})


def test_the_method_may_come_from_a_recipe_or_a_set() -> None:
    assert resolve(None, own("method: full\n"), [], {"lang": ["hi"]}).batch_size == 2816
    assert resolve(None, None, ["method=full"], {"lang": ["hi"]}).method == "full"


def test_the_methods_flag_goes_over_the_recipes() -> None:
    recipe = resolve("full", "capivara-opt", [], {"lang": ["hi"]})
    assert (recipe.method, recipe.optimizer.lr) == ("full", 1e-5)


@pytest.mark.parametrize("method", [None, "fulll"])
def test_without_a_method_both_are_offered(method: str | None) -> None:
    with pytest.raises(CapivaraError, match="neither --lora nor --full"):
        resolve(method, None, [], {"lang": ["hi"]})


def test_a_recipe_that_is_not_there_names_the_nearest() -> None:
    message = refused(recipe="capivara-pluss")
    assert "no such file, and no built-in recipe, did you mean capivara-plus" in message


def test_a_file_goes_before_a_built_in_recipe_of_its_name() -> None:
    assert lora(recipe=own("seed: 77\n", "capivara-opt")).seed == 77


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"seed: [1", "own.yaml is not YAML"),
        (b"- seed\n", "own.yaml holds a list, not keys and values"),
        (b"\xff\xfe\xff", "own.yaml is not YAML"),
        (b"a: !!python/object:os.system {}\n", "own.yaml is not YAML"),
    ],
)
def test_a_file_that_is_no_mapping_is_named(content: bytes, message: str) -> None:
    Path("own.yaml").write_bytes(content)
    assert refused(recipe="own.yaml").startswith(message)


def test_an_empty_recipe_changes_nothing() -> None:
    assert lora(recipe=own("# nothing yet\n")) == lora()


def test_the_resolved_recipe_reads_back_as_it_was() -> None:
    recipe = lora("lang=[hi, 'no']", "model.name=local-dir:modèle", "micro_batch=3", "keep.en=0.1", flags={"seed": 9})
    own(to_yaml(recipe))
    assert resolve(None, "own.yaml", [], {}) == recipe
    assert "modèle" in Path("own.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", ["seed=2024-13-45", "lang=[e"])
def test_a_set_value_that_yaml_cannot_build_is_refused(text: str) -> None:
    assert refused(text).startswith(f"--set: {text.partition('=')[2]} is not a YAML value")


def test_a_method_that_is_no_word_is_refused() -> None:
    Path("own.yaml").write_text("method: [lora]\n")
    with pytest.raises(CapivaraError, match="neither --lora nor --full"):
        resolve(None, "own.yaml", [], {"lang": ["hi"]})


def test_a_language_named_twice_is_learnt_once() -> None:
    assert resolve("lora", None, [], {"lang": ["hi", "pt", "hi"]}).lang == ["hi", "pt"]


def test_a_tag_belongs_to_the_name_beside_it_in_any_order() -> None:
    sets = ["model.pretrained=openai", "model.name=ViT-B-32"]
    for order in (sets, sets[::-1]):
        model = resolve("lora", None, order, {"lang": ["hi"]}).model
        assert (model.name, model.pretrained) == ("ViT-B-32", "openai")


def test_a_name_drops_the_tag_of_the_layer_below() -> None:
    Path("capivara.yaml").write_text("model: {name: ViT-B-32, pretrained: openai}\n")
    assert resolve("lora", None, [], {"lang": ["hi"], "model.name": "ViT-B-16"}).model.pretrained is None
