"""`capivara score`: the engine, and the command as it is typed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from capivara_cli import artifacts
from capivara_cli.data import images, records
from capivara_cli.errors import CapivaraError
from capivara_cli.evaluation.options import RetrieveOptions
from capivara_cli.evaluation.retrieve_eval import retrieve_eval
from capivara_cli.models.clip import Clip
from capivara_cli.scoring.options import ScoreOptions
from capivara_cli.scoring.score import score
from tests.conftest import Process
from tests.helpers import read_jsonl, write_jsonl
from tests.scoring.conftest import MakeOptions, assert_same_files, one_record

Capivara = Callable[..., Process]


def test_scores_are_the_cosines_of_the_models_own_embeddings(
    clip: Clip, options: MakeOptions, some: Path, tmp_path: Path
) -> None:
    score([some], tmp_path / "out.jsonl", options(lang=["en", "pt"]))
    scored = read_jsonl(tmp_path / "out.jsonl")
    assert len(scored) == 120
    for before, after in zip(read_jsonl(some)[:10], scored[:10], strict=True):
        picture = clip.preprocess(images.load(images.ImageRef(after["image"])))[None]
        with torch.inference_mode():
            image = torch.nn.functional.normalize(clip.model.encode_image(picture), dim=-1)
            for old, new in zip(before["captions"], after["captions"], strict=True):
                if new["lang"] in ("hi", "xh"):
                    assert new == old
                    continue
                text = torch.nn.functional.normalize(clip.model.encode_text(clip.tokenizer([new["text"]])), dim=-1)
                assert new.pop("score") == pytest.approx(float(image @ text.T), abs=1e-3)
                assert new == old


def test_an_image_that_is_repeated_and_one_that_cannot_be_used(
    options: MakeOptions,
    some: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CAPIVARA_CACHE", str(tmp_path / "cache"))
    rows = read_jsonl(some)[:5]
    rows += [{**rows[1], "id": "again"}, {**rows[0], "id": "gone", "image": "gone.png"}]
    score([write_jsonl(tmp_path / "in.jsonl", rows)], tmp_path / "out.jsonl", options(lang=["en"]))
    captions = {record["id"]: record["captions"] for record in read_jsonl(tmp_path / "out.jsonl")}
    assert captions["again"] == captions[rows[1]["id"]]
    [rejected] = read_jsonl(tmp_path / "out.jsonl.rejected.jsonl")
    assert (rejected["id"], rejected["rejected"]) == ("gone", "no such file")
    assert "1 of 7 records rejected" in capsys.readouterr().err
    [stored] = artifacts.cache_folder().rglob("*.safetensors")
    assert artifacts.load_tensors(stored)["embeddings"].shape[0] == 5  # each image once


def test_a_second_run_encodes_no_image(
    options: MakeOptions, some: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPIVARA_CACHE", str(tmp_path / "cache"))
    encoded: list[int] = []
    encode = Clip.encode_pixels

    def count(clip: Clip, pixels: torch.Tensor) -> torch.Tensor:
        encoded.append(len(pixels))
        return encode(clip, pixels)

    monkeypatch.setattr(Clip, "encode_pixels", count)
    score([some], tmp_path / "one.jsonl", options(lang=["en"]))
    assert sum(encoded) == 120
    score([some], tmp_path / "two.jsonl", options(lang=["en"]))
    assert sum(encoded) == 120
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()


# --- marks, and scores in the file


def test_marks_are_honoured_and_taken_back(base: Path, options: MakeOptions, some: Path, tmp_path: Path) -> None:
    def unmarked(path: Path) -> int:
        return sum(len(record.texts("en")) for record in records.read(path))

    score([some], tmp_path / "marked.jsonl", options(lang=["en"], min_score=0.9, keep_all=True))
    marks = (tmp_path / "marked.jsonl").read_text().count('"rejected": "score below 0.9"')
    assert 0 < marks < 240
    assert unmarked(tmp_path / "marked.jsonl") == 240 - marks
    [result] = retrieve_eval([tmp_path / "marked.jsonl"], RetrieveOptions(lang=["en"], model=f"local-dir:{base}"))
    assert result["n_texts"] == 240 - marks
    score([tmp_path / "marked.jsonl"], tmp_path / "free.jsonl", ScoreOptions(lang=["en"], scored=True))
    assert unmarked(tmp_path / "free.jsonl") == 240


def test_scores_in_the_file_give_what_the_model_gave(options: MakeOptions, some: Path, tmp_path: Path) -> None:
    flags: dict[str, Any] = {"lang": ["hi"], "by": "en", "min_score": 0.93, "diverse": 0.7, "min_captions": 1}
    score([some], tmp_path / "model.jsonl", options(**flags))
    score([some], tmp_path / "all.jsonl", options(lang=["en"]))
    score([tmp_path / "all.jsonl"], tmp_path / "scored.jsonl", ScoreOptions(scored=True, **flags))
    assert_same_files(tmp_path / "model.jsonl", tmp_path / "scored.jsonl")
    reasons = {part["rejected"] for part in read_jsonl(tmp_path / "model.jsonl.rejected.jsonl")}
    assert reasons >= {"score below 0.93", "too like another (TF-IDF above 0.7)"}


@pytest.mark.parametrize(
    ("caption", "problem"),
    [
        ({}, "has no score"),
        ({"score": None}, r"None is not a cosine \(-1 to 1\)"),
        ({"score": "0.3"}, "'0.3' is not a cosine"),
        ({"score": True}, "True is not a cosine"),
        ({"score": float("nan")}, "nan is not a cosine"),
        ({"score": 31.2}, "31.2 is not a cosine"),
    ],
)
def test_a_caption_without_a_score_is_named(caption: dict[str, Any], problem: str, tmp_path: Path) -> None:
    source = one_record(tmp_path, {"score": 0.3}, caption)
    with pytest.raises(CapivaraError, match=rf"in.jsonl:1: caption 1 \(en\): {problem}"):
        score([source], tmp_path / "out.jsonl", ScoreOptions(scored=True))


@pytest.mark.parametrize("mine", [float("nan"), 31.2, "0.3", None, [1]])
@pytest.mark.parametrize("mark", ["mine", ["mine"], 3, True])
def test_scores_and_marks_of_an_image_that_cannot_be_used_are_not_ours(
    mine: object, mark: object, options: MakeOptions, some: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captions = [{"text": "a", "lang": "en", "score": mine, "rejected": mark}]
    rows = [*read_jsonl(some)[:1], {"id": "gone", "image": "gone.png", "captions": captions}]
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    score([source], tmp_path / "out.jsonl", options(lang=["en"], keep_all=True))
    said = " ".join(capsys.readouterr().err.split())
    assert "kept 1 of 2 images and 2 of 2 captions (100%)" in said
    assert "gone: no such file" in said


def test_a_model_whose_scores_are_not_numbers_is_named(base: Path, some: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "broken")
    weights = tmp_path / "broken" / "open_clip_model.safetensors"
    tensors = artifacts.load_tensors(weights)
    # Finite weights, because a model with others is not loaded; but their products are infinite.
    tensors["text.proj.weight"] = torch.full(tensors["text.proj.weight"].shape, 3e38)
    artifacts.save_tensors(weights, tensors, {"format": "pt"})
    with pytest.raises(CapivaraError, match=r"some\.jsonl:1: the model's score of caption 0 is not a number \(nan\)"):
        score([some], tmp_path / "out.jsonl", ScoreOptions(lang=["en"], model=f"local-dir:{tmp_path / 'broken'}"))


@pytest.mark.parametrize(("source", "said"), [("crowd", "had no effect"), ("human", "")])
def test_a_pair_score_that_can_judge_nothing_says_so(
    source: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = one_record(tmp_path, {"score": 0.3, "source": source})
    score([path], tmp_path / "out.jsonl", ScoreOptions(scored=True, pair_score=0.2))
    text = capsys.readouterr().err
    assert said in text
    assert ("--human SOURCE" in text) == ("crowd (en)" in text) == bool(said)


def test_scores_of_a_model_with_an_adapter_differ(options: MakeOptions, run: Path, some: Path, tmp_path: Path) -> None:
    means = []
    for adapter in (None, run):
        score([some], tmp_path / "out.jsonl", options(lang=["hi"], adapter=adapter, overwrite=True))
        captions = [caption for record in read_jsonl(tmp_path / "out.jsonl") for caption in record["captions"]]
        means.append(np.mean([caption["score"] for caption in captions if "score" in caption]))
    assert means[1] > means[0] + 0.05
