"""`capivara classify-eval`: the engine, and the command as it is typed."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
import yaml

from capivara_cli.data import images
from capivara_cli.data.images import ImageRef
from capivara_cli.errors import CapivaraError
from capivara_cli.evaluation.classify_eval import class_weights
from capivara_cli.models.clip import Clip
from tests.conftest import Process, Refused
from tests.evaluation.conftest import LABELS, NAMES, SOME_XHOSA, Evaluate, Rows, Says, put, put_folders, put_json, said
from tests.helpers import read_jsonl, write_tar

Capivara = Callable[..., Process]


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
    colours = {row["id"]: row["label"] for row in read_jsonl(things / "colours.jsonl")}
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
    assert {line["label_score"] for line in read_jsonl(Path("p.jsonl")) if not line["labels"]} == {None}


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
