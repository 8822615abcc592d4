"""Class files in every form that the field has them."""

from __future__ import annotations

import json
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import pytest
from clip_benchmark import datasets as clip_benchmark

from capivara_cli.data import class_sets
from capivara_cli.data.class_sets import fill, known_labels, load, place_of, same_names, shipped, with_templates
from capivara_cli.errors import CapivaraError

THEIRS = Path(clip_benchmark.__path__[0])  # CLIP_benchmark's own files


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(name: str, value: object) -> str:
        path = tmp_path / name
        path.write_text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), encoding="utf-8")
        return str(path)

    return write


def loaded(given: str, *langs: str) -> class_sets.ClassSet:
    found = load(given, langs or ("hi",))
    assert found is not None
    return found


def test_a_shipped_set_by_any_spelling_of_its_name() -> None:
    for name in ("cifar-10", "CIFAR10", "cifar_10"):
        found = loaded(name)
        assert found.labels[1] == "automobile"
        assert found.names_in("en")["automobile"] == ("car", "automobile")
        assert found.metric == "acc1"
    assert loaded("VOC2007").metric == "map11"
    assert load(None, ["en"], ["data/cifar10"]) is not None
    assert load(None, ["en"], ["photos", "-"]) is None


def test_every_set_of_the_field_is_known() -> None:
    found = shipped()
    assert len(found) == 24
    assert sum(entry["classes"] for entry in found.values()) > 3000
    for name in ("imagenet-1k", "babel-imagenet", "objectnet", "grocery-store", "country-211"):
        assert found[name]["metric"] in class_sets.METRICS
        with pytest.raises(CapivaraError, match=f"{name} is known, but its names do not come with capivara"):
            load(name, ["en"])


def test_ours_in_yaml(write: Any) -> None:
    text = (
        "labels: [a, b]\nnames:\n  hi: {a: क, b: [ख, ग]}\ntemplates:\n  hi: ['{c} की तस्वीर', 'चित्र: {}']\nmetric: map\n"
    )
    found = loaded(write("c.yaml", text))
    assert found.ask("hi", "b") == ["ख की तस्वीर", "चित्र: ख", "ग की तस्वीर", "चित्र: ग"]
    assert found.metric == "map"


@pytest.mark.parametrize("file", ["en_classnames.json", "it_classnames.json", "cn_classnames.json"])
def test_clip_benchmarks_names(file: str) -> None:
    there = json.loads((THEIRS / file).read_text(encoding="utf-8"))
    key = next(iter(there))
    found = loaded(f"{THEIRS / file}#{key}", "it")
    assert [names[0] for names in found.names_in("it").values()] == list(map(str.strip, there[key]))
    if len(there) > 1:
        with pytest.raises(CapivaraError, match="has several sets"):
            load(str(THEIRS / file), ["it"])
    with pytest.raises(CapivaraError, match="has no nothing"):
        load(f"{THEIRS / file}#nothing", ["it"])


def test_clip_benchmarks_templates() -> None:
    found = with_templates(loaded("cifar-10", "en"), str(THEIRS / "en_zeroshot_classification_templates.json"), ["en"])
    there = json.loads((THEIRS / "en_zeroshot_classification_templates.json").read_text())["cifar10"]
    assert found.ask("en", "dog") == [template.replace("{c}", "dog") for template in there]


def test_babel_imagenet_as_it_is() -> None:
    found = loaded(str(THEIRS / "babel_imagenet.json"), "hi")
    there = json.loads((THEIRS / "babel_imagenet.json").read_text(encoding="utf-8"))["HI"]
    names = found.names_in("hi")
    assert list(names) == list(map(str, there[0]))
    assert [own[0] for own in names.values()] == [name.strip() for name in there[1]]
    assert len(found.labels) == 1000
    assert len(found.names_in("xh")) < 100
    prompts = with_templates(found, str(THEIRS / "nllb_dist13b_prompts.json"), ["hi"])
    first = json.loads((THEIRS / "nllb_dist13b_prompts.json").read_text(encoding="utf-8"))["HI"][0]
    assert prompts.ask("hi", str(there[0][0]))[0] == first.replace("{}", there[1][0].strip())


def test_cupls_prompts_by_class() -> None:
    there = json.loads((THEIRS / "cupl_prompts.json").read_text())["imagenet1k"]
    names = json.loads((THEIRS / "en_classnames.json").read_text())["imagenet1k"]
    found = loaded(f"{THEIRS / 'en_classnames.json'}#imagenet1k", "en")
    own = with_templates(found, f"{THEIRS / 'cupl_prompts.json'}#imagenet1k", ["en"])
    assert own.ask("en", "tench") == there["tench"]
    assert len(names) == 1000


