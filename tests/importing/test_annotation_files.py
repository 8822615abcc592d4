"""COCO, Karpathy's splits, PraCegoVer, Crossmodal-3600."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capivara_cli.errors import CapivaraError
from capivara_cli.importing.annotation_files import _elements
from tests.sources import imported, json_lines, picture, rejected, texts

IMAGES = Path("images")
COCO = {
    "info": {"year": 2014},
    "images": [{"id": number, "file_name": f"{number}.png", "height": 9} for number in (3, 1, 2)],
    "licenses": [],
    "annotations": [
        {"image_id": 1, "id": 10, "caption": "one \n"},
        {"image_id": 3, "id": 11, "caption": "three"},
        {"image_id": 1, "id": 12, "caption": "uno"},
        {"image_id": 99, "id": 13, "caption": "of none"},
    ],
}


def write(content: object, **form: Any) -> str:
    Path("x.json").write_text(json.dumps(content, **form))
    return "x.json"


def test_coco_with_the_annotations_first(folder: Path) -> None:
    records = imported(write(dict(reversed(COCO.items())), indent=2), images=IMAGES)
    assert {record["image"]: texts(record) for record in records} == {
        "images/1.png": ["one", "uno"],
        "images/2.png": [],
        "images/3.png": ["three"],
    }
    assert rejected() == {"99": "a caption of an image that the file does not have"}


def test_two_images_of_one_id(folder: Path) -> None:
    images = [{"id": 1, "file_name": f"{n}.png"} for n in (1, 2)]
    source = write({"images": images, "annotations": [{"image_id": 1, "caption": "one"}]})
    with pytest.raises(CapivaraError, match=r"has another image of this name: images/2\.png"):
        imported(source, images=IMAGES)


def test_karpathys_folders_and_splits(folder: Path) -> None:
    image = {"filename": "1.png", "filepath": "val", "split": "test", "sentences": [{"raw": "text"}]}
    source = write({"images": [image], "dataset": "coco"})
    assert imported(source, images=IMAGES)[0]["image"] == "images/1.png"
    picture("coco/val/1.png")
    assert imported(source, images=Path("coco"))[0]["image"] == "coco/val/1.png"
    with pytest.raises(CapivaraError, match="has no split tests, did you mean test"):
        imported(source, split="tests")


def test_captions_of_crossmodal_3600_that_are_not_lists(folder: Path) -> None:
    captions = {"en": {"caption": None}, "hi": {"caption": "abc"}, "pt": {"caption": ["um"]}}
    picture("images/1.jpg")
    [record] = imported(json_lines("captions.jsonl", {"image/key": "1", **captions}))
    assert record["captions"] == [{"text": "um", "lang": "pt"}]


@pytest.mark.parametrize(
    ("format_", "content", "looks"),
    [
        ("coco", {"images": [{"filename": "1.png", "split": "test", "sentences": []}]}, "karpathy"),
        ("karpathy", COCO, "coco"),
        ("pracegover", COCO, "coco"),
        ("coco", {"train": [{"filename": "1.png", "caption": "um"}]}, "pracegover"),
        ("coco", {"other": 1}, None),
    ],
)
def test_json_of_another_format_says_which_it_looks_like(
    format_: str, content: object, looks: str | None, folder: Path
) -> None:
    message = f"x.json is not of the format {format_}" + (f": it looks like {looks}" if looks else "$")
    with pytest.raises(CapivaraError, match=message) as error:
        imported(write(content), format=format_)
    assert looks is None or error.value.hint == f"capivara import --format {looks} x.json"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [{"id": 1, "file_name": "1.png"}, {"id": 2, "file_n', "x.json: not JSON: the file is cut short"),
        ('{"images": [{"id": 1, "file_name": "1.png"}\n\n', "not JSON: the file is cut short"),
        ('{"images": [{"id": 1, "file_name": "1.png"} 2]}', r'not JSON: .*after array element.* near .*"1.png"} 2]}'),
        ('{"info": [1,\n\n, 2]}', r'not JSON: .*near `{"info": \[1, , 2\]}'),
        ('{"images" 1}', "not JSON: .*colon"),
        ("{1: 2}", "not JSON: .*object key"),
        ('{"images": [{"id": 1.', "not JSON: .*malformed number"),
        ('{"images": [{"id": 1e}]}', "not JSON: .*malformed number"),
        ('"text"', "not JSON with an object or a list, but a string"),
        ("", "not JSON: the file is cut short"),
        ("[" * 100_000, "nested too deeply"),
        ('{"images": ["\udcff"]}', "x.json is not UTF-8 text"),
        ('\udcff\udcfe{"images": []}', "x.json is not UTF-8 text"),
    ],
)
def test_what_is_not_json_is_refused(content: str, message: str, folder: Path) -> None:
    Path("x.json").write_text(content, errors="surrogateescape")
    with pytest.raises(CapivaraError, match=message):
        imported("x.json", format="coco")
    assert not Path("out.jsonl").exists()


VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    value=st.dictionaries(st.text(max_size=6), VALUE, max_size=5) | st.lists(VALUE, max_size=5),
    indent=st.none() | st.integers(0, 3),
    escaped=st.booleans(),
    mark=st.booleans(),
)
def test_elements_are_those_of_json(value: Any, indent: int | None, escaped: bool, mark: bool, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=escaped), encoding="utf-8-sig" if mark else "utf-8")
    expected: list[tuple[str, Any]] = []
    for key, inner in [("", value)] if isinstance(value, list) else value.items():
        expected += [(key, element) for element in inner] if isinstance(inner, list) else [(key, inner)]
    assert list(_elements(path)) == expected
