"""`capivara score`: the engine, and the command as it is typed."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from capivara_cli import artifacts
from capivara_cli.data import images, records
from capivara_cli.errors import CapivaraError
from capivara_cli.evaluation.retrieve_eval import retrieve_eval
from capivara_cli.models import checkpoint
from capivara_cli.models.clip import Clip
from capivara_cli.scoring.score import score
from tests import kills
from tests.conftest import Process, Refused, command, peak_memory
from tests.helpers import torchrun

Capivara = Callable[..., Process]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path: Path, found: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in found))
    return path


@pytest.fixture(scope="session")
def some(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 of the world's training records, with absolute paths; two captions in each of four languages."""
    found = [record.data | {"image": record.image.path} for record in list(records.read(world / "train.jsonl"))[:120]]
    return write(tmp_path_factory.mktemp("some") / "some.jsonl", found)


def test_scores_are_the_cosines_of_the_models_own_embeddings(
    clip: Clip, base: Path, some: Path, tmp_path: Path
) -> None:
    score([some], tmp_path / "out.jsonl", lang=["en", "pt"], model=f"local-dir:{base}")
    found = lines(tmp_path / "out.jsonl")
    assert len(found) == 120
    for before, record in zip(lines(some)[:10], found[:10], strict=True):
        picture = clip.preprocess(images.load(images.ImageRef(record["image"])))[None]
        with torch.inference_mode():
            image = torch.nn.functional.normalize(clip.model.encode_image(picture), dim=-1)
            for was, caption in zip(before["captions"], record["captions"], strict=True):
                if caption["lang"] in ("hi", "xh"):
                    assert caption == was
                    continue
                text = torch.nn.functional.normalize(clip.model.encode_text(clip.tokenizer([caption["text"]])), dim=-1)
                assert caption["score"] == pytest.approx(float(image @ text.T), abs=1e-3)
                assert {**caption, "score": None} == {**was, "score": None}


def test_an_image_that_comes_again_and_one_that_cannot_be_used(
    base: Path, some: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CAPIVARA_CACHE", str(tmp_path / "cache"))
    found = lines(some)[:5]
    found += [{**found[1], "id": "again"}, {**found[0], "id": "gone", "image": "gone.png"}]
    score([write(tmp_path / "in.jsonl", found)], tmp_path / "out.jsonl", lang=["en"], model=f"local-dir:{base}")
    made = {record["id"]: record for record in lines(tmp_path / "out.jsonl")}
    assert made["again"]["captions"] == made[found[1]["id"]]["captions"]
    assert [(each["id"], each["rejected"]) for each in lines(tmp_path / "out.jsonl.rejected.jsonl")] == [
        ("gone", "no such file")
    ]
    assert "1 of 7 records rejected" in capsys.readouterr().err
    stored = list(artifacts.cache_folder().rglob("*.safetensors"))
    assert len(stored) == 1  # and in it each image once
    size = stored[0].stat().st_size
    score([some], tmp_path / "all.jsonl", lang=["en"], model=f"local-dir:{base}")
    assert stored[0].stat().st_size == size


# --- marks, and scores that are there


def test_marks_are_honoured_and_taken_back(base: Path, some: Path, tmp_path: Path) -> None:
    model = f"local-dir:{base}"
    score([some], tmp_path / "marked.jsonl", lang=["en"], model=model, min_score=0.9, keep_all=True)
    marked = list(records.read(tmp_path / "marked.jsonl"))
    rejected = sum("rejected" in caption for record in marked for caption in record.captions)
    assert 0 < rejected < 240
    assert sum(len(record.texts("en")) for record in marked) == 240 - rejected
    [result] = retrieve_eval([str(tmp_path / "marked.jsonl")], ["en"], model=model)
    assert result["n_texts"] == 240 - rejected
    score([tmp_path / "marked.jsonl"], tmp_path / "free.jsonl", lang=["en"], scored=True)
    assert not any(
        "rejected" in caption for record in records.read(tmp_path / "free.jsonl") for caption in record.captions
    )


def test_scores_that_are_there_give_what_the_model_gave(base: Path, some: Path, tmp_path: Path) -> None:
    flags: dict[str, Any] = {"lang": ["hi"], "by": "en", "min_score": 0.93, "diverse": 0.7, "min_captions": 1}
    score([some], tmp_path / "model.jsonl", model=f"local-dir:{base}", **flags)
    score([some], tmp_path / "all.jsonl", model=f"local-dir:{base}", lang=["en"])
    score([tmp_path / "all.jsonl"], tmp_path / "scored.jsonl", scored=True, **flags)
    for end in ("", ".rejected.jsonl"):
        assert (tmp_path / f"model.jsonl{end}").read_bytes() == (tmp_path / f"scored.jsonl{end}").read_bytes()
    dropped = lines(tmp_path / "model.jsonl.rejected.jsonl")
    assert {each["rejected"] for each in dropped} >= {"score below 0.93", "too like another (TF-IDF above 0.7)"}


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, "has no score"),
        ({"score": None}, r"None is no cosine \(-1 to 1\)"),
        ({"score": "0.3"}, "'0.3' is no cosine"),
        ({"score": True}, "True is no cosine"),
        ({"score": float("nan")}, "nan is no cosine"),
        ({"score": 31.2}, "31.2 is no cosine"),
    ],
)
def test_a_caption_without_a_score_is_named(given: dict[str, Any], problem: str, tmp_path: Path) -> None:
    captions = [{"text": "a", "lang": "en", "score": 0.3}, {"text": "b", "lang": "en", **given}]
    source = write(tmp_path / "in.jsonl", [{"image": "a.png", "captions": captions}])
    with pytest.raises(CapivaraError, match=rf"in.jsonl:1: caption 1 \(en\): {problem}"):
        score([source], tmp_path / "out.jsonl", scored=True)


