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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from capivara_cli.commands import main
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from capivara_cli.data import class_sets
from capivara_cli.demo import TRANSLATOR
from capivara_cli.demo.language import caption
from capivara_cli.demo.scenes import held_out_scenes
from capivara_cli.demo.translator import CODES, exactness
from capivara_cli.errors import CapivaraError
from capivara_cli.runtime import Runtime
from capivara_cli.translation.local import CTranslate2, Local
from capivara_cli.translation.translate import translate
from tests import small_models
from tests.captioning.test_caption import lines
from tests.conftest import Refused, command
from tests.training.test_distributed import torchrun


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's translator, in a folder of its own."""
    return Path(shutil.copytree(TRANSLATOR, tmp_path_factory.mktemp("translators") / "translator"))


SCENES = held_out_scenes(60, random.Random(3))


def record(number: int) -> dict[str, Any]:
    """Two English captions of a held-out scene, and something of the user's own."""
    texts = [caption(SCENES[number], "en", template) for template in (number % 4, (number + 1) % 4)]
    captions = [{"text": text, "lang": "en", "source": "human", "votes": 2} for text in texts]
    return {"id": number, "image": f"{number}.jpg", "captions": captions, "mine": {"kept": True}}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(record(number)) + "\n" for number in range(60)))
    return path


def flags(model: Path, **others: Any) -> dict[str, Any]:
    return {"backend": "nllb", "model": str(model), "memory": "none", "precision": "fp32"} | others


def expected(number: int, lang: str) -> list[str]:
    return [caption(SCENES[number], lang, template) for template in (number % 4, (number + 1) % 4)]


@pytest.mark.parametrize("engine", ["transformers", "ctranslate2"])
def test_each_caption_gets_one_in_each_language(engine: str, model: Path, source: Path, tmp_path: Path) -> None:
    translate([source], tmp_path / "out.jsonl", to=["hi", "xh"], engine=engine, **flags(model))
    found = lines(tmp_path / "out.jsonl")
    right = 0
    for number, got in enumerate(found):
        given = record(number)
        assert got["captions"][:2] == given["captions"]
        assert {key: got[key] for key in ("id", "image", "mine")} == {
            key: given[key] for key in ("id", "image", "mine")
        }
        new = got["captions"][2:]
        assert [(c["lang"], c["parent"], c["source"]) for c in new] == [
            (lang, parent, str(model)) for lang in ("hi", "xh") for parent in (0, 1)
        ]
        right += [c["text"] for c in new] == [*expected(number, "hi"), *expected(number, "xh")]
    assert right >= 0.95 * len(found)


def test_what_is_there_is_left_and_the_rest_is_added(model: Path, source: Path, tmp_path: Path) -> None:
    translate([source], tmp_path / "hi.jsonl", to=["hi"], **flags(model))
    translate([tmp_path / "hi.jsonl"], tmp_path / "both.jsonl", to=["hi", "xh"], **flags(model))
    translate([source], tmp_path / "once.jsonl", to=["hi", "xh"], **flags(model))
    assert lines(tmp_path / "both.jsonl") == lines(tmp_path / "once.jsonl")
    translate([tmp_path / "both.jsonl"], tmp_path / "again.jsonl", to=["hi", "xh"], **flags(model))
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "both.jsonl").read_bytes()


def test_the_memory_serves_the_second_run_without_the_model(
    model: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = flags(model, memory=tmp_path / "m.sqlite")
    translate([source], tmp_path / "one.jsonl", to=["hi"], **options)
    monkeypatch.setattr(Local, "_load", lambda _: pytest.fail("loaded"))
    capsys.readouterr()
    translate([source], tmp_path / "two.jsonl", to=["hi"], **options)
    assert "0 texts translated, 100% from memory or repeated" in capsys.readouterr().err
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()


def test_another_model_in_the_same_folder_has_a_memory_of_its_own(model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "translator"))
    runtime = Runtime("cpu", "fp32")

    def identity(kind: type[Local] = Local) -> str:
        return kind("nllb", str(folder), "en", "hi", runtime, batch_tokens=None).identity()

    before = identity()
    assert identity() == before
    assert identity(CTranslate2) != before
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    assert identity() != before


def test_a_batch_changes_nothing(model: Path, source: Path, tmp_path: Path) -> None:
    for name, tokens in (("few", 60), ("many", 10_000)):
        translate([source], tmp_path / f"{name}.jsonl", to=["hi"], batch_tokens=tokens, **flags(model))
    assert (tmp_path / "few.jsonl").read_bytes() == (tmp_path / "many.jsonl").read_bytes()


