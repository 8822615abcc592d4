"""`capivara classify-eval`: the engine, and the command as it is typed."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
import yaml

from capivara_cli.data import images
from capivara_cli.data.images import ImageRef
from capivara_cli.errors import CapivaraError
from capivara_cli.evaluation.classify_eval import class_weights, classify_eval
from capivara_cli.evaluation.options import ClassifyOptions
from capivara_cli.models.clip import Clip
from tests.conftest import Process, Refused
from tests.helpers import write_tar

Capivara = Callable[..., Process]
Evaluate = Callable[..., list[dict[str, Any]]]
Says = pytest.CaptureFixture[str]
Rows = list[dict[str, Any]]

LABELS = ["circle", "square", "triangle", "star", "cross", "drop"]
NAMES = {label: label for label in LABELS}
SOME_XHOSA = {"en": NAMES, "xh": {"star": "inkwenkwezi", "cross": "umnqamlezo"}}


@pytest.fixture
def shapes(things: Path) -> Rows:
    """The records of shapes.jsonl, their images with absolute paths."""
    rows = lines(things / "shapes.jsonl")
    return [row | {"image": str(things / row["image"])} for row in rows]


@pytest.fixture
def evaluate(things: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evaluate:
    """Evaluate the base model in an empty folder; without data, on the shapes."""
    monkeypatch.chdir(tmp_path)

    def call(*data: str, lang: Sequence[str] = ("en",), output: str | None = None, **flags: Any) -> Rows:
        defaults = {"model": f"local-dir:{base}", "classes": str(things / "shapes.yaml")}
        return classify_eval(data or [things / "shapes.jsonl"], ClassifyOptions(lang=lang, **defaults | flags), output)

    return call


def lines(path: str | Path) -> Rows:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def put(name: str, rows: Rows) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def put_folders(name: str, rows: Rows) -> str:
    for row in rows:
        folder = Path(name, str(row["label"]))
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(row["image"], folder / f"{row['id']}.png")
    return name


def put_json(name: str, value: object) -> str:
    Path(name).write_text(json.dumps(value))
    return name


def said(capsys: Says) -> str:
    return " ".join(capsys.readouterr().err.split())


def test_weights_are_those_of_open_clip(clip: Clip) -> None:
    names = ["circle", "red star", "a very large brown cross above a small pink drop"]
    templates = ["a picture of a {}", "there is a {} on a grey background, above a large blue square", "{}"]
    ours = class_weights(clip, [[template.format(name) for template in templates] for name in names])
    theirs = open_clip.build_zero_shot_classifier(
        clip.model,
        clip.tokenizer,
        names,
        [lambda name, t=t: t.format(name) for t in templates],
        num_classes_per_batch=2,
    )
    torch.testing.assert_close(ours, theirs.T, rtol=0, atol=1e-5)


def test_results_are_those_of_a_plain_evaluation(clip: Clip, things: Path, shapes: Rows, evaluate: Evaluate) -> None:
    [result] = evaluate(output="r.json")
    content = yaml.safe_load((things / "shapes.yaml").read_text(encoding="utf-8"))
    weights = class_weights(clip, [content["prompts"]["en"][label] for label in LABELS])
    correct = 0
    for row in shapes:
        pixels = clip.preprocess(images.load(ImageRef(row["image"])))[None]
        with torch.inference_mode():
            correct += LABELS[int((clip.encode_pixels(pixels).cpu() @ weights.T).argmax())] == row["label"]
    assert result["metrics"]["acc1"] == pytest.approx(correct / len(shapes), abs=1e-6)
    assert result["metrics"]["acc1"] > 0.9
    assert result["n"] == len(shapes)
    assert result == json.loads(Path("r.json").read_text())


def test_sources_of_every_kind_and_order_give_the_same(shapes: Rows, evaluate: Evaluate) -> None:
    members = {}
    for row in shapes:
        members[f"{row['id']}.png"] = Path(row["image"]).read_bytes()
        members[f"{row['id']}.cls"] = str(LABELS.index(row["label"])).encode()
    write_tar(Path("s.tar"), members)
    with Path("t.csv").open("w") as file:
        writer = csv.writer(file)
        writer.writerow(["filepath", "label"])
        writer.writerows([row["image"], row["label"].upper()] for row in shapes)
    shuffled = [shapes[i] for i in np.random.default_rng(0).permutation(len(shapes))]
    sources = [put("a.jsonl", shapes), put("b.jsonl", shuffled), put_folders("folder", shapes), "s.tar", "t.csv"]
    metrics = [evaluate(source)[0]["metrics"] for source in sources]
    assert all(other == pytest.approx(metrics[0]) for other in metrics)


def test_languages_a_baseline_and_all_files(run: Path, base: Path, evaluate: Evaluate, capsys: Says) -> None:
    results = evaluate(
        lang=["hi", "en"],
        adapter=run,
        baseline=f"local-dir:{base}",
        output="out/r.json",
        predictions="p.jsonl",
        per_class="c.csv",
    )
    text = said(capsys)
    assert [(result["role"], result["language"]) for result in results] == [
        ("model", "hi"), ("model", "en"), ("baseline", "hi"), ("baseline", "en")
    ]  # fmt: skip
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "r.en.baseline.json", "r.en.json", "r.hi.baseline.json", "r.hi.json"
    ]  # fmt: skip
    hindi, baseline = results[0], results[2]
    difference = hindi["baseline"]["difference"]
    assert difference["acc1"] == pytest.approx(hindi["metrics"]["acc1"] - baseline["metrics"]["acc1"])
    assert difference["low"] <= difference["acc1"] <= difference["high"]
    assert f"{100 * hindi['metrics']['acc1']:.1f}" in text
    parts = dict(part.split(":", 1) for part in hindi["signature"].split("|"))
    assert parts["classes"] == "shapes:6"
    assert (parts["lang"], parts["metric"], parts["templates"]) == ("hi", "acc1", "by class")
    assert str(run) in parts["adapter"]

    table = pd.read_json("p.jsonl", lines=True)
    assert len(table) == 4 * hindi["n"]
    answers = table[(table.role == "model") & (table.lang == "hi")]
    assert answers.correct.mean() == pytest.approx(hindi["metrics"]["acc1"], abs=1e-6)
    assert (answers.score >= answers.label_score - 1e-9).all()
    assert all(one["score"] >= next_["score"] for top in answers.top for one, next_ in itertools.pairwise(top))
    classes = pd.read_csv("c.csv")
    mean = classes[(classes.role == "model") & (classes.lang == "hi")].value.mean()
    assert mean == pytest.approx(hindi["metrics"]["mean_per_class_recall"], abs=1e-5)
    wrong = hindi["confusions"][0]
    assert f"{wrong['label']} as {wrong['predicted']} ({wrong['images']})" in text

    files = ["out/r.hi.json", "out/r.en.json"]
    line = [sys.executable, "-m", "clip_benchmark.cli", "build", *files, "--output", "t.csv"]
    subprocess.run(line, check=True, capture_output=True)
    built = pd.read_csv("t.csv")
    assert set(built.acc1) == {result["metrics"]["acc1"] for result in results[:2]}
    assert set(built.language) == {"hi", "en"}
    assert set(built.task) == {"zeroshot_classification"}


def test_images_with_several_labels(things: Path, shapes: Rows, evaluate: Evaluate, capsys: Says) -> None:
    colours = {row["id"]: row["label"] for row in lines(things / "colours.jsonl")}
    data = put("multi.jsonl", [row | {"label": [row["label"], colours[row["id"]]]} for row in shapes])
    classes = put_json("c.json", {"en": NAMES | {colour: colour for colour in colours.values()}})
    [result] = evaluate(data, classes=classes)
    assert set(result["metrics"]) == {"mean_average_precision", "mean_average_precision_11_points"}
    assert result["main_metric"] == "mean_average_precision"
    assert "confusions" not in result
    [result] = evaluate(data, classes=classes, metric="map11")
    assert result["main_metric"] == "mean_average_precision_11_points"
    with pytest.raises(CapivaraError, match="--metric acc1 is not defined here: images have several labels"):
        evaluate(data, classes=classes, metric="acc1")
    assert "mAP" in said(capsys)


def test_several_labels_stay_several_in_every_language(shapes: Rows, evaluate: Evaluate) -> None:
    rows = [
        row | {"label": [[row["label"], "star"], ["cross"], []][number % 3]} for number, row in enumerate(shapes[:20])
    ]
    classes = put_json("c.json", SOME_XHOSA)
    for result in evaluate(put("m.jsonl", rows), lang=["en", "xh"], classes=classes, predictions="p.jsonl"):
        assert result["main_metric"] == "mean_average_precision"
        assert result["n"] == 20  # an image of no class is a negative of all
    assert {line["label_score"] for line in lines("p.jsonl") if not line["labels"]} == {None}


def test_a_table_with_a_row_for_each_label(shapes: Rows, evaluate: Evaluate) -> None:
    with Path("t.csv").open("w") as file:
        writer = csv.writer(file)
        writer.writerow(["filepath", "label"])
        writer.writerows([row["image"], label] for row in shapes[:6] for label in (row["label"], "star"))
    [result] = evaluate("t.csv")
    assert result["main_metric"] == "mean_average_precision"
    assert {row["label"]: row["images"] for row in result["per_class"]}["star"] == 6


def test_metrics_of_two_classes_and_of_one(shapes: Rows, evaluate: Evaluate) -> None:
    rows = [row for row in shapes if row["label"] in ("circle", "star")]
    two, one = put("two.jsonl", rows), put("one.jsonl", [row for row in rows if row["label"] == "circle"])
    classes = put_json("c.json", {"en": {"circle": "circle", "star": "star"}})
    [result] = evaluate(two, classes=classes, metric="roc_auc")
    assert set(result["metrics"]) == {"acc1", "mean_per_class_recall", "roc_auc"}
    assert result["main_metric"] == "roc_auc"
    with pytest.raises(CapivaraError, match="--metric acc5 is not defined here: there are fewer than five classes"):
        evaluate(two, classes=classes, metric="acc5")
    with pytest.raises(CapivaraError, match="--metric roc_auc is not defined here: it needs two classes"):
        evaluate(one, classes=classes, metric="roc_auc")
    evaluate(one, classes=classes, output="r.json")
    assert "NaN" not in Path("r.json").read_text()


@pytest.mark.parametrize("metric", ["acc5", "mean_per_class_recall", "map", "map11"])
def test_the_interval_is_the_main_metrics_own(
    metric: str, run: Path, base: Path, evaluate: Evaluate, capsys: Says
) -> None:
    result = evaluate(lang=["hi"], metric=metric, adapter=run, baseline=f"local-dir:{base}")[0]
    difference = result["baseline"]["difference"]
    accuracy = metric not in ("map", "map11")
    assert ("low" in difference) == accuracy
    assert ("±" in said(capsys)) == accuracy
    if accuracy:
        assert difference["low"] <= difference[metric] <= difference["high"]
    else:  # asked for images with one label each
        assert set(result["metrics"]) == {"mean_average_precision", "mean_average_precision_11_points"}


def test_labels_without_a_class_and_classes_without_an_image(shapes: Rows, evaluate: Evaluate, capsys: Says) -> None:
    renamed = {"circle": "disc", "star": "sun"}
    rows = [row | {"label": renamed.get(row["label"], row["label"])} for row in shapes]
    [result] = evaluate(put("odd.jsonl", rows))
    lost = sum(row["label"] in ("disc", "sun") for row in rows)
    assert result["n"] == len(rows) - lost
    text = said(capsys)
    assert f"{lost} labels are not classes of shapes" in text
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
    assert "2 labels are not classes of shapes" in text
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


def test_files_that_would_cost_another_one_are_refused_before_the_work(
    things: Path, base: Path, shapes: Rows, evaluate: Evaluate, refused: Refused
) -> None:
    Path("victim").mkdir()
    Path("victim/thesis.txt").write_text("precious")
    Path("victim.json").mkdir()
    shutil.copy(things / "shapes.yaml", "c.yaml")
    data = put("d.jsonl", shapes[:3])
    line = ["classify-eval", "--data", data, "--classes", "c.yaml", "--lang", "pt", "--model", f"local-dir:{base}"]
    for flags, message in (
        (["--predictions", "victim"], "--predictions victim is a folder"),
        (["--per-class", "."], "--per-class . is a folder"),
        (["-o", "victim.json"], "--output victim.json is a folder"),
        (["--per-class", "c.yaml"], "c.yaml is both input and output"),
        (["--predictions", "d.jsonl"], "d.jsonl is both input and output"),
        (["-o", "r.json", "--predictions", "r.json"], "--output and --predictions are both r.json"),
        (["--predictions", "-"], "--predictions -: standard output is for the results"),
    ):
        assert message in refused(*line, *flags)


def test_as_it_is_typed_with_its_results_in_a_pipe(capivara: Capivara, things: Path, base: Path) -> None:
    line = ["--data", things / "shapes.jsonl", "--classes", things / "shapes.yaml", "--lang", "hi,en"]
    result = capivara("classify-eval", *line, "--model", f"local-dir:{base}")
    assert result.returncode == 0, result.stderr
    assert [json.loads(line)["language"] for line in result.stdout.splitlines()] == ["hi", "en"]
    assert "acc@1 *" in result.stderr
    listed = capivara("classify-eval", "--list")
    assert len(listed.stdout.splitlines()) == 24
    assert "names in en, hi, pt, xh" in listed.stdout


@pytest.mark.parametrize(
    ("flags", "message", "hint"),
    [
        ([], "--lang LANG is missing", "--lang"),
        (["--lang", "yo"], "shapes has no names in yo: it has en, hi, pt, xh", "--classes FILE"),
        (["--lang", "en", "--classes", "gone.json"], "cannot read gone.json", ""),
        (["--lang", "en", "--classes", "cifar"], "no class set cifar, and no such file, did you mean cifar", "--list"),
        (["--lang", "en", "--classes", "imagenet-1k"], "its names are not included in capivara", "--classes FILE"),
        (["--lang", "en", "--templates", "bad.json"], "the template 'a photo' has no place for the name", "{c}"),
        (["--lang", "en", "--data", "nolabel.jsonl"], "nolabel.jsonl: no image has a `label`", "`label` in JSONL"),
        (["--lang", "en", "--model", "local-dir:gone"], "no open_clip_config.json", ""),
        (["--lang", "klingonish"], "--lang klingonish: not a language code", "hi"),
        (["--lang", "[/x]"], "--lang [/x]: not a language code", "hi"),
        (["--lang", "../x"], "--lang ../x: not a language code", "hi"),
        (["--lang", "en", "--split", "test"], "--split does not apply to the format jsonl", "--encoding"),
        (["--lang", "en", "--images", "."], "--images does not apply to the format jsonl", ""),
        (["--lang", "en", "--metric", "roc_auc"], "--metric roc_auc is not defined here: it needs two classes", "acc1"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    flags: list[str], message: str, hint: str, things: Path, base: Path, tmp_path: Path, refused: Refused
) -> None:
    (tmp_path / "bad.json").write_text('["a photo"]')
    (tmp_path / "nolabel.jsonl").write_text('{"image": "a.png"}\n')
    defaults = {
        "--data": str(things / "shapes.jsonl"),
        "--classes": str(things / "shapes.yaml"),
        "--model": f"local-dir:{base}",
    }
    line = [part for flag, value in defaults.items() if flag not in flags for part in (flag, value)]
    said = refused("classify-eval", *line, *flags)
    assert message in said
    assert hint in said
