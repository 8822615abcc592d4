"""`capivara translate` with a local model, as it is typed."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from capivara_cli.commands import main

from capivara_cli.demo import CAPTIONER, TRANSLATOR
from capivara_cli.errors import CapivaraError
from capivara_cli.translation.local import Local, family_of
from tests import small_models
from tests.conftest import Refused, command
from tests.forks import Forks
from tests.helpers import read_jsonl, write_jsonl
from tests.translation.conftest import SCENES, Run, expected


def record(number: int) -> dict[str, Any]:
    """Return a record with two English captions, and a key of the user's own."""
    captions = [{"text": text, "lang": "en", "source": "human", "votes": 2} for text in expected(number, "en")]
    return {"id": number, "image": f"{number}.jpg", "captions": captions, "mine": {"kept": True}}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "in.jsonl", map(record, range(60)))


@pytest.mark.parametrize("engine", ["transformers", "ctranslate2"])
def test_each_caption_gets_one_in_each_language(engine: str, run: Run, model: Path, source: Path) -> None:
    right = 0
    for number, got in enumerate(read_jsonl(run(source, to="hi,xh", engine=engine))):
        new = got["captions"][2:]
        assert got == record(number) | {"captions": [*record(number)["captions"], *new]}
        assert [(c["lang"], c["parent"], c["source"]) for c in new] == [
            (lang, parent, str(model)) for lang in ("hi", "xh") for parent in (0, 1)
        ]
        right += [c["text"] for c in new] == [*expected(number, "hi"), *expected(number, "xh")]
    assert right >= 0.95 * len(SCENES)


def test_existing_translations_are_kept_and_the_others_are_added(run: Run, source: Path) -> None:
    both = run(run(source, "hi.jsonl"), "both.jsonl", to="hi,xh")
    assert read_jsonl(both) == read_jsonl(run(source, "once.jsonl", to="hi,xh"))
    assert run(both, "again.jsonl", to="hi,xh").read_bytes() == both.read_bytes()


