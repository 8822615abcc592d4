"""`capivara classify-eval`: labels, the names of classes, and their templates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from capivara_cli.errors import CapivaraError
from tests.evaluation.conftest import LABELS, NAMES, SOME_XHOSA, Evaluate, Rows, Says, put, put_folders, put_json, said


def test_labels_without_a_class_and_classes_without_an_image(shapes: Rows, evaluate: Evaluate, capsys: Says) -> None:
    renamed = {"circle": "disc", "star": "sun"}
    rows = [row | {"label": renamed.get(row["label"], row["label"])} for row in shapes]
    [result] = evaluate(put("odd.jsonl", rows))
    lost = sum(row["label"] in ("disc", "sun") for row in rows)
    assert result["n"] == len(rows) - lost
    text = said(capsys)
    assert f"{lost} labels not of shapes" in text
    assert "disc" in text
    assert "2 of 6 classes have no image and can only be wrong predictions: circle, star" in text
    with pytest.raises(CapivaraError, match="none of the labels in the data is one of shapes's: nothing"):
        evaluate(put("none.jsonl", [row | {"label": "nothing"} for row in rows]))


def test_classes_without_a_name_in_the_language_as_in_babel_imagenet(
    shapes: Rows, evaluate: Evaluate, capsys: Says
) -> None:
    data = put("n.jsonl", [row | {"label": str(LABELS.index(row["label"]))} for row in shapes])
    classes = put_json("babel.json", {"EN": [[0, 3, 5], ["circle", "star", "drop"]]})
    [result] = evaluate(data, classes=classes)
    assert result["n_classes"] == 3
    assert result["n"] == sum(row["label"] in ("circle", "star", "drop") for row in shapes)
    text = said(capsys)
    assert "997 of 1,000 classes have no name in en" in text
    assert "3 classes are too few to trust" in text


def test_two_classes_of_one_name_are_said(evaluate: Evaluate, capsys: Says) -> None:
    [result] = evaluate(classes=put_json("c.json", {"en": NAMES | {"square": "circle"}}))
    assert "circle and square have the same name in en: circle" in said(capsys)
    recalls = {row["label"]: row["recall"] for row in result["per_class"]}
    assert recalls["circle"] <= 0.5  # a tie is not a hit
    assert recalls["square"] <= 0.5


def test_every_image_that_is_not_scored_is_counted_and_named(shapes: Rows, evaluate: Evaluate, capsys: Says) -> None:
    rows = shapes[:16]
    labels: list[Any] = [True, None, {"name": "circle"}, [["circle"]], float("nan"), -1, "", "elsewhere", [None]]
    for row, label in zip(rows, labels, strict=False):
        row["label"] = label
    del rows[9]["label"]
    rows[10]["image"] = "gone.png"
    Path("bad.png").write_text("not an image")
    rows[11]["image"] = "bad.png"
    [result] = evaluate(put("odd.jsonl", rows))
    assert (result["n"], result["n_rejected"]) == (4, 12)
    text = said(capsys)
    assert "10 images left out" in text
    assert "'True' is not a label" in text
    assert "gone.png: no such file" in text
    assert "bad.png: not an image" in text
    assert "2 labels not of shapes" in text
    assert "-1, elsewhere" in text
    with pytest.raises(CapivaraError, match=r"no image has a `label`; the first: .*: 'True' is not a label"):
        evaluate(put("one.jsonl", rows[:1]))


def test_without_classes_the_labels_are_the_names_in_english_only(evaluate: Evaluate, capsys: Says) -> None:
    [result] = evaluate(classes=None)
    assert result["n_classes"] == 6
    assert "using the labels as the names of the classes" in said(capsys)
    missing = "no names of the classes circle, cross, drop, square, star, triangle in hi"
    with pytest.raises(CapivaraError, match=missing) as refused:
        evaluate(classes=None, lang=["en", "hi"])
    assert "--classes NAME" in str(refused.value.hint)


def test_a_shipped_set_is_taken_by_its_name_and_never_by_the_datas(
    shapes: Rows, evaluate: Evaluate, capsys: Says
) -> None:
    data = put_folders("cifar10", [row | {"label": number % 10} for number, row in enumerate(shapes)])
    [result] = evaluate(data, lang=["xh"], classes="cifar10")
    assert (result["n_classes"], result["main_metric"]) == (10, "acc1")
    assert result["per_class"][0]["name"] == "inqwelo-moya"
    [result] = evaluate(data, classes=None)
    assert result["per_class"][0]["name"] == "0"


def test_a_file_without_languages_is_of_one_language(evaluate: Evaluate) -> None:
    [result] = evaluate(lang=["hi"], classes=put_json("c.json", LABELS))
    assert result["n_classes"] == 6
    with pytest.raises(CapivaraError, match="c.json does not say the language of its names"):
        evaluate(lang=["hi", "en"], classes="c.json")


def test_templates_of_a_file(evaluate: Evaluate) -> None:
    results = []
    for templates in (["{c}"], ["there is a small red {} on a black background", "a picture of a {c}"]):
        results += evaluate(templates=put_json("t.json", templates))
    assert "templates:2" in results[1]["signature"]
    assert results[0]["signature"] != results[1]["signature"]


def test_templates_that_a_language_lacks_are_said(things: Path, evaluate: Evaluate, capsys: Says) -> None:
    content = yaml.safe_load((things / "shapes.yaml").read_text(encoding="utf-8"))
    del content["prompts"]
    Path("c.yaml").write_text(yaml.safe_dump({**content, "templates": {"en": ["a {c} drawn large", "{c}"]}}))
    results = evaluate(lang=["en", "hi"], classes="c.yaml")
    assert ["templates:2" in result["signature"] for result in results] == [True, False]
    assert "c has no templates in hi: using चित्र: {c}।" in said(capsys)


def test_an_empty_class_folder_is_a_class(shapes: Rows, evaluate: Evaluate, capsys: Says) -> None:
    data = put_folders("folder", shapes[:8])
    Path(data, "nothing").mkdir()
    [result] = evaluate(data, classes=None)
    assert result["n"] == 8
    assert {row["label"]: row["recall"] for row in result["per_class"]}["nothing"] is None
    assert "classes have no image and can only be wrong predictions: nothing" in said(capsys)


def test_the_parts_of_data(shapes: Rows, evaluate: Evaluate) -> None:
    put_folders("parts/test", shapes[:8])
    Path("parts/train").mkdir()
    [result] = evaluate("parts", split="test")
    assert result["n"] == 8
    with pytest.raises(CapivaraError, match="parts has splits and no classes: test, train"):
        evaluate("parts")
    with pytest.raises(CapivaraError, match="parts has no folder val"):
        evaluate("parts", split="val")


def test_languages_of_different_sizes_have_their_own_in_the_table(
    shapes: Rows, evaluate: Evaluate, capsys: Says
) -> None:
    name = put("es\x1b[31mc [red].jsonl", shapes)
    evaluate(name, lang=["en", "XH"], classes=put_json("c.json", SOME_XHOSA))
    screen = capsys.readouterr().err
    assert "templates" not in screen  # the file has none, and none are missed
    rows = [line.split()[:4] for line in screen.splitlines()]
    assert ["en", "model", str(len(shapes)), "6"] in rows
    assert ["xh", "model", str(sum(row["label"] in ("star", "cross") for row in shapes)), "2"] in rows
    assert "\x1b[31m" not in screen
    assert "c [red]" in screen
