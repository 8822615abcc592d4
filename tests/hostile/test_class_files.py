"""Class files and files of templates that nobody should write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capivara_cli.data import class_files, class_forms
from capivara_cli.data.class_sets import ClassSet, class_indices, shared_names
from capivara_cli.errors import CapivaraError
from tests.hostile.conftest import VALUES, damaged, fuzzing, refusal_of

PARTS = {"labels": ["dog"], "names": {"en": {"dog": "dog"}}, "templates": {"en": ["a {c}"]}, "metric": "acc1"}
KEYS = st.sampled_from(["labels", "names", "templates", "prompts", "metric", "en", "dog", "set"]) | st.text(max_size=3)
TREES = st.recursive(
    VALUES | st.sampled_from(["dog", "a {c}", "{}"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
FILES = st.builds(lambda change: {**PARTS, **change}, st.dictionaries(KEYS, TREES, max_size=3)) | TREES
YAML = b"""labels: [dog, cat]
names:
  en: {dog: dog, cat: [cat, "kitten"]}
  "hi": {dog: x}
templates: {en: ["a photo of a {c}."]}
prompts: {en: {dog: [one, two]}}
"""


def use(classes: ClassSet, templates: Path) -> None:
    """Do with a class set what classify-eval does."""
    for lang in (*classes.names, "pt"):
        refusal_of(lambda lang=lang: shared_names(classes, lang))  # type: ignore[misc]
        refusal_of(lambda lang=lang: [classes.prompts_of(label, lang) for label in classes.names_in(lang)])  # type: ignore[misc]
    class_indices(classes, ["dog", "0", "1.0", *classes.labels])
    refusal_of(lambda: class_forms.with_templates(classes, str(templates), ["en"]))


def check(path: Path) -> None:
    loaded: list[ClassSet] = []
    refusal_of(lambda: loaded.append(class_forms.load(str(path))))
    refusal_of(lambda: class_forms.load(f"{path}#dog"))
    for classes in (*loaded, class_forms.load("cifar-10")):
        use(classes, path)
    values: list[Any] = []
    refusal_of(lambda: values.append(class_files.read(path)))
    for value in values:
        class_files.dump(class_files.replaced(value, str.upper), path)


@fuzzing(200)
@given(value=FILES)
def test_json_is_a_class_file_or_is_refused(value: Any, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps(value))
    check(tmp_path / "c.json")


@pytest.mark.parametrize("name", ["c.json", "c.txt"])
def test_a_file_that_would_fill_the_memory_is_not_read(name: str, tmp_path: Path) -> None:
    with (tmp_path / name).open("wb") as file:
        file.truncate(class_files.MAX_BYTES + 1)  # the disk holds nothing of it
    with pytest.raises(CapivaraError, match=f"{name} is larger than 256 MiB"):
        class_files.read_content(tmp_path / name)


@fuzzing(60)
@given(content=damaged(YAML))
def test_yaml_is_a_class_file_or_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(content)
    check(tmp_path / "c.yaml")


def test_aliases_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("a: &a [x, x]\nnames: {en: {dog: *a}}\n")
    assert "an alias (*) is not allowed" in str(refusal_of(lambda: class_forms.load(str(path))))
