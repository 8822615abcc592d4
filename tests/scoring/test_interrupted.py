"""`capivara score` interrupted, in ranks, and in a pipe."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from capivara_cli import files
from capivara_cli.errors import CapivaraError
from capivara_cli.scoring.options import ScoreOptions
from capivara_cli.scoring.score import score
from tests import kills
from tests.conftest import Process, command, peak_memory
from tests.forks import Forks
from tests.helpers import read_jsonl, write_jsonl
from tests.scoring.conftest import MakeOptions, assert_same_files, one_record, repeated

Capivara = Callable[..., Process]


def test_settings_and_records_of_another_run_are_refused(
    base: Path, options: MakeOptions, some: Path, tmp_path: Path
) -> None:
    rows = repeated(some, 10)
    rows[1100]["image"] = "gone.png"  # in the second window
    source, out = write_jsonl(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    begun = options(lang=["en"], strict=True, min_score=0.9)
    with pytest.raises(CapivaraError, match=r"in\.jsonl:1101: .*no such file"):
        score([source], out, begun)
    with pytest.raises(CapivaraError, match=r"--min-score 0\.9, now 0\.8; --top-k null, now 3"):
        score([source], out, options(lang=["en"], min_score=0.8, top_k=3))
    with pytest.raises(CapivaraError, match=r"--min-score 0\.9, now null"):
        score([source], out, options(lang=["en"]))
    write_jsonl(source, [*rows[:3], rows[3] | {"captions": rows[4]["captions"]}, *rows[4:]])
    with pytest.raises(CapivaraError, match=r"begun with other records: record 4 \(.*:4\) has changed"):
        score([source], out, begun)
    stray = base / "model.bin"  # other weights in a folder of the same name
    stray.write_bytes(b"1")
    try:
        with pytest.raises(CapivaraError, match="begun with other settings: the model's files "):
            score([source], out, begun)
    finally:
        stray.unlink()
    rows[1100]["image"] = rows[0]["image"]
    score([write_jsonl(source, rows)], out, begun)
    rejected = read_jsonl(tmp_path / "out.jsonl.rejected.jsonl")
    assert len(read_jsonl(out)) + sum("captions" in line for line in rejected) == 1200


SETUP = """
import os
from capivara_cli.models import embedding_cache
from capivara_cli.scoring import score as scoring
from capivara_cli.scoring.options import ScoreOptions

scoring.WINDOW = 16
embedding_cache.SEGMENT_SECONDS = 0  # each batch is written: a killed process leaves some of a window's images

def run(output, overwrite=False):
    os.environ["CAPIVARA_CACHE"] = str(folder / f"{output.stem}-cache")
    keep = {"lang": ["hi"], "by": "en", "min_score": 0.93, "top_k": 1}
    options = ScoreOptions(model="local-dir:" + sys.argv[3], overwrite=overwrite, **keep)
    scoring.score([sys.argv[2]], output, options)
"""


def test_after_any_number_of_kills_the_bytes_are_those_of_an_undisturbed_run(
    base: Path, forks: Forks, some: Path, tmp_path: Path
) -> None:
    rows = read_jsonl(some)
    rows[50]["image"] = "gone.png"
    rows[70]["image"] = rows[3]["image"]  # known from the cache, or from the batch before
    kills.survive(forks, SETUP, tmp_path / "out", write_jsonl(tmp_path / "in.jsonl", rows), base)
    assert len(read_jsonl(tmp_path / "out" / "whole.jsonl")) > 50


KILLED_BEFORE_THE_PLOT = """
import os, signal, sys
from capivara_cli.scoring import report, score
from capivara_cli.scoring.options import ScoreOptions