@pytest.mark.parametrize(
    "value",
    [
        {"hi": {"dog": "कुत्ता", "cat": ["बिल्ली"]}},
        {"dog": "कुत्ता", "cat": "बिल्ली"},
        {"pets": {"dog": "कुत्ता", "cat": "बिल्ली"}},
    ],
)
def test_plain_names(value: Any, write: Any) -> None:
    found = loaded(write("c.json", value))
    assert found.names_in("hi") == {"dog": ("कुत्ता",), "cat": ("बिल्ली",)}
    assert found.labels == ("dog", "cat")


def test_a_name_that_comes_again_in_a_list_moves_no_other(write: Any) -> None:
    found = loaded(write("c.json", {"set": ["crane", "dog", "crane", "cat"]}), "en")
    assert found.labels == ("crane", "dog", "crane (2)", "cat")
    assert found.names_in("en")["crane (2)"] == ("crane",)
    assert place_of("3", found, known_labels(found)) == 3
    assert same_names(found, "en") == [("crane", "crane", "crane (2)")]


def test_lists_by_language_and_a_text_file(write: Any) -> None:
    found = loaded(write("c.json", {"hi": ["कुत्ता", "बिल्ली"], "en": ["dog", ["cat", "kitty"]]}))
    assert found.names_in("hi") == {"dog": ("कुत्ता",), "cat": ("बिल्ली",)}
    assert found.names_in("en")["cat"] == ("cat", "kitty")
    assert loaded(write("names.txt", "\ufeffकुत्ता\r\n\r\nबिल्ली\r\n")).labels == ("कुत्ता", "बिल्ली")
    with pytest.raises(CapivaraError, match="is of one language"):
        load(write("names.txt", "a\nb\n"), ["hi", "en"])
    with pytest.raises(CapivaraError, match="different numbers of classes: hi 2, en 1"):
        load(write("c.json", {"hi": ["कुत्ता", "बिल्ली"], "en": ["dog"]}), ["hi"])


def test_a_language_takes_its_relatives_names_and_one_without_names_those_that_there_are() -> None:
    assert loaded("cifar-10", "pt-BR").names_in("pt-BR")["dog"][0] == "cachorro"
    with pytest.raises(CapivaraError, match="cifar-10 has no names in yo: there are en, hi, pt, xh"):
        loaded("cifar-10").names_in("yo")