def test_the_memory_serves_the_second_run_without_the_model(
    run: Run, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = run(source, "one.jsonl", memory=tmp_path / "m.sqlite")
    monkeypatch.setattr(Local, "_load", lambda _: pytest.fail("loaded"))
    capsys.readouterr()
    two = run(source, "two.jsonl", memory=tmp_path / "m.sqlite")
    assert "0 texts translated, 100% from memory or repeated" in capsys.readouterr().err
    assert one.read_bytes() == two.read_bytes()


def test_the_batch_size_changes_nothing(run: Run, source: Path) -> None:
    few, many = (run(source, f"{tokens}.jsonl", batch_tokens=tokens) for tokens in (60, 10_000))
    assert few.read_bytes() == many.read_bytes()


def test_implausible_translations_go_to_the_rejected_file(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model knows only its world: from anything else it makes nonsense, and much of that can be detected."""
    odd = {"text": "{c} " * 8, "lang": "en"}
    records = [record(0), {"id": "odd", "image": "x.jpg", "captions": [odd, record(1)["captions"][0]]}]
    source = write_jsonl(tmp_path / "in.jsonl", records)
    got = read_jsonl(run(source))[1]
    assert [c.get("parent") for c in got["captions"]] == [None, None, 1]
    (rejected,) = read_jsonl(tmp_path / "out.jsonl.rejected.jsonl")
    assert (rejected["id"], rejected["lang"], rejected["text"]) == ("odd", "hi", " ".join(["{c}"] * 8))
    assert "(hi)" in rejected["rejected"]
    assert "1 translations rejected" in capsys.readouterr().err
    with pytest.raises(CapivaraError, match=r"in\.jsonl:2: .*\(hi\)"):
        run(source, "strict.jsonl", strict=True)


def test_records_without_captions_to_translate_pass(run: Run, tmp_path: Path) -> None:
    portuguese = [{"text": "cão", "lang": "pt"}]
    others: list[dict[str, Any]] = [
        {"id": "bare", "image": "x.jpg"},
        {"id": "pt", "image": "y.jpg", "captions": portuguese},
    ]
    source = write_jsonl(tmp_path / "in.jsonl", [record(0), *others])
    assert read_jsonl(run(source))[1:] == others
    with pytest.raises(CapivaraError, match=r"no caption in xh: the data has en \(2\), pt \(1\)") as error:
        run(source, "no.jsonl", origin="xh")
    assert error.value.hint == "--from en"
    assert not list(tmp_path.glob("no*"))


def test_half_a_character_is_refused_with_its_line(run: Run, tmp_path: Path) -> None:
    captions = [{"text": "a \ud83d dog", "lang": "en"}]
    source = write_jsonl(tmp_path / "in.jsonl", [record(0), {"id": "x", "image": "x.jpg", "captions": captions}])
    with pytest.raises(CapivaraError, match=r"in\.jsonl:2: a caption with half of a character"):
        run(source, memory=tmp_path / "m.sqlite")
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("make", [small_models.m2m100, small_models.madlad, small_models.marian, shutil.copytree])
def test_the_backend_is_that_of_the_model(make: Any, tmp_path: Path) -> None:
    names = {small_models.m2m100: "m2m100", small_models.madlad: "madlad", small_models.marian: "marian"}
    folder = tmp_path / "model"
    make(*([TRANSLATOR] if make is shutil.copytree else []), folder)
    assert family_of(str(folder)) == names.get(make, "nllb")


def test_a_model_that_does_not_translate_is_refused() -> None:
    with pytest.raises(CapivaraError, match="is a blip-2: it does not translate") as error:
        family_of(str(CAPTIONER))
    assert "nllb, m2m100, madlad, marian" in (error.value.hint or "")


def test_without_a_backend_a_model_translates(model: Path, source: Path, run: Run, tmp_path: Path) -> None:
    assert run(source, "one.jsonl", backend=None).read_bytes() == run(source, "two.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num_beams", 10**6, "num_beams = 1,000,000 is not between 0 and 64"),
        ("max_length", 10**9, "max_length = 1,000,000,000 is not between 0 and 4,096"),
        ("max_new_tokens", "x", "cannot be loaded: "),
        ("num_return_sequences", 10**5, "num_return_sequences"),
    ],
)
def test_what_a_models_files_ask_for_is_bounded(
    key: str, value: Any, message: str, run: Run, source: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(TRANSLATOR, tmp_path / "model"))
    config = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(CapivaraError, match=message):
        run(source, model=str(folder))


def test_a_pipe_is_translated_record_by_record_as_it_comes(model: Path, tmp_path: Path) -> None:
    line = command("translate", "--to", "hi", "--backend", "nllb", "--model", model, "--memory", "none")
    with subprocess.Popen(line, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(3):
            process.stdin.write(json.dumps(record(number)).encode() + b"\n")
            process.stdin.flush()
            got = json.loads(process.stdout.readline())  # comes before the next is sent
            assert [c["text"] for c in got["captions"][2:]] == expected(number, "hi")
            time.sleep(0.1)
        process.stdin.close()
        assert process.stdout.read() == b""
        assert process.wait(60) == 0


def test_a_pipe_into_a_file_is_resumed(run: Run, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("capivara_cli.translation.translate.WINDOW", 7)
    whole = read_jsonl(run(source, "whole.jsonl"))
    lines = source.read_text().splitlines(True)
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(lines[:40]) + "{torn"))
    with pytest.raises(CapivaraError, match="standard input:41: not JSON"):
        run("-")
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(lines)))
    assert [r["captions"] for r in read_jsonl(run("-"))] == [r["captions"] for r in whole]


def test_two_ranks_write_what_one_writes(forks: Forks, run: Run, model: Path, source: Path, tmp_path: Path) -> None:
    flags = ["--backend", "nllb", "--model", str(model), "--memory", "none", "--precision", "fp32"]
    result = forks.run_ranks(["translate", "in.jsonl", "--to", "hi", *flags, "-o", "two.jsonl"], tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "two.jsonl").read_bytes() == run(source, "one.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        ([], "no language: --to LANG is missing", ""),
        (["--to", "qq"], "the language qq is not known", "--languages"),
        (["--to", "en"], "--to en is the language of --from", ""),
        (["--to", "mai", "--backend", "m2m100"], "m2m100 does not know Maithili", "--backend"),
        (["--to", "hi", "--model", "m", "--backend", "google"], "--backend google is a service and takes no", "leave"),
        (["--to", "hi", "--rate", "0"], "--rate 0: must be above 0", ""),
        (["--to", "hi", "--backend", "nllb", "--model", "gone", "-o", "out.jsonl"], "gone: no such folder", "--model"),
        (["--to", "hi", "--backend", "nllb"], "facebook/nllb-200-distilled-600M is not on this machine", "--model"),
        (["--to", "hi", "-o", "in.jsonl", "--overwrite"], "in.jsonl is both input and output", "-o"),
        (["--to", "hi", "--memory", "in.jsonl"], "in.jsonl cannot be used", "--memory"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: list[str], message: str, hint: str, refused: Refused, tmp_path: Path
) -> None:
    write_jsonl(tmp_path / "in.jsonl", [record(0)])
    said = refused("translate", "in.jsonl", *arguments)
    assert message in said
    assert hint in said


def test_languages_are_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["capivara", "translate", "--languages"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 250
    (xhosa,) = [line for line in lines if line.split()[0] == "xh"]
    assert xhosa.endswith("google nllb m2m100 madlad marian")