report.Report.plot = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
score.score(["in.jsonl"], "out.jsonl", ScoreOptions(scored=True, plot="p.png"))
"""


def test_a_run_killed_between_its_records_and_its_plot_makes_the_plot(
    tmp_path: Path, capivara: Capivara, forks: Forks
) -> None:
    one_record(tmp_path, {"score": 0.1}, {"score": 0.3})
    killed = forks.run([], tmp_path, code=KILLED_BEFORE_THE_PLOT)
    assert killed.returncode == -signal.SIGKILL
    content = (tmp_path / "out.jsonl").read_bytes()
    line = ["score", "in.jsonl", "--scored", "-o", "out.jsonl", "--plot", "p.png"]
    result = capivara(*line)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out.jsonl").read_bytes() == content
    assert files.PLOT.matches((tmp_path / "p.png").read_bytes())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl", "p.png"]
    assert "out.jsonl already exists" in capivara(*line[:-2]).stderr


def test_only_a_plot_of_score_is_replaced(tmp_path: Path, capivara: Capivara) -> None:
    one_record(tmp_path, {"score": 0.1})
    Image.new("RGB", (4, 4)).save(tmp_path / "photo.png")
    line = ["score", "in.jsonl", "--scored", "--overwrite", "-o", "out.jsonl", "--plot"]
    assert "photo.png is not replaced, because it is not a plot of scores" in capivara(*line, "photo.png").stderr
    for _ in range(2):
        assert capivara(*line, "p.png").returncode == 0


def test_two_ranks_share_scores_in_the_file(forks: Forks, tmp_path: Path) -> None:
    captions = [{"text": str(number), "lang": "en", "score": number / 10} for number in range(5)]
    write_jsonl(tmp_path / "in.jsonl", [{"id": str(i), "image": "a.png", "captions": captions} for i in range(2100)])
    line = ["score", "in.jsonl", "--scored", "--top-k", "2", "-o", "two.jsonl"]
    result = forks.run_ranks(line, tmp_path)
    assert result.returncode == 0, result.stderr
    score([tmp_path / "in.jsonl"], tmp_path / "one.jsonl", ScoreOptions(scored=True, top_k=2))
    assert_same_files(tmp_path / "two.jsonl", tmp_path / "one.jsonl")


def test_two_ranks_write_what_one_writes(
    base: Path, forks: Forks, options: MakeOptions, some: Path, tmp_path: Path
) -> None:
    rows = repeated(some, 18)
    rows[7]["image"] = "gone.png"
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    flags = ["--lang", "en", "--min-score", "0.93", "--model", f"local-dir:{base}"]
    result = forks.run_ranks(["score", source, *flags, "-o", "two.jsonl"], tmp_path)
    assert result.returncode == 0, result.stderr
    score([source], tmp_path / "one.jsonl", options(lang=["en"], min_score=0.93))
    one, two = ([row["id"] for row in read_jsonl(tmp_path / f"{name}.jsonl")] for name in ("one", "two"))
    assert one == two
    assert f"{len(two):,} of 2,160 images" in result.stderr


MEMORY = """
import sys
from capivara_cli.scoring.options import ScoreOptions
from capivara_cli.scoring.score import score
score([sys.argv[1]], sys.argv[2], ScoreOptions(scored=True, min_score=0.2))
"""


def test_memory_does_not_grow_with_the_number_of_records(forks: Forks, tmp_path: Path) -> None:
    """Each record carries 10 kB: to hold 10,000 of them would take 100 MB."""
    peaks = []
    for count in (1000, 10_000):
        source = tmp_path / f"{count}.jsonl"
        with source.open("w") as file:
            for number in range(count):
                caption = {"text": "a dog", "lang": "en", "score": number % 7 / 10}
                record = {"id": str(number), "image": "a.png", "captions": [caption], "note": "x" * 10_000}
                file.write(json.dumps(record) + "\n")
        peaks.append(peak_memory(forks, MEMORY, source, tmp_path / f"{count}.out"))
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


def test_a_pipe_with_its_table_and_histogram_on_the_other_side(
    capivara: Capivara, base: Path, some: Path, tmp_path: Path
) -> None:
    flags = ["--lang", "hi", "--by", "en", "--min-score", "0.93", "--model", f"local-dir:{base}"]
    result = capivara("score", *flags, "--plot", "plot.png", stdin=some.read_text())
    assert result.returncode == 0, result.stderr
    scored = [json.loads(line) for line in result.stdout.splitlines()]
    kept = sum(caption["lang"] in ("en", "hi") for record in scored for caption in record["captions"])
    dropped = int(next(line.split() for line in result.stderr.splitlines() if line.split()[:1] == ["all"])[-1])
    assert kept + dropped == 480  # the English ones stay: their Portuguese needs them
    assert f"kept 120 of 120 images and {kept} of 480 captions" in " ".join(result.stderr.split())
    assert "█" in result.stderr
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.width > 500


def test_a_language_that_a_pipe_lacks_is_named_at_its_end(capivara: Capivara, base: Path, some: Path) -> None:
    result = capivara("score", "--lang", "zz", "--model", f"local-dir:{base}", stdin=some.read_text())
    assert result.returncode == 1
    assert "error: no caption in zz: the data has en (240), pt (240), hi (240), xh (240)" in result.stderr


def test_a_reader_that_has_enough_is_not_an_error(base: Path, some: Path) -> None:
    line = command("score", some, "--lang", "en", "--model", f"local-dir:{base}")
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(60) == 141