def test_what_cannot_be_right_goes_to_the_rejected_file(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model knows its world alone: of anything else it makes nonsense, and much of that can be seen."""
    odd = {"text": "{c} " * 8, "lang": "en"}
    found = [record(0), {"id": "odd", "image": "x.jpg", "captions": [odd, record(1)["captions"][0]]}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(each) + "\n" for each in found))
    translate([tmp_path / "in.jsonl"], tmp_path / "out.jsonl", to=["hi"], **flags(model))
    got = lines(tmp_path / "out.jsonl")[1]
    assert [c.get("parent") for c in got["captions"]] == [None, None, 1]
    (rejected,) = lines(tmp_path / "out.jsonl.rejected.jsonl")
    assert (rejected["id"], rejected["lang"], rejected["text"]) == ("odd", "hi", " ".join(["{c}"] * 8))
    assert "(hi)" in rejected["rejected"]
    assert "1 translations rejected" in capsys.readouterr().err
    with pytest.raises(CapivaraError, match=r"in\.jsonl:2: .*\(hi\)"):
        translate([tmp_path / "in.jsonl"], tmp_path / "strict.jsonl", to=["hi"], strict=True, **flags(model))


def test_records_without_captions_to_translate_pass(model: Path, tmp_path: Path) -> None:
    found = [
        record(0),
        {"id": "bare", "image": "x.jpg"},
        {"id": "pt", "image": "y.jpg", "captions": [{"text": "cão", "lang": "pt"}]},
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(each) + "\n" for each in found))
    translate([tmp_path / "in.jsonl"], tmp_path / "out.jsonl", to=["hi"], **flags(model))
    assert lines(tmp_path / "out.jsonl")[1:] == found[1:]
    with pytest.raises(CapivaraError, match="no captions in xh were found"):
        translate([tmp_path / "in.jsonl"], tmp_path / "no.jsonl", to=["hi"], origin="xh", **flags(model))


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


def test_a_pipe_into_a_file_goes_on_where_it_stopped(
    model: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("capivara_cli.translation.translate.WINDOW", 7)
    translate([source], tmp_path / "whole.jsonl", to=["hi"], **flags(model))
    content = source.read_text().splitlines(True)
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(content[:40]) + "{torn"))
    with pytest.raises(CapivaraError, match="standard input:41: not JSON"):
        translate(["-"], tmp_path / "out.jsonl", to=["hi"], **flags(model))
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(content)))
    translate(["-"], tmp_path / "out.jsonl", to=["hi"], **flags(model))
    assert [each["captions"] for each in lines(tmp_path / "out.jsonl")] == [
        each["captions"] for each in lines(tmp_path / "whole.jsonl")
    ]


def test_two_ranks_write_what_one_writes(model: Path, source: Path, tmp_path: Path) -> None:
    translate([source], tmp_path / "one.jsonl", to=["hi"], **flags(model))
    options = ["--backend", "nllb", "--model", str(model), "--memory", "none", "--precision", "fp32"]
    line = ["-m", "capivara_cli", "translate", "in.jsonl", "--to", "hi", *options, "-o", "two.jsonl"]
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
def test_a_class_file_is_translated_as_a_whole(suffix: str, model: Path, tmp_path: Path) -> None:
    import yaml

    path, out = tmp_path / f"classes.{suffix}", tmp_path / f"out.{suffix}"
    path.write_text(json.dumps(CLASSES) if suffix == "json" else yaml.safe_dump(CLASSES))
    translate([path], out, to=["pt"], **flags(model))
    got = yaml.safe_load(out.read_text(encoding="utf-8"))
    assert got["shapes"] == [caption(scene, "pt", 0) for scene in SCENES[:4]]
    assert got["templates"]["a"] == ["há uma estrela vermelha pequena sobre um fundo branco"]
    assert got["templates"]["ids"][0] == [3, 1]
    with pytest.raises(CapivaraError, match="is there already"):
        translate([path], out, to=["pt"], **flags(model))


def test_a_class_file_of_our_form_gets_another_language(model: Path, tmp_path: Path) -> None:
    import yaml

    shapes = [caption(scene, "en", 0) for scene in SCENES[:3]]
    names = {"en": {"0": shapes[0], "1": shapes[1:]}, "xh": {"0": "nto", "1": "nye"}}
    mine = {"title": "Things", "metric": "acc1", "source": "me", "labels": ["0", "1"], "names": names}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(mine))
    translate([tmp_path / "c.yaml"], tmp_path / "out.yaml", to=["pt"], **flags(model))
    got = yaml.safe_load((tmp_path / "out.yaml").read_text(encoding="utf-8"))
    assert got.pop("names") == {
        **names,
        "pt": {"0": caption(SCENES[0], "pt", 0), "1": [caption(scene, "pt", 0) for scene in SCENES[1:3]]},
    }
    assert got == {key: value for key, value in mine.items() if key != "names"}
    loaded = class_sets.load(str(tmp_path / "out.yaml"), ["pt"])
    assert loaded is not None
    assert loaded.names_in("pt")["1"][1] == caption(SCENES[2], "pt", 0)
    del names["en"]
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(mine))
    with pytest.raises(CapivaraError, match=r"c\.yaml has no names in en: there are xh"):
        translate([tmp_path / "c.yaml"], tmp_path / "more.yaml", to=["pt"], **flags(model))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [{"filename": "1.jpg", "sentences": []}]}', "lists of objects: no class file"),
        ("{", "neither JSON nor YAML"),
        ("{}", "no names or templates"),
        ('{"set": [1, 2]}', "no names or templates"),
        ('"a dog"', "no names or templates"),
    ],
)
def test_what_is_no_class_file_is_refused(content: str, message: str, model: Path, tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_text(content)
    with pytest.raises(CapivaraError, match=rf"classes\.json.*{message}"):
        translate([tmp_path / "classes.json"], tmp_path / "out.json", to=["hi"], **flags(model))
    assert not (tmp_path / "out.json").exists()


def test_a_class_file_with_a_gap_is_not_written(model: Path, tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_text(json.dumps({"a": [*CLASSES["shapes"], "{c} " * 8]}))
    with pytest.raises(CapivaraError, match=r"1 of 5 texts of .* could not be translated"):
        translate([tmp_path / "classes.json"], tmp_path / "out.json", to=["hi"], **flags(model))
    assert not (tmp_path / "out.json").exists()


class Mangling(Local):
    """A real model, and a service that spoils placeholders as such services do."""

    def check(self, target: str) -> None: ...

    def translate(self, texts: Any, target: str, attempt: int = 0) -> Iterator[tuple[int, str]]:
        assert (target, attempt < 2) == ("pt", True)
        for number, text in enumerate(texts):
            yield number, "uma foto de " + text.replace("a photo of a ", "").replace("{c}", "{C }")


def test_placeholders_are_hidden_when_they_were_mangled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("capivara_cli.translation.local.Local", Mangling)
    (tmp_path / "t.json").write_text(json.dumps({"set": ["a photo of a {c}."]}))
    translate([tmp_path / "t.json"], tmp_path / "out.json", to=["pt"], backend="nllb", model="x", memory="none")
    assert json.loads((tmp_path / "out.json").read_text()) == {"set": ["uma foto de {c}."]}


@pytest.mark.parametrize("family", ["m2m100", "madlad", "marian", "marian-many"])
def test_every_family_is_told_the_language_in_its_own_way(family: str, tmp_path: Path) -> None:
    backend = family.removesuffix("-many")
    folder = getattr(small_models, family.replace("-", "_"))(tmp_path / "model")
    local = Local(backend, str(folder), "en", "hi", Runtime("cpu", "fp32"), batch_tokens=64)
    texts = [text for text in small_models.TEXTS if text]
    got = dict(local.translate(texts, "hi"))
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSeq2SeqLM.from_pretrained(folder)
    start = {"madlad": "<2hi> ", "marian-many": ">>hin<< "}.get(family, "")
    options: dict[str, Any] = {}
    if family == "m2m100":
        tokenizer.src_lang = "en"
        options["forced_bos_token_id"] = tokenizer.get_lang_id("hi")
    for number, text in enumerate(texts):
        batch = tokenizer(start + text, return_tensors="pt")
        tokens = model.generate(**batch, do_sample=False, **options)
        assert got[number] == tokenizer.decode(tokens[0], skip_special_tokens=True)
    if family in ("madlad", "marian-many"):
        with pytest.raises(CapivaraError, match="so it does not know xh"):
            list(local.translate(texts, "xh"))


def test_out_of_memory_halves_the_batch(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = Local("nllb", str(model), "en", "hi", Runtime("cpu", "fp32"), batch_tokens=2000)
    texts = [text["text"] for number in range(30) for text in record(number)["captions"]]
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
        ([], "no language to translate to", "--to hi"),
        (["--to", "qq"], "the language qq is not known", "--languages"),
        (["--to", "en"], "--to en is the language of --from", ""),
        (["--to", "mai", "--backend", "m2m100"], "m2m100 does not know Maithili", "--backend"),
        (["--to", "hi", "--backend", "googel"], "--backend googel is not known, did you mean google", "one of"),
        (["--to", "hi", "--engine", "x"], "--engine x is not known", "ctranslate2"),
        (["--to", "hi", "--rate", "0"], "--rate 0.0: more than 0", ""),
        (["--to", "hi", "--backend", "nllb", "--model", "gone", "-o", "out.jsonl"], "gone: no such folder", "--model"),
        (["--to", "hi", "--backend", "nllb"], "facebook/nllb-200-distilled-600M is not on this machine", "--model"),
        (["--to", "hi", "-o", "in.jsonl", "--overwrite"], "in.jsonl is read", "-o"),
        (["--to", "hi", "--memory", "in.jsonl"], "in.jsonl cannot be used", "--memory"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: list[str], message: str, hint: str, refused: Refused, tmp_path: Path
) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps(record(0)) + "\n")
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
