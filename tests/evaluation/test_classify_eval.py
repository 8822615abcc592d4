"""`capivara classify-eval`: the engine, and the command as it is typed."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch

from capivara_cli.data import images
from capivara_cli.data.images import ImageRef
from capivara_cli.demo.world import write_classes
from capivara_cli.errors import CapivaraError
from capivara_cli.evaluation.classify_eval import class_weights, classify_eval
from capivara_cli.models.clip import Clip
from tests.conftest import Process, Refused

Capivara = Callable[..., Process]
Says = pytest.CaptureFixture[str]


@pytest.fixture(scope="session")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of one thing: shapes and colours to classify."""
    folder = tmp_path_factory.mktemp("things")
    (folder / "images").mkdir()
    write_classes(folder, each=2)
    return folder


@pytest.fixture
def there(things: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What most calls are given; the working folder is empty."""
    monkeypatch.chdir(tmp_path)
    return {"model": f"local-dir:{base}", "classes": str(things / "shapes.yaml")}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


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


def test_results_are_those_of_a_plain_evaluation(clip: Clip, things: Path, there: dict[str, Any]) -> None:
    [result] = classify_eval([str(things / "shapes.jsonl")], ["en"], output=Path("r.json"), **there)
    import yaml

    content = yaml.safe_load((things / "shapes.yaml").read_text(encoding="utf-8"))
    weights = class_weights(clip, [content["prompts"]["en"][label] for label in content["labels"]])
    right = 0
    found = lines(things / "shapes.jsonl")
    for record in found:
        pixels = clip.preprocess(images.load(ImageRef(str(things / record["image"]))))[None]
        with torch.inference_mode():
            right += content["labels"][int((clip.encode_pixels(pixels).cpu() @ weights.T).argmax())] == record["label"]
    assert result["metrics"]["acc1"] == pytest.approx(right / len(found), abs=1e-6)
    assert result["metrics"]["acc1"] > 0.9
    assert result["n"] == len(found)
    assert result == json.loads(Path("r.json").read_text())


def test_sources_of_every_kind_give_the_same(things: Path, there: dict[str, Any]) -> None:
    found = lines(things / "shapes.jsonl")
    labels = ["circle", "square", "triangle", "star", "cross", "drop"]
    with tarfile.open("s.tar", "w") as archive:
        import io

        for record in found:
            Path("folder", record["label"]).mkdir(parents=True, exist_ok=True)
            shutil.copy(things / record["image"], Path("folder", record["label"], f"{record['id']}.png"))
            number = str(labels.index(record["label"])).encode()
            for name, content in (
                (f"{record['id']}.png", (things / record["image"]).read_bytes()),
                (f"{record['id']}.cls", number),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    with Path("t.csv").open("w") as file:
        writer = csv.writer(file)
        writer.writerow(["filepath", "label"])
        writer.writerows([str(things / record["image"]), record["label"].upper()] for record in found)
    metrics = [
        classify_eval([source], ["en"], **there)[0]["metrics"]
        for source in (str(things / "shapes.jsonl"), "folder", "s.tar", "t.csv")
    ]
    assert all(each == metrics[0] for each in metrics)


def test_languages_a_baseline_and_all_files(things: Path, run: Path, there: dict[str, Any], capsys: Says) -> None:
    results = classify_eval(
        [str(things / "shapes.jsonl")],
        ["hi", "en"],
        **there,
        adapter=run,
        baseline=there["model"],
        output=Path("out/r.json"),
        predictions=Path("p.jsonl"),
        per_class=Path("c.csv"),
    )
    text = said(capsys)
    assert [(result["role"], result["language"]) for result in results] == [
        ("model", "hi"), ("model", "en"), ("baseline", "hi"), ("baseline", "en")
    ]  # fmt: skip
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "r.en.baseline.json", "r.en.json", "r.hi.baseline.json", "r.hi.json"
    ]  # fmt: skip
    hindi, base = results[0], results[2]
    difference = hindi["baseline"]["difference"]
    assert difference["acc1"] == pytest.approx(hindi["metrics"]["acc1"] - base["metrics"]["acc1"])
    assert difference["low"] <= difference["acc1"] <= difference["high"]
    assert f"{100 * hindi['metrics']['acc1']:.1f}" in text
    parts = dict(part.split(":", 1) for part in hindi["signature"].split("|"))
    assert parts["classes"] == "shapes:6"
    assert (parts["lang"], parts["metric"], parts["templates"]) == ("hi", "acc1", "by class")
    assert str(run) in parts["adapter"]

    table = pd.read_json("p.jsonl", lines=True)
    assert len(table) == 4 * hindi["n"]
    own = table[(table.role == "model") & (table.lang == "hi")]
    assert own.correct.mean() == pytest.approx(hindi["metrics"]["acc1"], abs=1e-6)
    assert (own.score >= own.label_score - 1e-9).all()
    assert all(each["score"] >= later["score"] for top in own.top for each, later in itertools.pairwise(top))
    classes = pd.read_csv("c.csv")
    mean = classes[(classes.role == "model") & (classes.lang == "hi")].value.mean()
    assert mean == pytest.approx(hindi["metrics"]["mean_per_class_recall"], abs=1e-5)
    wrong = hindi["confusions"][0]
    assert f"{wrong['label']} as {wrong['predicted']} ({wrong['images']})" in text


def test_clip_benchmark_reads_the_result_files(things: Path, there: dict[str, Any]) -> None:
    classify_eval([str(things / "shapes.jsonl")], ["hi", "en"], output=Path("r.json"), **there)
    files = ["r.hi.json", "r.en.json"]
    line = [sys.executable, "-m", "clip_benchmark.cli", "build", *files, "--output", "t.csv"]
    subprocess.run(line, check=True, capture_output=True)
    table = pd.read_csv("t.csv")
    assert set(table.acc1) == {json.loads(Path(name).read_text())["metrics"]["acc1"] for name in files}
    assert set(table.language) == {"hi", "en"}
    assert set(table.task) == {"zeroshot_classification"}


def test_images_with_several_labels(things: Path, there: dict[str, Any], capsys: Says) -> None:
    colours = {record["id"]: record["label"] for record in lines(things / "colours.jsonl")}
    with Path("multi.jsonl").open("w") as file:
        for record in lines(things / "shapes.jsonl"):
            labels = [record["label"], colours[record["id"]]]
            file.write(json.dumps({"id": record["id"], "image": str(things / record["image"]), "label": labels}) + "\n")
    names = {
        "en": {word: word for word in (*set(colours.values()), "circle", "square", "triangle", "star", "cross", "drop")}
    }
    Path("c.json").write_text(json.dumps(names))
    there["classes"] = "c.json"
    [result] = classify_eval(["multi.jsonl"], ["en"], **there)
    assert set(result["metrics"]) == {"mean_average_precision", "mean_average_precision_11_points"}
    assert result["main_metric"] == "mean_average_precision"
    assert "confusions" not in result
    [result] = classify_eval(["multi.jsonl"], ["en"], metric="map11", **there)
    assert result["main_metric"] == "mean_average_precision_11_points"
    with pytest.raises(CapivaraError, match="--metric acc1 is not defined here: images have several labels"):
        classify_eval(["multi.jsonl"], ["en"], metric="acc1", **there)
    assert "mAP" in said(capsys)


def test_two_classes_and_few(things: Path, there: dict[str, Any]) -> None:
    found = [r for r in lines(things / "shapes.jsonl") if r["label"] in ("circle", "star")]
    Path("two.jsonl").write_text("".join(json.dumps(r | {"image": str(things / r["image"])}) + "\n" for r in found))
    Path("c.json").write_text(json.dumps({"en": {"circle": "circle", "star": "star"}}))
    there["classes"] = "c.json"
    [result] = classify_eval(["two.jsonl"], ["en"], metric="roc_auc", **there)
    assert set(result["metrics"]) == {"acc1", "mean_per_class_recall", "roc_auc"}
    assert result["main_metric"] == "roc_auc"
    with pytest.raises(CapivaraError, match="--metric acc5 is not defined here: there are fewer than five classes"):
        classify_eval(["two.jsonl"], ["en"], metric="acc5", **there)
    one = [r for r in found if r["label"] == "circle"]
    Path("one.jsonl").write_text("".join(json.dumps(r | {"image": str(things / r["image"])}) + "\n" for r in one))
    with pytest.raises(CapivaraError, match="--metric roc_auc is not defined here: it needs two classes"):
        classify_eval(["one.jsonl"], ["en"], metric="roc_auc", **there)
    [result] = classify_eval(["one.jsonl"], ["en"], output=Path("r.json"), **there)
    assert "NaN" not in Path("r.json").read_text()


def test_labels_without_a_class_and_classes_without_an_image(things: Path, there: dict[str, Any], capsys: Says) -> None:
    found = lines(things / "shapes.jsonl")
    for record in found:
        record["image"] = str(things / record["image"])
        record["label"] = {"circle": "disc", "star": "sun"}.get(record["label"], record["label"])
    Path("odd.jsonl").write_text("".join(json.dumps(record) + "\n" for record in found))
    [result] = classify_eval(["odd.jsonl"], ["en"], **there)
    lost = sum(record["label"] in ("disc", "sun") for record in found)
    assert result["n"] == len(found) - lost
    text = said(capsys)
    assert f"{lost} labels are of no class of shapes" in text
    assert "disc" in text
    assert "2 classes have no image, and stay as wrong answers: circle, star" in text
    for record in found:
        record["label"] = "nothing"
    Path("none.jsonl").write_text("".join(json.dumps(record) + "\n" for record in found))
    with pytest.raises(CapivaraError, match="none of the labels in the data is one of shapes's: nothing"):
        classify_eval(["none.jsonl"], ["en"], **there)


def test_classes_without_a_name_in_the_language_as_in_babel_imagenet(
    things: Path, there: dict[str, Any], capsys: Says
) -> None:
    labels = ["circle", "square", "triangle", "star", "cross", "drop"]
    found = lines(things / "shapes.jsonl")
    for record in found:
        record["image"] = str(things / record["image"])
        record["label"] = str(labels.index(record["label"]))
    Path("n.jsonl").write_text("".join(json.dumps(record) + "\n" for record in found))
    Path("babel.json").write_text(json.dumps({"EN": [[0, 3, 5], ["circle", "star", "drop"]]}))
    there["classes"] = "babel.json"
    [result] = classify_eval(["n.jsonl"], ["en"], **there)
    assert result["n_classes"] == 3
    assert result["n"] == sum(record["label"] in "035" for record in found)
    text = said(capsys)
    assert "997 of 1,000 classes have no name in en" in text
    assert "3 classes are too few to trust" in text


def test_two_classes_of_one_name_are_said(things: Path, there: dict[str, Any], capsys: Says) -> None:
    names = {
        "circle": "circle",
        "square": "circle",
        "triangle": "triangle",
        "star": "star",
        "cross": "cross",
        "drop": "drop",
    }
    Path("c.json").write_text(json.dumps({"en": names}))
    there["classes"] = "c.json"
    [result] = classify_eval([str(things / "shapes.jsonl")], ["en"], **there)
    assert "circle and square have the same name in en: circle" in said(capsys)
    recalls = {row["label"]: row["recall"] for row in result["per_class"]}
    assert recalls["circle"] <= 0.5  # a tie is not a hit
    assert recalls["square"] <= 0.5


def test_images_that_cannot_be_read_are_counted_out(things: Path, there: dict[str, Any], capsys: Says) -> None:
    found = [record | {"image": str(things / record["image"])} for record in lines(things / "shapes.jsonl")]
    found[3]["image"] = "gone.png"
    Path("bad.png").write_text("no image")
    found[5]["image"] = "bad.png"
    Path("d.jsonl").write_text("".join(json.dumps(record) + "\n" for record in found))
    [result] = classify_eval(["d.jsonl"], ["en"], **there)
    assert (result["n"], result["n_rejected"]) == (len(found) - 2, 2)
    text = said(capsys)
    assert "gone.png: no such file" in text
    assert "bad.png: not an image" in text


def test_without_a_class_file_the_labels_are_the_names_in_english_only(
    things: Path, there: dict[str, Any], capsys: Says
) -> None:
    del there["classes"]
    [result] = classify_eval([str(things / "shapes.jsonl")], ["en"], **there)
    assert result["n_classes"] == 6
    assert "the labels themselves are the names" in said(capsys)
    with pytest.raises(
        CapivaraError, match="no names of the classes circle, cross, drop, square, star, triangle in hi"
    ):
        classify_eval([str(things / "shapes.jsonl")], ["hi"], **there)


def test_a_shipped_set_is_taken_for_data_of_its_name(things: Path, there: dict[str, Any], capsys: Says) -> None:
    found = lines(things / "shapes.jsonl")
    for number, record in enumerate(found):
        Path(f"cifar10/{number % 10}").mkdir(parents=True, exist_ok=True)
        shutil.copy(things / record["image"], f"cifar10/{number % 10}/{number}.png")
    del there["classes"]
    [result] = classify_eval(["cifar10"], ["xh"], **there)
    assert "class set cifar-10, as the data is called" in said(capsys)
    assert (result["n_classes"], result["main_metric"]) == (10, "acc1")
    assert result["per_class"][0]["name"] == "inqwelo-moya"


def test_templates_of_a_file(things: Path, there: dict[str, Any]) -> None:
    results = []
    for templates in (["{c}"], ["there is a small red {} on a black background", "a picture of a {c}"]):
        Path("t.json").write_text(json.dumps(templates))
        results += classify_eval([str(things / "shapes.jsonl")], ["en"], templates="t.json", **there)
    assert "templates:2" in results[1]["signature"]
    assert results[0]["signature"] != results[1]["signature"]


def test_an_empty_class_folder(things: Path, there: dict[str, Any], capsys: Says) -> None:
    for record in lines(things / "shapes.jsonl")[:8]:
        Path("folder", record["label"]).mkdir(parents=True, exist_ok=True)
        shutil.copy(things / record["image"], Path("folder", record["label"]))
    labels = {path.name for path in Path("folder").iterdir()}
    for label in ("circle", "square", "triangle", "star", "cross", "drop"):
        Path("folder", label).mkdir(exist_ok=True)
    [result] = classify_eval(["folder"], ["en"], **there)
    assert (result["n"], result["n_classes"]) == (8, 6)
    assert [row["recall"] is None for row in result["per_class"]] == [
        row["label"] not in labels for row in result["per_class"]
    ]
    if len(labels) < 6:
        assert "classes have no image" in said(capsys)


def test_an_empty_class_folder_without_a_class_file(things: Path, there: dict[str, Any], capsys: Says) -> None:
    for record in lines(things / "shapes.jsonl")[:8]:
        Path("folder", record["label"]).mkdir(parents=True, exist_ok=True)
        shutil.copy(things / record["image"], Path("folder", record["label"]))
    Path("folder", "nothing").mkdir()
    del there["classes"]
    [result] = classify_eval(["folder"], ["en"], **there)
    assert result["per_class"][-1]["label"] != "nothing" or result["per_class"][-1]["images"] == 0
    assert "nothing" in [row["label"] for row in result["per_class"]]
    assert "1 classes have no image, and stay as wrong answers: nothing" in said(capsys)


def put(name: str, found: list[dict[str, Any]], things: Path) -> str:
    """Records as a file, their images with whole paths."""
    lines = [json.dumps(record | {"image": str(things / record["image"])}) + "\n" for record in found]
    Path(name).write_text("".join(lines))
    return name


def test_no_image_vanishes_in_silence(things: Path, there: dict[str, Any], capsys: Says) -> None:
    found = lines(things / "shapes.jsonl")[:14]
    odd: list[Any] = [True, None, {"name": "circle"}, [["circle"]], float("nan"), -1, "", "elsewhere", [None]]
    for record, label in zip(found, odd, strict=False):
        record["label"] = label
    del found[9]["label"]
    [result] = classify_eval([put("odd.jsonl", found, things)], ["en"], **there)
    assert (result["n"], result["n_rejected"]) == (4, 10)
    text = said(capsys)
    assert "8 images left out" in text
    assert "'True' is no label" in text
    assert "2 labels are of no class of shapes" in text
    assert "-1, elsewhere" in text
    with pytest.raises(CapivaraError, match=r"no image has a `label`; the first: .*: 'True' is no label"):
        classify_eval([put("one.jsonl", found[:1], things)], ["en"], **there)


def test_several_labels_stay_several_in_every_language(things: Path, there: dict[str, Any]) -> None:
    found = lines(things / "shapes.jsonl")[:20]
    for number, record in enumerate(found):
        record["label"] = [[record["label"], "star"], ["cross"], []][number % 3]
    names = {"en": {label: label for label in ("circle", "square", "triangle", "star", "cross", "drop")}}
    Path("c.json").write_text(json.dumps(names | {"xh": {"star": "inkwenkwezi", "cross": "umnqamlezo"}}))
    there["classes"] = "c.json"
    results = classify_eval([put("m.jsonl", found, things)], ["en", "xh"], predictions=Path("p.jsonl"), **there)
    for result in results:
        assert result["main_metric"] == "mean_average_precision"
        assert result["n"] == 20  # those of no class are what a class can be confused with
    assert {line["label_score"] for line in lines(Path("p.jsonl")) if not line["labels"]} == {None}


def test_a_metric_of_several_labels_for_images_of_one(things: Path, there: dict[str, Any]) -> None:
    [result] = classify_eval([str(things / "shapes.jsonl")], ["en"], metric="map11", **there)
    assert result["main_metric"] == "mean_average_precision_11_points"
    assert set(result["metrics"]) == {"mean_average_precision", "mean_average_precision_11_points"}


def test_a_table_with_a_row_for_each_label(things: Path, there: dict[str, Any]) -> None:
    found = lines(things / "shapes.jsonl")[:6]
    with Path("t.csv").open("w") as file:
        writer = csv.writer(file)
        writer.writerow(["filepath", "label"])
        for record in found:
            writer.writerow([str(things / record["image"]), record["label"]])
            writer.writerow([str(things / record["image"]), "star"])
    [result] = classify_eval(["t.csv"], ["en"], **there)
    assert result["main_metric"] == "mean_average_precision"
    assert {row["label"]: row["images"] for row in result["per_class"]}["star"] == 6


@pytest.mark.parametrize("metric", ["acc5", "mean_per_class_recall", "map"])
def test_the_interval_is_the_main_metrics_own(
    metric: str, things: Path, run: Path, there: dict[str, Any], capsys: Says
) -> None:
    flags = {**there, "metric": metric, "adapter": run, "baseline": there["model"]}
    result = classify_eval([str(things / "shapes.jsonl")], ["hi"], **flags)[0]
    difference = result["baseline"]["difference"]
    assert ("low" in difference) == (metric != "map")
    assert ("±" in said(capsys)) == (metric != "map")
    if metric != "map":
        assert difference["low"] <= difference[metric] <= difference["high"]


def test_languages_of_different_sizes_have_their_own_in_the_table(
    things: Path, there: dict[str, Any], capsys: Says
) -> None:
    names = {"en": {label: label for label in ("circle", "square", "triangle", "star", "cross", "drop")}}
    Path("c.json").write_text(json.dumps(names | {"xh": {"star": "inkwenkwezi", "cross": "umnqamlezo"}}))
    there["classes"] = "c.json"
    found = lines(things / "shapes.jsonl")
    name = put("es\x1b[31mc [red].jsonl", found, things)
    classify_eval([name], ["en", "xh", "XH"], **there)
    screen = capsys.readouterr().err
    assert "templates" not in screen  # the file brings none, and none are missed
    rows = [line.split()[:4] for line in screen.splitlines()]
    assert ["en", "model", str(len(found)), "6"] in rows
    assert ["xh", "model", str(sum(record["label"] in ("star", "cross") for record in found)), "2"] in rows or [
        "XH", "model", str(sum(record["label"] in ("star", "cross") for record in found)), "2"
    ] in rows  # fmt: skip
    assert "\x1b[31m" not in screen
    assert "c [red]" in screen


def test_templates_that_a_language_lacks_are_said(things: Path, there: dict[str, Any], capsys: Says) -> None:
    import yaml

    content = yaml.safe_load((things / "shapes.yaml").read_text(encoding="utf-8"))
    del content["prompts"]
    Path("c.yaml").write_text(yaml.safe_dump({**content, "templates": {"en": ["a {c} drawn large", "{c}"]}}))
    there["classes"] = "c.yaml"
    results = classify_eval([str(things / "shapes.jsonl")], ["en", "hi"], **there)
    assert ["templates:2" in result["signature"] for result in results] == [True, False]
    assert "c has no templates in hi: चित्र: {c}। is taken" in said(capsys)


def test_the_parts_of_data(things: Path, there: dict[str, Any]) -> None:
    for record in lines(things / "shapes.jsonl")[:8]:
        for part in ("test", "train"):
            Path("cifar-10", part, record["label"]).mkdir(parents=True, exist_ok=True)
        shutil.copy(things / record["image"], Path("cifar-10", "test", record["label"]))
    [result] = classify_eval(["cifar-10"], ["en"], split="test", **there)
    assert result["n"] == 8
    with pytest.raises(CapivaraError, match="cifar-10 has parts and no classes: test, train"):
        classify_eval(["cifar-10"], ["en"], **there)
    with pytest.raises(CapivaraError, match="cifar-10 has no folder val"):
        classify_eval(["cifar-10"], ["en"], split="val", **there)


def test_files_that_would_cost_another_one_are_refused_before_the_work(
    things: Path, there: dict[str, Any], refused: Refused
) -> None:
    Path("victim").mkdir()
    Path("victim/thesis.txt").write_text("precious")
    Path("victim.json").mkdir()
    shutil.copy(there["classes"], "c.yaml")
    data = put("d.jsonl", lines(things / "shapes.jsonl")[:3], things)
    line = ["classify-eval", "--data", data, "--classes", "c.yaml", "--lang", "pt", "--model", there["model"]]
    for flags, message in (
        (["--predictions", "victim"], "--predictions victim is a folder"),
        (["--per-class", "."], "--per-class . is a folder"),
        (["-o", "victim.json"], "--output victim.json is a folder"),
        (["--per-class", "c.yaml"], "c.yaml is read and cannot be written too"),
        (["--predictions", "d.jsonl"], "d.jsonl is read and cannot be written too"),
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
        (["--lang", "en", "--metric", "accuracy"], "--metric accuracy is not known", "roc_auc"),
        ([], "--lang LANG is missing", "--lang"),
        (["--lang", "yo"], "shapes has no names in yo: there are en, hi, pt, xh", "--classes FILE"),
        (["--lang", "en", "--classes", "gone.json"], "cannot read gone.json", ""),
        (["--lang", "en", "--classes", "cifar"], "no class set cifar, and no such file, did you mean cifar", "--list"),
        (["--lang", "en", "--classes", "imagenet-1k"], "its names do not come with capivara", "--classes FILE"),
        (["--lang", "en", "--templates", "bad.json"], "the template 'a photo' has no place for the name", "{c}"),
        (["--lang", "en", "--data", "nolabel.jsonl"], "nolabel.jsonl: no image has a `label`", "label in JSONL"),
        (["--lang", "en", "--model", "local-dir:gone"], "no open_clip_config.json", ""),
        (["--lang", "klingonish"], "--lang klingonish: no language", "hi"),
        (["--lang", "[/x]"], "--lang [/x]: no language", "hi"),
        (["--lang", "../x"], "--lang ../x: no language", "hi"),
        (["--lang", "en", "--split", "test"], "--split: jsonl has no use for it", "--encoding"),
        (["--lang", "en", "--images", "."], "--images: jsonl has no use for it", ""),
        (["--lang", "en", "--metric", "roc_auc"], "--metric roc_auc is not defined here: it needs two classes", "acc1"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    flags: list[str], message: str, hint: str, things: Path, there: dict[str, Any], refused: Refused
) -> None:
    Path("bad.json").write_text('["a photo"]')
    Path("nolabel.jsonl").write_text('{"image": "a.png"}\n')
    given = {"--data": str(things / "shapes.jsonl"), "--classes": there["classes"], "--model": there["model"]}
    line = [part for flag, value in given.items() if flag not in flags for part in (flag, value)]
    said = refused("classify-eval", *line, *flags)
    assert message in said
    assert hint in said


def test_scores_do_not_depend_on_the_order_of_images(things: Path, there: dict[str, Any]) -> None:
    found = [record | {"image": str(things / record["image"])} for record in lines(things / "shapes.jsonl")]
    results = []
    for name, own in (("a", found), ("b", [found[i] for i in np.random.default_rng(0).permutation(len(found))])):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in own))
        results += classify_eval([f"{name}.jsonl"], ["en"], **there)
    assert results[0]["metrics"] == pytest.approx(results[1]["metrics"])
