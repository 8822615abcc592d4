from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from capivara_cli.data import image_records
from capivara_cli.data.images import load as load_image
from capivara_cli.errors import CapivaraError
from capivara_cli.evaluation.options import RetrieveOptions
from capivara_cli.evaluation.retrieve_eval import retrieve_eval
from capivara_cli.models import checkpoint
from capivara_cli.models.spec import ModelSpec
from capivara_cli.runtime import Runtime
from capivara_cli.training.merge_lora import merge_lora
from tests.helpers import read_jsonl, write_jsonl


@pytest.fixture(scope="module")
def results(world: Path, base: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Result files and ranks of a run against its base in two languages."""
    folder = tmp_path_factory.mktemp("results")
    options = RetrieveOptions(
        lang=["hi", "en"], adapter=run, baseline=f"local-dir:{base}", ranks=folder / "ranks.jsonl"
    )
    retrieve_eval([world / "test.jsonl"], options, folder / "result.json")
    return folder


def metrics(path: Path) -> dict[str, float]:
    metrics: dict[str, float] = json.loads(path.read_text())["metrics"]
    return metrics


def test_the_adapter_and_the_merged_folder_give_the_same_numbers(
    results: Path, world: Path, run: Path, tmp_path: Path
) -> None:
    merged = merge_lora(run, tmp_path / "merged")
    [result] = retrieve_eval([world / "test.jsonl"], RetrieveOptions(lang=["hi"], model=f"local-dir:{merged}"))
    assert result["metrics"] == metrics(results / "result.hi.json")


def test_the_numbers_are_those_of_embeddings_without_cache(results: Path, world: Path, base: Path) -> None:
    clip = checkpoint.load(ModelSpec(f"local-dir:{base}"), Runtime.start("cpu", "fp32"))
    rows = image_records.read_all([world / "test.jsonl"])
    with torch.inference_mode():
        images = clip.encode_pixels(torch.stack([clip.preprocess(load_image(record.image)) for record in rows]))
    scores = (clip.encode_texts([record.texts("en")[0] for record in rows]) @ images.T).numpy()
    ranks = (scores > np.diag(scores)[:, None]).sum(axis=1) + 1
    ours = metrics(results / "result.en.baseline.json")
    for k in (1, 5, 10):
        # The cache holds float16: a near tie may fall the other way.
        assert ours[f"image_retrieval_recall@{k}"] == pytest.approx(float((ranks <= k).mean()), abs=1.5 / len(rows))


def test_the_difference_is_that_of_the_two_result_files(results: Path) -> None:
    model, baseline = metrics(results / "result.hi.json"), metrics(results / "result.hi.baseline.json")
    difference = json.loads((results / "result.hi.json").read_text())["baseline"]["difference"]
    assert difference["mean_recall"] == pytest.approx(model["mean_recall"] - baseline["mean_recall"])
    assert difference["low"] <= difference["mean_recall"] <= difference["high"]
    assert difference["mean_recall"] > 0.05


def test_recalls_can_be_computed_again_from_the_ranks(results: Path) -> None:
    lines = [json.loads(line) for line in (results / "ranks.jsonl").read_text().splitlines()]
    for lang in ("hi", "en"):
        ranks = [
            line["rank"]
            for line in lines
            if (line["role"], line["lang"], line["direction"]) == ("model", lang, "text_to_image")
        ]
        recall = sum(rank <= 5 for rank in ranks) / len(ranks)
        assert metrics(results / f"result.{lang}.json")["image_retrieval_recall@5"] == pytest.approx(recall, abs=0.02)


def test_clip_benchmark_reads_the_result_files(results: Path, tmp_path: Path) -> None:
    files = [str(path) for path in sorted(results.glob("result.*.json"))]
    table = tmp_path / "table.csv"
    subprocess.run(
        [sys.executable, "-m", "clip_benchmark.cli", "build", *files, "--output", str(table)],
        check=True,
        capture_output=True,
    )
    with table.open() as file:
        rows = list(csv.DictReader(file))
    recalls = {float(row["image_retrieval_recall@5"]) for row in rows}
    assert recalls == {metrics(path)["image_retrieval_recall@5"] for path in results.glob("result.*.json")}


def test_the_signature_says_what_was_measured(results: Path, run: Path) -> None:
    signature = json.loads((results / "result.hi.json").read_text())["signature"]
    parts = dict(part.split(":", 1) for part in signature.split("|"))
    assert parts["data"] == "test.jsonl"
    assert parts["lang"] == "hi"
    assert parts["texts"] == parts["images"] == "60"
    assert str(run) in parts["adapter"]


def test_an_image_without_a_caption_in_the_language_is_a_distractor(
    world: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in (world / "test.jsonl").read_text().splitlines()]
    for row in rows:
        row["image"] = str(world / row["image"])
    for row in rows[30:]:
        row["captions"] = [caption for caption in row["captions"] if caption["lang"] == "en"]
    (tmp_path / "some.jsonl").write_text("\n".join(map(json.dumps, rows)))
    options = RetrieveOptions(lang=["pt", "en"], model=f"local-dir:{base}")
    results = retrieve_eval([tmp_path / "some.jsonl"], options)
    assert [(result["n_texts"], result["n_images"]) for result in results] == [(30, 60), (60, 60)]
    screen = capsys.readouterr().err
    assert "30 images without a caption in pt are distractors only" in screen
    rows_shown = [line.split()[:3] for line in screen.splitlines()]  # each language with its own number of texts
    assert ["pt", "model", "30"] in rows_shown
    assert ["en", "model", "60"] in rows_shown


def test_copies_of_images_are_told_and_counted_but_not_merged(
    world: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row | {"image": str(world / row["image"])} for row in read_jsonl(world / "test.jsonl")]
    copy, link = tmp_path / "copy.png", tmp_path / "link.png"
    copy.write_bytes(Path(rows[0]["image"]).read_bytes())
    link.symlink_to(rows[1]["image"])
    copied = [rows[0] | {"id": "copy", "image": str(copy)}, rows[1] | {"id": "link", "image": str(link)}]
    options = RetrieveOptions(lang=["en"], model=f"local-dir:{base}", baseline=f"local-dir:{base}")
    results = retrieve_eval([write_jsonl(tmp_path / "copied.jsonl", rows + copied)], options)
    assert {(result["copies"], result["n_images"]) for result in results} == {(2, 62)}
    told = "2 of 62 test images (3.2%) are copies of another, which lowers recall:"
    assert capsys.readouterr().err.count(f"{told} {copy} has the content of {rows[0]['image']}") == 1
    assert retrieve_eval([write_jsonl(tmp_path / "plain.jsonl", rows)], options)[0]["copies"] == 0
    assert "copies" not in capsys.readouterr().err


def test_several_captions_an_image_are_all_queries(world: Path, base: Path) -> None:
    [result] = retrieve_eval([world / "train.jsonl"], RetrieveOptions(lang=["en"], model=f"local-dir:{base}"))
    assert (result["n_texts"], result["n_images"]) == (800, 400)


def test_a_language_that_is_not_there_names_those_that_are(world: Path, base: Path) -> None:
    with pytest.raises(CapivaraError, match=r"no caption in yo: the data has en \(60\), pt \(60\)"):
        retrieve_eval([world / "test.jsonl"], RetrieveOptions(lang=["yo"], model=f"local-dir:{base}"))
    with pytest.raises(CapivaraError, match=r"--lang LANG is missing; the data has captions in: en \(60\)"):
        retrieve_eval([world / "test.jsonl"], RetrieveOptions(model=f"local-dir:{base}"))


def test_the_base_of_an_adapter_is_found_by_itself_and_named(results: Path, base: Path) -> None:
    assert json.loads((results / "result.hi.json").read_text())["model"] == f"local-dir:{base}"
