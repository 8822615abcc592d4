"""Names in a language, and how labels of the data find their class."""

from __future__ import annotations

import json
from difflib import SequenceMatcher
from pathlib import Path

import pytest
from clip_benchmark import datasets as clip_benchmark

from capivara_cli.data.class_forms import load
from capivara_cli.data.class_sets import METRIC_KEYS, ClassSet, Names, class_indices, fill, known_sets, shared_names
from capivara_cli.errors import CapivaraError


def test_every_set_of_the_field_is_known() -> None:
    sets = known_sets()
    assert len(sets) == 24
    assert sum(entry["classes"] for entry in sets.values()) > 3000
    assert all(entry["metric"] in METRIC_KEYS for entry in sets.values())


def test_shipped_sets_number_their_classes_as_clip_benchmark_does() -> None:
    classnames = json.loads((Path(clip_benchmark.__path__[0]) / "en_classnames.json").read_text())
    for key, least in (("fer2013", 0.5), ("eurosat", 0.3), ("mnist", 0.99)):
        ours, theirs = load(key), classnames[key]
        assert len(ours.labels) == len(theirs)
        for label, name in zip(ours.labels, theirs, strict=True):
            texts = [text.lower() for text in (label, *ours.names_in("en")[label])]
            assert max(SequenceMatcher(None, name, text).ratio() for text in texts) > least, (name, texts)
    assert load("fer2013").labels.index("neutral") == classnames["fer2013"].index("neutral")


def test_a_language_falls_back_to_its_base_and_an_unknown_one_names_those_that_exist() -> None:
    assert load("cifar-10").names_in("pt-BR")["dog"][0] == "cachorro"
    with pytest.raises(CapivaraError, match="cifar-10 has no names in yo: it has en, hi, pt, xh"):
        load("cifar-10").names_in("yo")


def test_classes_that_share_a_name() -> None:
    classes = ClassSet(
        "c", ("crane", "bird", "x"), {"hi": {"crane": ("सारस",), "bird": ("चिड़िया", "सारस"), "x": ("क",)}}
    )
    assert shared_names(classes, "hi") == [("सारस", "crane", "bird")]


def test_a_label_is_found_by_itself_its_index_its_spelling_and_its_english_name() -> None:
    spellings = ("automobile", "1", "1.0", "Automobile", "car", " AUTOMOBILE")
    assert set(class_indices(load("cifar-10"), spellings).values()) == {1}
    unknown = ("10", "-1", "submarine", "9" * 5000)
    assert set(class_indices(load("cifar-10"), unknown).values()) == {None}
    assert class_indices(load("mnist"), ["7", "-1"]) == {"7": 7, "-1": None}


def test_where_labels_are_numbers_a_number_is_a_label_and_not_an_index() -> None:
    names: Names = {label: (label,) for label in ("1", "2", "3")}
    indices = class_indices(ClassSet("c", tuple(names), {"hi": names}), ["0", "1", "3", "1.0", "-1", "4"])
    assert list(indices.values()) == [None, 0, 2, 0, None, None]


def test_a_name_is_put_in_as_it_is() -> None:
    assert fill("{} or {c}, {d}", r"\1 {c}") == r"\1 {c} or \1 {c}, {d}"
