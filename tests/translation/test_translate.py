"""`capivara translate` with models that run here, as it is typed."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from capivara_cli.commands import main
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from capivara_cli.data import class_forms
from capivara_cli.demo import TRANSLATOR
from capivara_cli.demo.language import caption
from capivara_cli.demo.scenes import held_out_scenes
from capivara_cli.demo.translator import CODES, exactness
from capivara_cli.errors import CapivaraError
from capivara_cli.runtime import Runtime
from capivara_cli.translation.local import CTranslate2, Local
from capivara_cli.translation.options import TranslateOptions
from capivara_cli.translation.translate import translate
from tests import small_models
from tests.conftest import Refused, command
from tests.helpers import read_jsonl, torchrun, write_jsonl

MakeOptions = Callable[..., TranslateOptions]

CPU = Runtime("cpu", "fp32")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's translator, in a folder of its own."""
    return Path(shutil.copytree(TRANSLATOR, tmp_path_factory.mktemp("translators") / "translator"))


@pytest.fixture
def options(model: Path) -> MakeOptions:
    """Options for that model and Hindi, without a cache."""
    fixed: dict[str, Any] = {"backend": "nllb", "model": str(model), "memory": "none", "precision": "fp32"}

    def make(to: str = "hi", **others: Any) -> TranslateOptions:
        return TranslateOptions(to=to, **fixed | others)

    return make


SCENES = held_out_scenes(60, random.Random(3))


def expected(number: int, lang: str) -> list[str]:
    return [caption(SCENES[number], lang, template) for template in (number % 4, (number + 1) % 4)]


def record(number: int) -> dict[str, Any]:
    """Two English captions of a held-out scene, and a key of the user's own."""
    captions = [{"text": text, "lang": "en", "source": "human", "votes": 2} for text in expected(number, "en")]
    return {"id": number, "image": f"{number}.jpg", "captions": captions, "mine": {"kept": True}}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "in.jsonl", map(record, range(60)))


@pytest.mark.parametrize("engine", ["transformers", "ctranslate2"])
def test_each_caption_gets_one_in_each_language(
    engine: str, options: MakeOptions, model: Path, source: Path, tmp_path: Path
) -> None:
    translate([source], tmp_path / "out.jsonl", options("hi,xh", engine=engine))
    right = 0
    for number, got in enumerate(read_jsonl(tmp_path / "out.jsonl")):
        new = got["captions"][2:]
        assert got == record(number) | {"captions": [*record(number)["captions"], *new]}
        assert [(c["lang"], c["parent"], c["source"]) for c in new] == [
            (lang, parent, str(model)) for lang in ("hi", "xh") for parent in (0, 1)
        ]
        right += [c["text"] for c in new] == [*expected(number, "hi"), *expected(number, "xh")]
    assert right >= 0.95 * len(SCENES)


def test_existing_translations_are_kept_and_the_others_are_added(
    options: MakeOptions, source: Path, tmp_path: Path
) -> None:
    hi, both, once, again = (tmp_path / f"{name}.jsonl" for name in ("hi", "both", "once", "again"))
    translate([source], hi, options())
    translate([hi], both, options("hi,xh"))
    translate([source], once, options("hi,xh"))
    assert read_jsonl(both) == read_jsonl(once)
    translate([both], again, options("hi,xh"))
    assert again.read_bytes() == both.read_bytes()


def test_the_memory_serves_the_second_run_without_the_model(
    options: MakeOptions,
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cached = options(memory=tmp_path / "m.sqlite")
    translate([source], tmp_path / "one.jsonl", cached)
    monkeypatch.setattr(Local, "_load", lambda _: pytest.fail("loaded"))
    capsys.readouterr()
    translate([source], tmp_path / "two.jsonl", cached)
    assert "0 texts translated, 100% from memory or repeated" in capsys.readouterr().err
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()


def test_another_model_in_the_same_folder_has_its_own_cache(options: MakeOptions, model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "translator"))

    def identity(kind: type[Local] = Local) -> str:
        return kind(options(model=str(folder)), "hi", CPU).identity()

    before = identity()
    assert identity() == before
    assert identity(CTranslate2) != before
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    assert identity() != before


def test_the_batch_size_changes_nothing(options: MakeOptions, source: Path, tmp_path: Path) -> None:
    for tokens in (60, 10_000):
        translate([source], tmp_path / f"{tokens}.jsonl", options(batch_tokens=tokens))
    assert (tmp_path / "60.jsonl").read_bytes() == (tmp_path / "10000.jsonl").read_bytes()


