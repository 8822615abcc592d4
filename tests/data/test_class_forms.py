"""Class files and template files in every form that is documented."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from clip_benchmark import datasets as clip_benchmark

from capivara_cli.data.class_forms import load, with_templates
from capivara_cli.data.class_sets import class_indices, shared_names
from capivara_cli.errors import CapivaraError

THEIRS = Path(clip_benchmark.__path__[0])  # CLIP_benchmark's own files


def read(name: str) -> Any:
    return json.loads((THEIRS / name).read_text(encoding="utf-8"))


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(name: str, value: object) -> str:
        path = tmp_path / name
        path.write_text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), encoding="utf-8")
        return str(path)

    return write


def test_a_shipped_set_by_any_spelling_of_its_name() -> None:
    for name in ("cifar-10", "CIFAR10", "cifar_10"):
        classes = load(name)
        assert classes.labels[1] == "automobile"
        assert classes.names_in("en")["automobile"] == ("car", "automobile")
        assert classes.metric == "acc1"
    assert load("VOC2007").metric == "map11"
    assert load("pcam").name == "patchcamelyon"  # as CLIP_benchmark calls it


@pytest.mark.parametrize("name", ["imagenet-1k", "babel-imagenet", "objectnet", "grocery-store", "country-211"])
def test_a_known_set_whose_names_are_not_included_says_where_they_are(name: str) -> None:
    with pytest.raises(CapivaraError, match=f"{name} is known, but its names are not included") as refused:
        load(name)
    assert "--classes FILE: " in str(refused.value.hint)


def test_our_form_in_yaml(write: Any) -> None:
    text = (
        "labels: [a, b]\nnames:\n  hi: {a: क, b: [ख, ग]}\ntemplates:\n  hi: ['{c} की तस्वीर', 'चित्र: {}']\nmetric: map\n"
    )
    classes = load(write("c.yaml", text))
    assert classes.prompts_of("b", "hi") == ["ख की तस्वीर", "चित्र: ख", "ग की तस्वीर", "चित्र: ग"]
    assert classes.metric == "map"


@pytest.mark.parametrize("file", ["en_classnames.json", "it_classnames.json", "cn_classnames.json"])
def test_names_of_clip_benchmark(file: str) -> None:
    theirs = read(file)
    key = next(iter(theirs))
    classes = load(f"{THEIRS / file}#{key}")
    assert [names[0] for names in classes.names_in("it").values()] == list(map(str.strip, theirs[key]))
    if len(theirs) > 1:
        with pytest.raises(CapivaraError, match="has several sets"):
            load(str(THEIRS / file))
    with pytest.raises(CapivaraError, match="has no nothing"):
        load(f"{THEIRS / file}#nothing")


def test_templates_of_clip_benchmark_by_the_sets_name() -> None:
    file = "en_zeroshot_classification_templates.json"
    classes = with_templates(load("cifar-10"), str(THEIRS / file), ["en"])
    assert classes.prompts_of("dog", "en") == [template.replace("{c}", "dog") for template in read(file)["cifar10"]]


def test_babel_imagenet_and_its_templates() -> None:
    classes = load(str(THEIRS / "babel_imagenet.json"))
    indices, texts = read("babel_imagenet.json")["HI"]
    names = classes.names_in("hi")
    assert list(names) == list(map(str, indices))
    assert [own[0] for own in names.values()] == [text.strip() for text in texts]
    assert len(classes.labels) == 1000
    assert len(classes.names_in("xh")) < 100
    prompts = with_templates(classes, str(THEIRS / "nllb_dist13b_prompts.json"), ["hi"])
    first = read("nllb_dist13b_prompts.json")["HI"][0]
    assert prompts.prompts_of(str(indices[0]), "hi")[0] == first.replace("{}", texts[0].strip())


def test_prompts_of_cupl_by_class() -> None:
    classes = load(f"{THEIRS / 'en_classnames.json'}#imagenet1k")
    classes = with_templates(classes, f"{THEIRS / 'cupl_prompts.json'}#imagenet1k", ["en"])
    assert classes.prompts_of("tench", "en") == read("cupl_prompts.json")["imagenet1k"]["tench"]
    assert len(classes.labels) == 1000


@pytest.mark.parametrize(
    "value",
    [{"hi": {"dog": "कुत्ता", "cat": ["बिल्ली"]}}, {"dog": "कुत्ता", "cat": "बिल्ली"}, {"dog": ["कुत्ता"], "cat": "बिल्ली"}],
)
def test_names_by_language_and_label_or_by_label_alone(value: Any, write: Any) -> None:
    classes = load(write("c.json", value))
    assert classes.names_in("hi") == {"dog": ("कुत्ता",), "cat": ("बिल्ली",)}
    assert classes.labels == ("dog", "cat")


def test_a_class_with_several_names_beside_one_with_a_single_name(write: Any) -> None:
    classes = load(write("c.json", {"dog": ["कुत्ता", "श्वान"], "cat": "बिल्ली"}))
    assert classes.names_in("hi") == {"dog": ("कुत्ता", "श्वान"), "cat": ("बिल्ली",)}
    by_language = load(write("d.json", {"hi": {"dog": ["कुत्ता", "श्वान"]}, "en": {"dog": ["dog", "hound"]}}))
    assert by_language.names_in("en") == {"dog": ("dog", "hound")}


def test_lists_of_names(write: Any) -> None:
    assert load(write("names.txt", "\ufeffकुत्ता\r\n\r\nबिल्ली\r\n")).labels == ("कुत्ता", "बिल्ली")
    assert load(write("c.json", ["dog", ["cat", "kitty"]])).names_in("en")["cat"] == ("cat", "kitty")
    assert load(write("c.json", {"hi": ["कुत्ता"], "en": ["dog"]}) + "#hi").labels == ("कुत्ता",)


def test_a_repeated_name_in_a_list_does_not_move_the_other_classes(write: Any) -> None:
    classes = load(write("c.json", {"set": ["crane", "dog", "crane", "cat"]}))
    assert classes.labels == ("crane", "dog", "crane (2)", "cat")
    assert classes.names_in("en")["crane (2)"] == ("crane",)
    assert class_indices(classes, ["3"]) == {"3": 3}
    assert shared_names(classes, "en") == [("crane", "crane", "crane (2)")]


@pytest.mark.parametrize("template", ["a photo", "a {d}", "", "{ c }", 7])
def test_a_template_without_a_place_for_the_name(template: object, write: Any) -> None:
    with pytest.raises(CapivaraError, match="no place for the name"):
        with_templates(load("cifar-10"), write("t.json", ["a {c}", template]), ["hi"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.json", "{broken", "is not JSON"),
        ("c.json", "[]", "has no names of classes"),
        ("c.json", "3", "neither an object nor a list"),
        ("c.json", {"a": 3}, "3 is not a text"),
        ("c.json", {"hi": {"dog": ""}}, "'' is not a text"),
        ("c.yaml", "names: {hi: {a: [[1]]}}", "not a class file"),
        ("c.yaml", "names: {}", "`names` has no language"),
        ("c.yaml", "names: {hi: [a, b]}", "`names` has another form"),
        ("c.yaml", "names: {hi: {a: a}}\ntemplates: ['{c}']", "`templates` has another form"),
        ("c.json", {"labels": ["dog", "cat"]}, "`labels` is not the name of a class set"),
        ("c.json", {"labels": ["dog"], "templates": ["a {c}"]}, "`labels` is not the name of a class set"),
        ("c.json", {"templates": ["a photo of a {c}."]}, "`templates` is not the name of a class set"),
        ("c.json", {"names": ["dog", "cat"]}, "`names` is not the name of a class set"),
        ("c.yaml", "names: {hi: {a: b}}\nmetric: [acc1]", r"metric \['acc1'\] is not known"),
        ("c.yaml", "names: {hi: {a: b}}\nmetric: accuracy", "metric accuracy is not known"),
        ("c.yaml", "labels: ab\nnames: {hi: {a: x, b: y}}", "`labels` is not a list"),
        ("c.yaml", "labels: [a, b, a]\nnames: {hi: {a: x, b: y}}", "repeated labels: a"),
        ("c.yaml", "labels: [a]\nnames: {hi: {a: x, b: y}}", "names of classes that are not in `labels`: b"),
        ("c.yaml", "a: &a [x, x]\nb: &b [*a, *a]\nnames: {hi: {c: *b}}", r"an alias \(\*\) is not allowed: line 2"),
        ("c.yaml", "names: {hi: {a: x, a: y}}", "the key a is repeated"),
        ("c.json", '{"a": "x", "a": "y"}', "the key a is repeated"),
        ("c.json", {"pcam": ["healthy", "tumour"], "sst2": ["bad", "good"]}, "has several sets: pcam, sst2"),
        ("gone.json", None, "cannot read"),
    ],
)
def test_what_is_not_a_class_file(name: str, content: Any, message: str, write: Any, tmp_path: Path) -> None:
    path = write(name, content) if content is not None else str(tmp_path / name)
    with pytest.raises(CapivaraError, match=message):
        load(path)


def test_all_scalars_of_yaml_are_text(write: Any) -> None:
    classes = load(write("c.yaml", "labels: [0, no, on]\nnames:\n  no: {0: 1, no: nei, on: på}"))
    assert classes.labels == ("0", "no", "on")
    assert classes.names_in("no") == {"0": ("1",), "no": ("nei",), "on": ("på",)}


@pytest.mark.parametrize(
    ("templates", "message"),
    [
        ({"en": ["a {c}"], "pt": ["um {c}"]}, "has no templates in hi: it has en, pt"),
        ({"circle": [], "square": ["a"]}, "the prompts of circle: "),
        ({"circle": [1, 2], "square": ["a"]}, r"the prompts of circle: \[1, 2\]"),
        ({"circle": ["a"], "star": ["a"]}, "has no prompts for square"),
        ({"mnist": ["a {c}"], "eurosat": ["a {c}"]}, "has templates of mnist, eurosat, and none of c or its classes"),
    ],
)
def test_templates_that_do_not_fit_the_classes(templates: Any, message: str, write: Any) -> None:
    classes = load(write("c.json", {"circle": "x", "square": "y"}))
    with pytest.raises(CapivaraError, match=message):
        with_templates(classes, write("t.json", templates), ["hi"])
