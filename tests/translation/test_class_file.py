"""Class files: all their texts are translated, or nothing is written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from capivara_cli.data import class_forms
from capivara_cli.demo.language import caption
from capivara_cli.errors import CapivaraError
from capivara_cli.translation.local import Local
from tests.translation.conftest import SCENES, Run

EN, PT = ([caption(scene, lang, 0) for scene in SCENES[:4]] for lang in ("en", "pt"))


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_a_class_file_is_translated_as_a_whole(suffix: str, run: Run, tmp_path: Path) -> None:
    templates = {
        "a": ["there is a small red star on a white background"],
        "ids": [[3, 1], ["a large blue drop on a black background"]],
    }
    path, classes = tmp_path / f"classes.{suffix}", {"shapes": EN, "templates": templates}
    path.write_text(json.dumps(classes) if suffix == "json" else yaml.safe_dump(classes))
    got = yaml.safe_load(run(path, f"out.{suffix}", to="pt").read_text(encoding="utf-8"))
    assert got["shapes"] == PT
    assert got["templates"]["a"] == ["há uma estrela vermelha pequena sobre um fundo branco"]
    assert got["templates"]["ids"][0] == [3, 1]
    with pytest.raises(CapivaraError, match="already exists"):
        run(path, f"out.{suffix}", to="pt")


def test_a_class_file_of_our_form_gets_another_language(run: Run, tmp_path: Path) -> None:
    names = {"en": {"0": EN[0], "1": EN[1:]}, "xh": {"0": "nto", "1": "nye"}}
    classes = {"title": "Things", "metric": "acc1", "source": "me", "labels": ["0", "1"], "names": names}
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(classes))
    out = run(path, "out.yaml", to="pt")
    got = yaml.safe_load(out.read_text(encoding="utf-8"))
    assert got == classes | {"names": {**names, "pt": {"0": PT[0], "1": PT[1:]}}}
    assert class_forms.load(str(out)).names_in("pt")["1"][1] == PT[2]
    del names["en"]
    path.write_text(yaml.safe_dump(classes))
    with pytest.raises(CapivaraError, match=r"c\.yaml has no names in en: it has xh"):
        run(path, "more.yaml", to="pt")


@pytest.mark.parametrize(
    ("content", "translated"),
    [
        ({"xh": {"0": "nto", "1": "nye"}, "en": {"0": EN[0], "1": EN[1]}}, {"0": PT[0], "1": PT[1]}),
        ({"XH": [[3, 1], ["nto", "nye"]], "EN": [[3, 1], EN[:2]]}, [[3, 1], PT[:2]]),
        ({"xh": ["nto"], "English": EN[:2]}, PT[:2]),
    ],
)
def test_a_file_by_language_gets_another_and_keeps_those_that_it_has(
    content: dict[str, Any], translated: Any, run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps(content))
    assert json.loads(run(path, "out.json", to="pt").read_text(encoding="utf-8")) == content | {"pt": translated}
    first = next(iter(content))
    path.write_text(json.dumps({first: content[first]}))
    with pytest.raises(CapivaraError, match=rf"c\.json has no names in en: it has {first}") as error:
        run(path, "more.json", to="pt")
    assert error.value.hint == "--from xh"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [{"filename": "1.jpg", "sentences": []}]}', "lists of objects: it is not a class file"),
        ("{", "is not JSON"),
        ("{}", "no names or templates"),
        ('{"set": [1, 2]}', "no names or templates"),
        ('"a dog"', "no names or templates"),
        pytest.param(json.dumps({"a": [*EN, "{c} " * 8]}), "could not be translated", id="a gap"),
    ],
)
def test_what_cannot_be_translated_as_a_whole_is_refused(content: str, message: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_text(content)
    with pytest.raises(CapivaraError, match=rf"classes\.json.*{message}"):
        run(tmp_path / "classes.json", "out.json")
    assert not (tmp_path / "out.json").exists()


class Mangling(Local):
    """A model that spoils placeholders, as services do."""

    def translate(self, texts: Any, target: str, attempt: int = 0) -> Iterator[tuple[int, str]]:
        assert (target, attempt < 2) == ("pt", True)
        for i, text in enumerate(texts):
            yield i, "uma foto de " + text.replace("a photo of a ", "").replace("{c}", "{C }")


def test_placeholders_are_hidden_when_they_were_mangled(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("capivara_cli.translation.local.Local", Mangling)
    (tmp_path / "t.json").write_text(json.dumps({"set": ["a photo of a {c}."]}))
    assert json.loads(run(tmp_path / "t.json", "out.json", to="pt").read_text()) == {"set": ["uma foto de {c}."]}