def test_implausible_translations_go_to_the_rejected_file(
    options: MakeOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model knows only its world: from anything else it makes nonsense, and much of that can be detected."""
    odd = {"text": "{c} " * 8, "lang": "en"}
    records = [record(0), {"id": "odd", "image": "x.jpg", "captions": [odd, record(1)["captions"][0]]}]
    source = write_jsonl(tmp_path / "in.jsonl", records)
    translate([source], tmp_path / "out.jsonl", options())
    got = read_jsonl(tmp_path / "out.jsonl")[1]
    assert [c.get("parent") for c in got["captions"]] == [None, None, 1]
    (rejected,) = read_jsonl(tmp_path / "out.jsonl.rejected.jsonl")
    assert (rejected["id"], rejected["lang"], rejected["text"]) == ("odd", "hi", " ".join(["{c}"] * 8))
    assert "(hi)" in rejected["rejected"]
    assert "1 translations rejected" in capsys.readouterr().err
    with pytest.raises(CapivaraError, match=r"in\.jsonl:2: .*\(hi\)"):
        translate([source], tmp_path / "strict.jsonl", options(strict=True))


def test_records_without_captions_to_translate_pass(options: MakeOptions, tmp_path: Path) -> None:
    bare: list[dict[str, Any]] = [
        {"id": "bare", "image": "x.jpg"},
        {"id": "pt", "image": "y.jpg", "captions": [{"text": "cão", "lang": "pt"}]},
    ]
    source = write_jsonl(tmp_path / "in.jsonl", [record(0), *bare])
    translate([source], tmp_path / "out.jsonl", options())
    assert read_jsonl(tmp_path / "out.jsonl")[1:] == bare
    with pytest.raises(CapivaraError, match="no captions in xh were found"):
        translate([source], tmp_path / "no.jsonl", options(origin="xh"))


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


def test_a_pipe_into_a_file_is_resumed(
    options: MakeOptions, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("capivara_cli.translation.translate.WINDOW", 7)
    translate([source], tmp_path / "whole.jsonl", options())
    lines = source.read_text().splitlines(True)
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(lines[:40]) + "{torn"))
    with pytest.raises(CapivaraError, match="standard input:41: not JSON"):
        translate(["-"], tmp_path / "out.jsonl", options())
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(lines)))
    translate(["-"], tmp_path / "out.jsonl", options())
    piped, whole = read_jsonl(tmp_path / "out.jsonl"), read_jsonl(tmp_path / "whole.jsonl")
    assert [r["captions"] for r in piped] == [r["captions"] for r in whole]


def test_two_ranks_write_what_one_writes(options: MakeOptions, model: Path, source: Path, tmp_path: Path) -> None:
    translate([source], tmp_path / "one.jsonl", options())
    flags = ["--backend", "nllb", "--model", str(model), "--memory", "none", "--precision", "fp32"]
    line = ["-m", "capivara_cli", "translate", "in.jsonl", "--to", "hi", *flags, "-o", "two.jsonl"]
    result = torchrun(*line, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "two.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()


CLASSES = {
    "shapes": [caption(scene, "en", 0) for scene in SCENES[:4]],
    "templates": {
        "a": ["there is a small red star on a white background"],
        "ids": [[3, 1], ["a large blue drop on a black background"]],
    },
}


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_a_class_file_is_translated_as_a_whole(suffix: str, options: MakeOptions, tmp_path: Path) -> None:
    import yaml

    path, out = tmp_path / f"classes.{suffix}", tmp_path / f"out.{suffix}"
    path.write_text(json.dumps(CLASSES) if suffix == "json" else yaml.safe_dump(CLASSES))
    translate([path], out, options("pt"))
    got = yaml.safe_load(out.read_text(encoding="utf-8"))
    assert got["shapes"] == [caption(scene, "pt", 0) for scene in SCENES[:4]]
    assert got["templates"]["a"] == ["há uma estrela vermelha pequena sobre um fundo branco"]
    assert got["templates"]["ids"][0] == [3, 1]
    with pytest.raises(CapivaraError, match="already exists"):
        translate([path], out, options("pt"))


def test_a_class_file_of_our_form_gets_another_language(options: MakeOptions, tmp_path: Path) -> None:
    import yaml

    shapes = [caption(scene, "en", 0) for scene in SCENES[:3]]
    names = {"en": {"0": shapes[0], "1": shapes[1:]}, "xh": {"0": "nto", "1": "nye"}}
    mine = {"title": "Things", "metric": "acc1", "source": "me", "labels": ["0", "1"], "names": names}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(mine))
    translate([tmp_path / "c.yaml"], tmp_path / "out.yaml", options("pt"))
    got = yaml.safe_load((tmp_path / "out.yaml").read_text(encoding="utf-8"))
    assert got.pop("names") == {
        **names,
        "pt": {"0": caption(SCENES[0], "pt", 0), "1": [caption(scene, "pt", 0) for scene in SCENES[1:3]]},
    }
    assert got == {key: value for key, value in mine.items() if key != "names"}
    loaded = class_forms.load(str(tmp_path / "out.yaml"))
    assert loaded.names_in("pt")["1"][1] == caption(SCENES[2], "pt", 0)
    del names["en"]
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(mine))
    with pytest.raises(CapivaraError, match=r"c\.yaml has no names in en: it has xh"):
        translate([tmp_path / "c.yaml"], tmp_path / "more.yaml", options("pt"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [{"filename": "1.jpg", "sentences": []}]}', "lists of objects: it is not a class file"),
        ("{", "neither JSON nor YAML"),
        ("{}", "no names or templates"),
        ('{"set": [1, 2]}', "no names or templates"),
        ('"a dog"', "no names or templates"),
    ],
)
def test_a_file_of_another_kind_is_refused(content: str, message: str, options: MakeOptions, tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_text(content)
    with pytest.raises(CapivaraError, match=rf"classes\.json.*{message}"):
        translate([tmp_path / "classes.json"], tmp_path / "out.json", options("hi"))
    assert not (tmp_path / "out.json").exists()


def test_a_class_file_with_a_gap_is_not_written(options: MakeOptions, tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_text(json.dumps({"a": [*CLASSES["shapes"], "{c} " * 8]}))
    with pytest.raises(CapivaraError, match=r"1 of 5 texts of .* could not be translated"):
        translate([tmp_path / "classes.json"], tmp_path / "out.json", options("hi"))
    assert not (tmp_path / "out.json").exists()


class Mangling(Local):
    """A real model, and a service that spoils placeholders as such services do."""

    def check(self, target: str) -> None: ...

    def translate(self, texts: Any, target: str, attempt: int = 0) -> Iterator[tuple[int, str]]:
        assert (target, attempt < 2) == ("pt", True)
        for number, text in enumerate(texts):
            yield number, "uma foto de " + text.replace("a photo of a ", "").replace("{c}", "{C }")


def test_placeholders_are_hidden_when_they_were_mangled(
    options: MakeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("capivara_cli.translation.local.Local", Mangling)
    (tmp_path / "t.json").write_text(json.dumps({"set": ["a photo of a {c}."]}))
    translate([tmp_path / "t.json"], tmp_path / "out.json", options("pt", model="x"))
    assert json.loads((tmp_path / "out.json").read_text()) == {"set": ["uma foto de {c}."]}


@pytest.mark.parametrize("family", ["m2m100", "madlad", "marian", "marian-many"])
def test_every_family_is_told_the_language_in_its_own_way(family: str, options: MakeOptions, tmp_path: Path) -> None:
    backend = family.removesuffix("-many")
    folder = getattr(small_models, family.replace("-", "_"))(tmp_path / "model")
    local = Local(options(backend=backend, model=str(folder), batch_tokens=64), "hi", CPU)
    texts = [text for text in small_models.TEXTS if text]
    got = dict(local.translate(texts, "hi"))
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSeq2SeqLM.from_pretrained(folder)
    start = {"madlad": "<2hi> ", "marian-many": ">>hin<< "}.get(family, "")
    generation: dict[str, Any] = {}
    if family == "m2m100":
        tokenizer.src_lang = "en"
        generation["forced_bos_token_id"] = tokenizer.get_lang_id("hi")
    for number, text in enumerate(texts):
        batch = tokenizer(start + text, return_tensors="pt")
        tokens = model.generate(**batch, do_sample=False, **generation)
        assert got[number] == tokenizer.decode(tokens[0], skip_special_tokens=True)
    if family in ("madlad", "marian-many"):
        with pytest.raises(CapivaraError, match="so it does not know xh"):
            list(local.translate(texts, "xh"))


def test_out_of_memory_halves_the_batch(options: MakeOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    local = Local(options(batch_tokens=2000), "hi", CPU)
    texts = [text for number in range(30) for text in expected(number, "en")]
    free = dict(local.translate(texts, "hi"))
    generate = Local._generate

    def tight(self: Local, model: Any, tokenizer: Any, tokens: list[list[int]], start: Any, attempt: int) -> list[str]:
        if len(tokens) > 7:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        return generate(self, model, tokenizer, tokens, start, attempt)

    monkeypatch.setattr(Local, "_generate", tight)
    assert dict(local.translate(texts, "hi")) == free


def test_the_demos_translator_is_right_and_small() -> None:
    assert min(exactness(TRANSLATOR, count=120).values()) >= 0.99
    assert (TRANSLATOR / "model.safetensors").stat().st_size <= 2_500_000
    assert set(CODES) == {"en", "pt", "hi", "xh"}


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        ([], "no language: --to LANG is missing", ""),
        (["--to", "qq"], "the language qq is not known", "--languages"),
        (["--to", "en"], "--to en is the language of --from", ""),
        (["--to", "mai", "--backend", "m2m100"], "m2m100 does not know Maithili", "--backend"),
        (["--to", "hi", "--rate", "0"], "--rate 0.0: must be above 0", ""),
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
    out = capsys.readouterr().out
    assert len(out.splitlines()) > 250
    assert any(
        line.split()[0] == "xh" and line.endswith("google nllb m2m100 madlad marian") for line in out.splitlines()
    )