@pytest.mark.parametrize("template", ["a photo", "a {d}", "", "{ c }", 7])
def test_a_template_without_a_place_for_the_name(template: object, write: Any) -> None:
    with pytest.raises(CapivaraError, match="no place for the name"):
        with_templates(loaded("cifar-10"), write("t.json", ["a {c}", template]), ["hi"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.json", "{broken", "neither JSON nor YAML"),
        ("c.json", "[]", "no names of classes|not a class file|has no names"),
        ("c.json", {"a": 3}, "is no name|no names"),
        ("c.json", {"hi": {"dog": ""}}, "is no name"),
        ("c.yaml", "names: {hi: {a: [[1]]}}", "not a class file"),
        ("c.yaml", "names: {hi: {a: b}}\nmetric: [acc1]", r"metric \['acc1'\] is not known"),
        ("c.yaml", "labels: ab\nnames: {hi: {a: x, b: y}}", "`labels` is no list"),
        ("c.yaml", "labels: [a, b, a]\nnames: {hi: {a: x, b: y}}", "labels that come twice: a"),
        ("c.yaml", "labels: [a]\nnames: {hi: {a: x, b: y}}", "names of what is not in `labels`: b"),
        ("c.yaml", "a: &a [x, x]\nb: &b [*a, *a]\nnames: {hi: {c: *b}}", r"an alias \(\*\) in line 2"),
        ("c.yaml", "names: {hi: {a: x, a: y}}", "the key a comes twice"),
        ("c.json", '{"a": "x", "a": "y"}', "the key a comes twice"),
        ("c.json", {"pcam": ["healthy", "tumour"], "renderedsst2": ["bad", "good"]}, "has several sets: pcam"),
        ("c.yaml", "names: {hi: {a: b}}\nmetric: accuracy", "metric accuracy is not known"),
        ("gone.json", None, "cannot read"),
    ],
)
def test_what_is_no_class_file(name: str, content: Any, message: str, write: Any, tmp_path: Path) -> None:
    given = write(name, content) if content is not None else str(tmp_path / name)
    with pytest.raises(CapivaraError, match=message):
        load(given, ["hi"])


def test_yaml_is_text(write: Any) -> None:
    found = loaded(
        write("c.yaml", "labels: [0, no, on]\nnames:\n  no: {0: null, no: nei, on: på}".replace("null", "1")), "no"
    )
    assert found.labels == ("0", "no", "on")
    assert found.names_in("no") == {"0": ("1",), "no": ("nei",), "on": ("på",)}


def test_numbers_of_labels_and_labels_that_are_numbers(write: Any) -> None:
    found = loaded(write("c.json", {"hi": {"1": "एक", "2": "दो", "3": "तीन"}}))
    known = known_labels(found)
    assert [place_of(label, found, known) for label in ("0", "1", "3", "1.0", "-1", "4")] == [None, 0, 2, 0, None, None]
    words = loaded("cifar-10", "en")
    known = known_labels(words)
    assert [place_of(label, words, known) for label in ("0", "1.0", "-1", "9" * 5000)] == [0, 1, None, None]
    digits = loaded("mnist", "en")
    assert place_of("-1", digits, known_labels(digits)) is None


def test_sets_are_found_by_where_the_data_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for source in ("cifar-10/test", "mnist/wds/test/{0..3}.tar", "data/pcam.jsonl", "voc2007"):
        found = load(None, ["en"], [str(tmp_path / source)])
        assert found is not None, source
    (tmp_path / "mnist").mkdir()
    monkeypatch.chdir(tmp_path / "mnist")
    found = load(None, ["en"], ["."])
    assert found is not None
    assert load(None, ["en"], [str(tmp_path / "mnist" / "mine" / "photos.jsonl")]) is None


def test_shipped_sets_number_their_classes_as_clip_benchmark_does() -> None:
    there = json.loads((THEIRS / "en_classnames.json").read_text())
    for key, least in (("fer2013", 0.5), ("eurosat", 0.3), ("mnist", 0.99)):
        ours, theirs = loaded(key, "en"), there[key]
        assert len(ours.labels) == len(theirs)
        for number, name in enumerate(theirs):
            own = [name.lower() for name in (ours.labels[number], *ours.names_in("en")[ours.labels[number]])]
            assert max(SequenceMatcher(None, name, each).ratio() for each in own) > least, (name, own)
    assert loaded("fer2013", "en").labels.index("neutral") == there["fer2013"].index("neutral")


def test_templates_that_would_be_passed_over(write: Any) -> None:
    named = loaded(write("c.json", {"circle": "x", "square": "y"}), "hi")
    with pytest.raises(CapivaraError, match="has no templates in hi: there are en, pt"):
        with_templates(named, write("t.json", {"en": ["a {c}"], "pt": ["um {c}"]}), ["hi"])
    with pytest.raises(CapivaraError, match="circle: no prompts: "):
        with_templates(named, write("t.json", {"circle": [], "square": ["a"]}), ["hi"])
    with pytest.raises(CapivaraError, match=r"circle: no prompts: \[1, 2\]"):
        with_templates(named, write("t.json", {"circle": [1, 2], "square": ["a"]}), ["hi"])
    with pytest.raises(CapivaraError, match="has templates of .*, and none of hateful-memes or its classes"):
        with_templates(loaded("hateful-memes", "en"), str(THEIRS / "en_zeroshot_classification_templates.json"), ["en"])


def test_classes_with_one_name(write: Any) -> None:
    found = loaded(write("c.json", {"hi": {"crane": "सारस", "bird": ["चिड़िया", "सारस"], "x": "क"}}))
    assert same_names(found, "hi") == [("सारस", "crane", "bird")]


def test_labels_of_the_data_are_found_as_they_are_by_number_and_as_they_read() -> None:
    found = loaded("cifar-10", "en")
    known = known_labels(found)
    for label in ("automobile", "1", "Automobile", "car", " AUTOMOBILE"):
        assert place_of(label, found, known) == 1
    assert place_of("10", found, known) is None
    assert place_of("submarine", found, known) is None
    digits = loaded("mnist", "en")
    assert place_of("7", digits, known_labels(digits)) == 7


def test_a_name_is_put_in_as_it_is() -> None:
    assert fill("{} or {c}, {d}", r"\1 {c}") == r"\1 {c} or \1 {c}, {d}"
