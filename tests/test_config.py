"""Layers of settings: YAML, `--set`, ./capivara.yaml and flags."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from capivara_cli.config import FLAGS, SET, Layer, by_path, combine, parse_set, project_layers, read_settings, resolve
from capivara_cli.errors import BadOption, CapivaraError
from capivara_cli.options import Options, flag, key


class Model(Options):
    name: str = flag("Model.", default="ViT-B-32", name="--model")
    pretrained: str | None = flag("Tag.", default=None)


class Recipe(Options):
    section = "train"
    old_names: ClassVar[dict[str, str]] = {"keep": "replay"}

    model: Model = key("The model.", default={})
    replay: dict[str, float] = flag("Shares.", default={})
    seed: int = flag("Seed.", default=0, min=0)
    views: int = flag("Views.", default=1, min=1)


class Score(Options):
    section = "score"
    model_unless = ("adapter",)

    model: str | None = flag("Model.", default=None)
    pretrained: str | None = flag("Tag.", default=None)
    adapter: Path | None = flag("Adapter.", default=None)
    origin: str = flag("Language.", default="en", name="--from")
    min_score: float = flag("Least score.", default=0.2, max=1)


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def project(text: str) -> None:
    Path("capivara.yaml").write_text(text, encoding="utf-8")


def score(**typed: Any) -> Score:
    return resolve(Score, typed, Recipe)


def recipe(*sets: str, file: str = "{}", **typed: Any) -> Recipe:
    Path("r.yaml").write_text(file, encoding="utf-8")
    layers = [Layer("r.yaml", read_settings(Path("r.yaml")))]
    layers += [Layer(SET, parse_set(text)) for text in sets]
    return combine(Recipe, [*layers, Layer(FLAGS, by_path(Recipe, typed))])


def test_each_layer_goes_over_those_before_it() -> None:
    options = recipe("seed=4", "views=4", file="{seed: 3, views: 3, replay: {en: 0.5}}", seed=5)
    assert (options.seed, options.views, options.replay) == (5, 4, {"en": 0.5})
    assert recipe("seed=1", "seed=2", file="seed: -1").seed == 2  # what is put right above is no error
    assert recipe(file="# nothing yet\n") == Recipe()


def test_a_section_is_merged_and_a_value_is_replaced() -> None:
    assert recipe("model.pretrained=openai").model == Model(pretrained="openai")
    assert recipe("replay={pt: 0.5}", file="replay: {en: 0.25}").replay == {"pt": 0.5}
    assert recipe("replay={}", file="replay: {en: 0.25}").replay == {}


@pytest.mark.parametrize("text", ["keep: {yor: 0.1}", "replay: {yor: 0.1}"])
def test_what_a_field_was_called_is_still_read(text: str) -> None:
    assert recipe(file=text).replay == recipe("keep.yor=0.1").replay == {"yor": 0.1}
    with pytest.raises(CapivaraError, match=r"r\.yaml: replay = \{'yor': 'x'\}: not a number"):
        recipe(file=text.replace("0.1", "x"))


def test_another_models_name_drops_the_tag_of_the_layers_below() -> None:
    file = "model: {name: ViT-L-14, pretrained: openai}"
    assert recipe(file=file).model == recipe("model.pretrained=openai", model="ViT-L-14").model
    assert recipe("model.name=ViT-B-16", file=file).model == Model(name="ViT-B-16")
    assert recipe(file=file, model="ViT-B-16").model.pretrained is None


@pytest.mark.parametrize("order", [1, -1])
def test_a_tag_belongs_to_the_name_beside_it_in_any_order(order: int) -> None:
    sets = ["model.pretrained=laion", "model.name=ViT-B-16"]
    options = recipe(*sets[::order], file="model: {name: ViT-L-14, pretrained: openai}")
    assert options.model == Model(name="ViT-B-16", pretrained="laion")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("key=1e-5", 1e-5),  # YAML 1.1 reads that as a text
        ("key=false", False),  # with an e, and not a number
        ("key=[query, key]", ["query", "key"]),
        ("key=", None),
        ("key=local-dir:a=b", "local-dir:a=b"),
        (" key =3", 3),
    ],
)
def test_set_takes_a_yaml_value(text: str, value: object) -> None:
    assert parse_set(text) == {"key": value}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed", "--set seed: not KEY=VALUE"),
        ("=3", "--set =3: not KEY=VALUE"),
        ("a=[e", "--set a=[e: not a YAML value: "),
        ("seed=" + "[" * 5000, f"--set seed={'[' * 52}...: not a YAML value: nested more than 50 deep"),
        ("seed=2024-13-45", "--set: seed = '2024-13-45': not a number"),
        ("zzzzzz=3", "--set: unknown key zzzzzz"),
        ("model.nmae=3", "--set: unknown key model.nmae, did you mean model.name?"),
        ("model=3", "--set: model = 3: not keys and values"),
    ],
)
def test_a_set_that_does_not_fit_is_a_usage_error(text: str, message: str) -> None:
    with pytest.raises(BadOption) as error:
        recipe(text)
    assert error.value.message.startswith(message)
    assert len(error.value.message.splitlines()) == 1


def test_all_that_is_wrong_is_named_with_its_source() -> None:
    with pytest.raises(CapivaraError) as error:
        recipe("model.nmae=x", file="langs: [hi]")
    assert error.value.message.splitlines() == [
        "r.yaml: unknown key langs",
        "       --set: unknown key model.nmae, did you mean model.name?",
    ]
    assert (error.value.exit_code, error.value.hint) == (1, "see docs/recipes.md")
    with pytest.raises(CapivaraError) as error:
        recipe("seed=x", file="{seed: y, views: 0}", model=3)
    assert error.value.message.splitlines() == [
        "--model 3: not a text",
        "       --set: seed = 'x': not a number",
        "       r.yaml: views = 0: must be at least 1",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"seed: [1", "own.yaml is not YAML"),
        (b"\xff\xfe\xff", "own.yaml is not YAML"),
        (b"a: !!python/object:os.system {}", "own.yaml is not YAML"),
        (b"- seed", "own.yaml holds a list, not keys and values"),
        (None, "cannot read own.yaml: No such file"),
    ],
)
def test_a_file_that_is_not_keys_and_values_is_named(content: bytes | None, message: str) -> None:
    if content is not None:
        Path("own.yaml").write_bytes(content)
    with pytest.raises(CapivaraError) as error:
        read_settings(Path("own.yaml"))
    assert error.value.message.startswith(message)


def test_a_verb_has_its_section_of_capivara_yaml_under_its_flags() -> None:
    assert score() == Score()
    project("score: {min-score: 0.5, from: hi}\ntrain: {seed: 3}\nseed: 4")
    assert score() == Score(min_score=0.5, origin="hi")
    assert score(min_score=0.1) == Score(min_score=0.1, origin="hi")
    assert [layer.values for layer in project_layers(Recipe)] == [{"seed": 4}, {"seed": 3}]


def test_trains_section_takes_names_of_flags_and_keys_of_the_recipe() -> None:
    project("train: {model: ViT-L-14, pretrained: openai, seed: 3}")
    flat = project_layers(Recipe)[1].values
    project("train: {model: {name: ViT-L-14}, pretrained: openai, seed: 3}")
    nested = project_layers(Recipe)[1].values
    assert flat == nested == {"model": {"name": "ViT-L-14", "pretrained": "openai"}, "seed": 3}


def test_the_model_of_capivara_yaml_serves_every_verb() -> None:
    project("model: {name: ViT-L-14, pretrained: openai}")
    assert score() == Score(model="ViT-L-14", pretrained="openai")
    assert score(model="ViT-B-16") == Score(model="ViT-B-16")
    assert score(adapter="run") == Score(adapter=Path("run"))  # which names its base model
    project("model: {name: ViT-L-14, pretrained: openai}\nscore: {adapter: run}")
    assert score() == Score(adapter=Path("run"))
    project("model: {name: ViT-L-14, pretrained: openai}\nscore: {model: ViT-B-16}")
    assert score() == Score(model="ViT-B-16")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scor: {}", "capivara.yaml: unknown key scor, did you mean score?"),
        (
            "sead: 1\nmodel: {nmae: x}",
            "capivara.yaml: unknown key sead, did you mean seed?\n       capivara",
        ),
        ("score: {min_scor: 1}", "capivara.yaml, score: unknown key min_scor, did you mean min_score?"),
        ("score: {min_score: 2}", "capivara.yaml, score: min_score = 2: must be at most 1"),
        ("score: 3", "capivara.yaml: score = 3: not keys and values"),
        ("model: ViT-L-14", "capivara.yaml: model = 'ViT-L-14': not keys and values"),
    ],
)
def test_what_is_wrong_in_capivara_yaml_is_named_with_its_section(text: str, message: str) -> None:
    project(text)
    with pytest.raises(CapivaraError) as error:
        score()
    assert error.value.message.startswith(message)
    assert error.value.exit_code == 1


def test_a_flag_that_does_not_fit_is_a_usage_error() -> None:
    project("score: {min_score: 2}")
    with pytest.raises(BadOption) as error:
        score(min_score=3)
    assert (error.value.message, error.value.hint) == ("--min-score 3: must be at most 1", None)