def test_two_ranks_share_scores_that_are_there(tmp_path: Path) -> None:
    captions = [{"text": str(number), "lang": "en", "score": number / 10} for number in range(5)]
    write(tmp_path / "in.jsonl", [{"id": str(i), "image": "a.png", "captions": captions} for i in range(2100)])
    flags = ["score", "in.jsonl", "--scored", "--top-k", "2"]
    result = torchrun("-m", "capivara_cli", *flags, "-o", "two.jsonl", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    score([tmp_path / "in.jsonl"], tmp_path / "one.jsonl", scored=True, top_k=2)
    for end in ("", ".rejected.jsonl"):
        assert (tmp_path / f"two.jsonl{end}").read_bytes() == (tmp_path / f"one.jsonl{end}").read_bytes()


@pytest.mark.parametrize("found", [float("nan"), 31.2, "0.3", None, [1]])
@pytest.mark.parametrize("mark", ["mine", ["mine"], 3, True])
def test_scores_and_marks_of_an_image_that_cannot_be_used_are_not_ours(
    found: object, mark: object, base: Path, some: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captions = [{"text": "a", "lang": "en", "score": found, "rejected": mark}]
    records = [*lines(some)[:1], {"id": "gone", "image": "gone.png", "captions": captions}]
    source = write(tmp_path / "in.jsonl", records)
    score([source], tmp_path / "out.jsonl", lang=["en"], model=f"local-dir:{base}", keep_all=True)
    said = " ".join(capsys.readouterr().err.split())
    assert "1 of 2 images, 2 of 2 captions (100%) kept" in said
    assert "gone: no such file" in said


def test_a_model_that_gives_no_numbers_is_named(base: Path, some: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "nan")
    checkpoint.relocate(tmp_path / "nan")
    weights = tmp_path / "nan" / "open_clip_model.safetensors"
    tensors = artifacts.load_tensors(weights)
    tensors["text.proj.weight"].fill_(float("nan"))
    artifacts.save_tensors(weights, tensors, {"format": "pt"})
    with pytest.raises(CapivaraError, match=r"some\.jsonl:1: the model's score of caption 0 is no number \(nan\)"):
        score([some], tmp_path / "out.jsonl", lang=["en"], model=f"local-dir:{tmp_path / 'nan'}")


@pytest.mark.parametrize(("source", "said"), [("crowd", "judged no image"), ("human", "")])
def test_a_pair_score_that_can_judge_nothing_says_so(
    source: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captions = [{"text": "a", "lang": "en", "score": 0.3, "source": source}]
    write(tmp_path / "in.jsonl", [{"image": "a.png", "captions": captions}])
    score([tmp_path / "in.jsonl"], tmp_path / "out.jsonl", scored=True, pair_score=0.2)
    text = capsys.readouterr().err
    assert said in text
    assert ("--human SOURCE" in text) == bool(said)
    assert ("crowd (en)" in text) == bool(said)


# --- as it is typed


def test_a_pipe_with_its_table_and_histogram_on_the_other_side(
    capivara: Capivara, base: Path, some: Path, tmp_path: Path
) -> None:
    flags = ["--lang", "hi", "--by", "en", "--min-score", "0.93", "--model", f"local-dir:{base}"]
    result = capivara("score", *flags, "--plot", "plot.png", stdin=some.read_text())
    assert result.returncode == 0, result.stderr
    made = [json.loads(line) for line in result.stdout.splitlines()]
    kept = sum(caption["lang"] in ("en", "hi") for record in made for caption in record["captions"])
    dropped = int(next(line.split() for line in result.stderr.splitlines() if line.split()[:1] == ["all"])[-1])
    assert kept + dropped == 480  # the English ones stay: their Portuguese stands on them
    assert f"120 of 120 images, {kept} of 480 captions" in " ".join(result.stderr.split())
    assert "█" in result.stderr
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.width > 500


def test_settings_and_records_of_another_run_are_refused(base: Path, some: Path, tmp_path: Path) -> None:
    found = [{**record, "id": f"{turn}-{record['id']}"} for turn in range(10) for record in lines(some)]
    found[1100]["image"] = "gone.png"  # in the second window
    source, out = write(tmp_path / "in.jsonl", found), tmp_path / "out.jsonl"
    flags: dict[str, Any] = {"model": f"local-dir:{base}", "lang": ["en"], "strict": True}
    with pytest.raises(CapivaraError, match=r"in\.jsonl:1101: .*no such file"):
        score([source], out, min_score=0.9, **flags)
    with pytest.raises(CapivaraError, match=r"--min-score 0\.9, now 0\.8; --top-k null, now 3"):
        score([source], out, min_score=0.8, top_k=3, **flags)
    with pytest.raises(CapivaraError, match=r"--min-score 0\.9, now null"):
        score([source], out, **flags)
    with pytest.raises(CapivaraError, match="begun with other records: number 4 was .*:4, and has changed since"):
        score(
            [write(source, [*found[:3], found[3] | {"captions": found[4]["captions"]}, *found[4:]])],
            out,
            min_score=0.9,
            **flags,
        )
    stray = base / "model.bin"  # other weights in a folder of the same name
    stray.write_bytes(b"1")
    try:
        with pytest.raises(CapivaraError, match="begun with other settings: the model's files "):
            score([source], out, min_score=0.9, **flags)
    finally:
        stray.unlink()
    found[1100]["image"] = found[0]["image"]
    write(source, found)
    score([source], out, min_score=0.9, **flags)
    assert len(lines(out)) + sum("captions" in each for each in lines(tmp_path / "out.jsonl.rejected.jsonl")) == 1200


SETUP = """
import os
import capivara_cli.models.embedding_cache, capivara_cli.scoring.report, rich.progress, rich.table
import open_clip, transformers
from capivara_cli.models import embedding_cache as embeddings
from capivara_cli.scoring import score as scoring
from capivara_cli.scoring.score import score
from capivara_cli.scoring.report import Report

scoring.WINDOW = 16
embeddings.SEGMENT_SECONDS = 0  # each batch is written: a killed process leaves some of a window's images

def run(output):
    os.environ["CAPIVARA_CACHE"] = str(folder / f"{output.stem}-cache")
    score([sys.argv[2]], output, model="local-dir:" + sys.argv[3], lang=["hi"], by="en", min_score=0.93, top_k=1)
"""


def test_after_any_number_of_kills_the_bytes_are_those_of_an_undisturbed_run(
    base: Path, some: Path, tmp_path: Path
) -> None:
    found = lines(some)
    found[50]["image"] = "gone.png"
    found[70]["image"] = found[3]["image"]  # known from the cache, or from the batch before
    kills.survive(SETUP, tmp_path / "out", write(tmp_path / "in.jsonl", found), base, kills=15)
    assert len(lines(tmp_path / "out" / "whole.jsonl")) > 50


def test_two_ranks_write_what_one_writes(base: Path, some: Path, tmp_path: Path) -> None:
    found = [{**record, "id": f"{turn}-{record['id']}"} for turn in range(18) for record in lines(some)]
    found[7]["image"] = "gone.png"
    source = write(tmp_path / "in.jsonl", found)
    flags = ["score", str(source), "--lang", "en", "--min-score", "0.93", "--model", f"local-dir:{base}"]
    result = torchrun("-m", "capivara_cli", *flags, "-o", "two.jsonl", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    score([source], tmp_path / "one.jsonl", lang=["en"], min_score=0.93, model=f"local-dir:{base}")
    one, two = ({each["id"]: each for each in lines(tmp_path / f"{name}.jsonl")} for name in ("one", "two"))
    assert list(one) == list(two)
    assert f"{len(two):,} of 2,160 images" in result.stderr


MEMORY = """
import sys
from pathlib import Path
from capivara_cli.scoring.score import score
from capivara_cli.scoring.report import Report
score([sys.argv[1]], Path(sys.argv[2]), scored=True, min_score=0.2)
"""


def test_memory_does_not_grow_with_the_number_of_records(tmp_path: Path) -> None:
    """Each record carries 10 kB: to hold 30,000 of them would take 300 MB."""
    peaks = []
    for count in (3000, 30_000):
        source = tmp_path / f"{count}.jsonl"
        with source.open("w") as file:
            for number in range(count):
                caption = {"text": "a dog", "lang": "en", "score": number % 7 / 10}
                record = {"id": str(number), "image": "a.png", "captions": [caption], "note": "x" * 10_000}
                file.write(json.dumps(record) + "\n")
        peaks.append(peak_memory(MEMORY, str(source), str(tmp_path / f"{count}.out")))
    assert peaks[1] - peaks[0] < 40, f"{peaks} MB"


def test_a_pipe_keeps_flowing(base: Path, some: Path) -> None:
    """What has come in is scored, though more may come."""
    line = command("score", "-", "--lang", "en", "--model", f"local-dir:{base}")
    first = some.read_text().splitlines(True)[0]
    with subprocess.Popen(
        line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(first)
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["captions"][0]["score"] > 0.5
        process.stdin.close()
        assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["in.jsonl", "--lang", "hi"], "no caption in hi: the data has en (1)", "capivara translate --to hi"),
        (["in.jsonl", "--by", "pt"], "no caption in pt", ""),
        (["in.jsonl", "--lang", "en", "--by", "en"], "--by en is --lang en", "leave --by out"),
        (["in.jsonl", "--min-score", "20"], "--min-score 20: a cosine", "0.2"),
        (["in.jsonl", "--diverse", "-1"], "--diverse -1: between 0 and 1", "0.3"),
        (["in.jsonl", "--top-k", "0"], "--top-k 0: at least 1", ""),
        (["gone.jsonl"], "gone.jsonl: no such file", ""),
        (["in.jsonl", "-o", "in.jsonl"], "in.jsonl is read", "-o"),
        (["in.jsonl", "--model", "local-dir:nowhere", "-o", "out.jsonl"], "no open_clip_config.json", ""),
        (["in.jsonl", "--plot", "folder"], "--plot folder", ".png"),
        (["in.jsonl", "--plot", "there.png"], "there.png is there already", "--overwrite"),
        (["in.jsonl", "--plot", "x.png", "-o", "x.png"], "--plot x.png is what -o names", "another name"),
        (["in.jsonl", "--by", "en", "--lang", "hj"], "no caption in hj: the data has en (1)", ""),
        (["in.jsonl", "--by", "en,hi"], "no caption in en,hi", ""),
        (["in.jsonl", "--by", ""], "--by '': no language", "--by en"),
        (["in.jsonl", "--lang", ","], "--lang ,: no language in it", "--lang hi,xh"),
        (["in.jsonl", "--min-captions", "2"], "--min-captions 2: only --diverse", "--diverse 0.3"),
        (["in.jsonl", "--scored", "--model", "x"], "--scored takes the scores that are there", "leave out"),
        (["in.jsonl", "--scored", "--device", "gpu"], "--scored takes the scores that are there", "leave out"),
        (["in.jsonl", "--model", "local-dir:m", "--pretrained", "t"], "--pretrained t: local-dir:m has its own", ""),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: list[str], message: str, hint: str, refused: Refused, tmp_path: Path
) -> None:
    write(tmp_path / "in.jsonl", [{"image": "a.png", "captions": [{"text": "a", "lang": "en"}]}])
    (tmp_path / "folder").mkdir()
    (tmp_path / "there.png").touch()
    said = refused("score", *arguments)
    assert message in said
    assert hint in said


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("model:", "capivara.yaml: model = None"),
        ("model: foo", "capivara.yaml: model = 'foo'"),
        ("model: {nam: x}", "capivara.yaml: unknown key model.nam, did you mean model.name?"),
        ("model: {name: [x]}", "capivara.yaml: model.name = ['x']"),
    ],
)
def test_a_project_file_that_names_no_model(section: str, message: str, refused: Refused, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", [{"image": "a.png", "captions": [{"text": "a", "lang": "en"}]}])
    (tmp_path / "capivara.yaml").write_text(section)
    assert message in refused("score", "in.jsonl")


def test_a_language_that_a_pipe_lacks_is_named_at_its_end(capivara: Capivara, base: Path, some: Path) -> None:
    result = capivara("score", "--lang", "zz", "--model", f"local-dir:{base}", stdin=some.read_text())
    assert result.returncode == 1
    assert "error: no caption in zz: the data has en (240), pt (240), hi (240), xh (240)" in result.stderr


def test_a_reader_that_has_enough_is_no_error(base: Path, some: Path) -> None:
    line = command("score", some, "--lang", "en", "--model", f"local-dir:{base}")
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(60) == 141


def test_a_pipe_has_the_languages_human_and_those_that_are_named(capivara: Capivara) -> None:
    captions = [{"text": name, "lang": "en", "score": 0.1, "source": name} for name in ("human", "crowd", "blip2")]
    record = json.dumps({"image": "a.png", "captions": captions})
    result = capivara("score", "--scored", "--first", "0", "--human", "crowd", stdin=record)
    assert [each["text"] for each in json.loads(result.stdout)["captions"]] == ["human", "crowd"]


def test_scores_of_a_model_with_an_adapter_are_others(base: Path, run: Path, some: Path, tmp_path: Path) -> None:
    for name, adapter in (("base", None), ("adapted", run)):
        score([some], tmp_path / f"{name}.jsonl", lang=["hi"], model=f"local-dir:{base}", adapter=adapter)
    means = [
        np.mean(
            [
                each["score"]
                for record in lines(tmp_path / f"{name}.jsonl")
                for each in record["captions"]
                if "score" in each
            ]
        )
        for name in ("base", "adapted")
    ]
    assert means[1] > means[0] + 0.05
