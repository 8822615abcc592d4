from __future__ import annotations

import importlib.resources
import re
from collections import Counter
from typing import Any

import pytest
import yaml

FOLDER = importlib.resources.files("capivara_cli.configs") / "classes"
CLASSES = {
    "cifar-10": 10,
    "eurosat": 10,
    "fer-2013": 7,
    "hateful-memes": 2,
    "kitti-distance": 4,
    "mnist": 10,
    "patchcamelyon": 2,
    "rendered-sst2": 2,
    "voc-2007": 20,
}
METRICS = dict.fromkeys(CLASSES, "acc1") | {"hateful-memes": "roc_auc", "voc-2007": "map11"}
LANGUAGES = ["en", "pt", "hi", "xh"]
# Devanagari, figures, abbreviations such as TV, and punctuation.
HINDI = re.compile(r"(?:[\u0900-\u097f]|[0-9]|\b[A-Z]{2,}\b|[\s.,:;!?()-])+")


def listed(names: str | list[str]) -> list[str]:
    return [names] if isinstance(names, str) else names


@pytest.fixture(params=sorted(CLASSES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def shipped(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return content


def test_all_shipped_sets_are_tried_here() -> None:
    assert sorted(entry.name for entry in FOLDER.iterdir()) == sorted(f"{name}.yaml" for name in CLASSES)


def test_keys_metric_and_classes(name: str, shipped: dict[str, Any]) -> None:
    assert list(shipped) == ["title", "metric", "source", "labels", "names", "templates"]
    assert shipped["title"].lower() == name
    assert shipped["metric"] == METRICS[name]
    assert len(shipped["labels"]) == len(set(shipped["labels"])) == CLASSES[name]
    assert all(isinstance(label, str) for label in shipped["labels"])
    assert list(shipped["names"]) == list(shipped["templates"]) == LANGUAGES


@pytest.mark.parametrize("lang", LANGUAGES)
def test_each_label_has_names_of_its_own(shipped: dict[str, Any], lang: str) -> None:
    names = shipped["names"][lang]
    assert list(names) == shipped["labels"]
    assert all(listed(own) for own in names.values())
    every = [text for own in names.values() for text in listed(own)]
    assert all(isinstance(text, str) and text and text == text.strip() for text in every)
    assert [text for text, times in Counter(text.casefold() for text in every).items() if times > 1] == []


@pytest.mark.parametrize("lang", LANGUAGES)
def test_each_template_has_one_place_for_the_name(shipped: dict[str, Any], lang: str) -> None:
    templates = shipped["templates"][lang]
    assert 3 <= len(templates) == len(set(templates)) <= 8
    assert [text for text in templates if text.count("{c}") != 1 or set("{}") & set(text.replace("{c}", ""))] == []


def test_hindi_is_in_devanagari(shipped: dict[str, Any]) -> None:
    texts = [text for own in shipped["names"]["hi"].values() for text in listed(own)]
    texts += [text.replace("{c}", "") for text in shipped["templates"]["hi"]]
    assert [text for text in texts if not HINDI.fullmatch(text)] == []
