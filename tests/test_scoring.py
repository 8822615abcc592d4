"""`capivara score`: the engine, and the command as it is typed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from capivara_cli import artifacts, images, records
from capivara_cli.clip import Clip
from capivara_cli.errors import CapivaraError
from capivara_cli.filters import Strategy
from capivara_cli.records import lineage, without
from capivara_cli.retrieval import retrieve_eval
from capivara_cli.scoring import Asked, decide, score
from tests import kills
from tests.conftest import Process, Refused, command, peak_memory
from tests.test_distributed import torchrun

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


# --- what becomes of a record


def record_of(*captions: tuple[str, str, int | None]) -> list[dict[str, Any]]:
    """Text, language and parent of each."""
    return [
        {"text": text, "lang": lang} | ({"parent": parent, "source": "google"} if parent is not None else {})
        for text, lang, parent in captions
    ]


CAPTIONS = record_of(("a", "en", None), ("b", "en", None), ("A", "hi", 0), ("B", "hi", 1), ("X", "xh", 1))


def test_the_verdict_on_the_english_falls_on_what_was_translated_from_it() -> None:
    asked = Asked(langs=("hi", "xh"), by="en", strategy=Strategy(min_score=0.2))
    outcome = decide({"id": "1"}, CAPTIONS, [0.3, 0.1, None, None, None], asked)
    assert outcome.data["captions"] == [
        {"text": "a", "lang": "en", "score": 0.3},
        {"text": "A", "lang": "hi", "parent": 0, "source": "google"},
    ]
    assert [(part["text"], part["rejected"]) for part in outcome.parts] == [
        ("b", "score below 0.2"),
        ("B", "score below 0.2"),
        ("X", "score below 0.2"),
    ]


def test_what_another_language_still_stands_on_stays() -> None:
    asked = Asked(langs=("hi",), by="en", strategy=Strategy(min_score=0.2))
    outcome = decide({"id": "1"}, CAPTIONS, [0.3, 0.1, None, None, None], asked)
    assert [(each["text"], each.get("parent")) for each in outcome.data["captions"]] == [
        ("a", None),
        ("b", None),
        ("A", 0),
        ("X", 1),
    ]


def test_a_chain_of_translations_follows_its_beginning() -> None:
    chain = record_of(("a", "en", None), ("A", "hi", 0), ("X", "xh", 1), ("other", "xh", None))
    outcome = decide({"id": "1"}, chain, [0.1, None, None, None], Asked(by="en", strategy=Strategy(min_score=0.2)))
    assert outcome.data["captions"] == [{"text": "other", "lang": "xh"}]


def test_parents_are_counted_anew() -> None:
    asked = Asked(langs=("hi",), strategy=Strategy(min_score=0.2))
    captions = record_of(("a", "en", None), ("A", "hi", 0), ("B", "hi", 0), ("X", "xh", 2), ("C", "hi", 9))
    outcome = decide({"id": "1"}, captions, [None, 0.1, 0.3, None, 0.5], asked)
    assert [(each["text"], each.get("parent")) for each in outcome.data["captions"]] == [
        ("a", None),
        ("B", 0),
        ("X", 1),
        ("C", None),
    ]


@pytest.mark.parametrize(("human", "rejected"), [(0.1, True), (0.2, False)])
def test_an_image_whose_human_caption_scores_too_low_goes_as_a_whole(human: float, rejected: bool) -> None:
    captions: list[dict[str, Any]] = [
        {"text": "h", "lang": "en", "source": "human"},
        {"text": "g", "lang": "en", "source": "blip2"},
        {"text": "H", "lang": "hi", "parent": 0, "source": "google"},
    ]
    outcome = decide({"id": "1"}, captions, [human, 0.9, None], Asked(("hi",), by="en", pair_score=0.2))
    assert outcome.reason == ("human caption's score below 0.2" if rejected else None)
    assert len(outcome.data["captions"]) == 3


def test_who_counts_as_a_person() -> None:
    captions: list[dict[str, Any]] = [{"text": "h", "lang": "en", "source": "crowd"}, {"text": "n", "lang": "en"}]
    by_name = decide({"id": "1"}, captions, [0.1, 0.9], Asked(pair_score=0.2, human=("human",)))
    assert by_name.reason is None  # the caption without a source is a person's, and is good
    first = Asked(strategy=Strategy(first=0))
    assert len(decide({"id": "1"}, captions, [0.1, 0.9], first).data["captions"]) == 1
    crowd = Asked(strategy=Strategy(first=0), human=("crowd",))
    assert len(decide({"id": "1"}, captions, [0.1, 0.9], crowd).data["captions"]) == 2


def test_a_record_that_has_nothing_left_is_rejected_with_all_reasons() -> None:
    outcome = decide({"id": "1", "x": 2}, CAPTIONS[:2], [0.1, 0.0], Asked(strategy=Strategy(min_score=0.2)))
    assert outcome.reason == "every caption was dropped"
    assert [each["rejected"] for each in outcome.data["captions"]] == ["score below 0.2"] * 2
    assert outcome.data["x"] == 2
    assert not outcome.parts


def test_each_language_has_a_best_of_its_own() -> None:
    captions = record_of(("a", "en", None), ("b", "en", None), ("A", "hi", 0), ("B", "hi", 1))
    outcome = decide({"id": "1"}, captions, [0.9, 0.8, 0.1, 0.2], Asked(strategy=Strategy(top_k=1)))
    assert [each["text"] for each in outcome.data["captions"]] == ["a", "B"]


PARENTS = st.none() | st.integers(-1, 6) | st.sampled_from(["0", 1.0, True, [0]])


@given(st.lists(st.tuples(st.sampled_from(["en", "hi", "xh"]), PARENTS), max_size=7), st.data())
def test_whatever_is_dropped_the_parents_that_are_left_are_the_same_captions(
    found: list[tuple[str, Any]], data: st.DataObject
) -> None:
    captions: list[dict[str, Any]] = [
        {"text": str(i), "lang": lang} | ({} if parent is None else {"parent": parent})
        for i, (lang, parent) in enumerate(found)
    ]
    kept = data.draw(st.lists(st.sampled_from(range(len(captions))), unique=True).map(sorted)) if captions else []
    after = without(captions, kept)
    assert [each["text"] for each in after] == [str(i) for i in kept]
    for i, caption in zip(kept, after, strict=True):
        own = lineage(captions, i)
        if len(own) > 1 and own[1] in kept:
            assert after[caption["parent"]]["text"] == str(own[1])
        elif "parent" in caption:
            assert caption["parent"] == kept.index(i)  # its own parent, as it came


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


@pytest.mark.parametrize("given", [None, "0.3", True, float("nan"), 1e400])
def test_a_caption_without_a_score_is_named(given: object, tmp_path: Path) -> None:
    captions = [{"text": "a", "lang": "en", "score": 0.3}, {"text": "b", "lang": "en", "score": given}]
    source = write(tmp_path / "in.jsonl", [{"image": "a.png", "captions": captions}])
    with pytest.raises(CapivaraError, match=r"in.jsonl:1: caption 1 \(en\) has no score"):
        score([source], tmp_path / "out.jsonl", scored=True)


# --- as it is typed


def test_a_pipe_with_its_table_and_histogram_on_the_other_side(
    capivara: Capivara, base: Path, some: Path, tmp_path: Path
) -> None:
    flags = ["--lang", "hi", "--by", "en", "--min-score", "0.93", "--model", f"local-dir:{base}"]
    result = capivara("score", *flags, "--plot", "plot.png", stdin=some.read_text())
    assert result.returncode == 0, result.stderr
    made = [json.loads(line) for line in result.stdout.splitlines()]
    kept = sum(caption["lang"] in ("en", "hi") for record in made for caption in record["captions"])
    dropped = int(next(line for line in result.stderr.splitlines() if "score below 0.93" in line).split()[-1])
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
    found[1100]["image"] = found[0]["image"]
    write(source, found)
    score([source], out, min_score=0.9, **flags)
    assert len(lines(out)) + sum("captions" in each for each in lines(tmp_path / "out.jsonl.rejected.jsonl")) == 1200


SETUP = """
import os
import capivara_cli.embeddings, capivara_cli.scoring_report, rich.progress, rich.table
import open_clip, transformers
from capivara_cli import scoring, embeddings
from capivara_cli.scoring import score

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
from capivara_cli.scoring import score
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
    line = command("score", "-", "--lang", "en", "--model", f"local-dir:{base}", "--workers", "0")
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
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: list[str], message: str, hint: str, refused: Refused, tmp_path: Path
) -> None:
    write(tmp_path / "in.jsonl", [{"image": "a.png", "captions": [{"text": "a", "lang": "en"}]}])
    (tmp_path / "folder").mkdir()
    said = refused("score", *arguments)
    assert message in said
    assert hint in said


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
