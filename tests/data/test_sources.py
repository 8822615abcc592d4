"""Records from folders, shards, images and standard input."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from capivara_cli.data import images, records
from capivara_cli.data.images import ImageRef
from capivara_cli.errors import CapivaraError
from tests.data.test_records import DOG, refused, write
from tests.helpers import write_tar


@pytest.mark.parametrize(
    ("data", "path", "member"),
    [
        ({"image": "dog.jpg"}, "{folder}/dog.jpg", None),
        ({"image": "/elsewhere/dog.jpg"}, "/elsewhere/dog.jpg", None),
        ({"image": "shards/0.tar#dogs/1.jpg"}, "{folder}/shards/0.tar", "dogs/1.jpg"),
        ({"image": None, "file_name": "b.jpg"}, "{folder}/b.jpg", None),
    ],
)
def test_an_image_is_relative_to_the_folder_of_its_file(
    data: object, path: str, member: str | None, tmp_path: Path
) -> None:
    (record,) = records.read(write(tmp_path / "a.jsonl", data))
    assert record.image == ImageRef(path.format(folder=tmp_path), member)


@pytest.mark.parametrize("image", [None, 3, "", "a\0b.jpg"])
def test_an_image_that_is_no_name_is_refused_with_the_keys_there(image: object, tmp_path: Path) -> None:
    message = refused(json.dumps({"image": image, "caption": "a dog"}), tmp_path)
    assert message == "a.jsonl:1: no `image` (its keys: image, caption)"


def test_a_dash_is_the_standard_input_with_images_relative_to_here(tmp_path: Path) -> None:
    code = "from capivara_cli.data import records; print([str(r.image) + r.where for r in records.read('-')])"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, input=json.dumps(DOG), capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == str([f"{os.path.realpath(tmp_path)}/dog.jpgstandard input:1"])


def test_a_folder_gives_its_images_without_captions(tmp_path: Path) -> None:
    for name in ("b/2.PNG", "a/1.jpg", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = list(records.read(tmp_path))
    assert [record.id for record in found] == [str(tmp_path / "a" / "1.jpg"), str(tmp_path / "b" / "2.PNG")]
    assert found[0].image == ImageRef(str(tmp_path / "a" / "1.jpg"))


def test_a_folder_with_metadata_is_read_by_it(tmp_path: Path) -> None:
    (tmp_path / "stray.jpg").write_bytes(b"")
    write(tmp_path / "metadata.jsonl", {"file_name": "train/1.jpg", "text": "a dog"})
    (record,) = records.read(tmp_path)
    assert record.image == ImageRef(str(tmp_path / "train" / "1.jpg"))
    assert record.data["text"] == "a dog"


def test_a_shards_images_take_their_keys_from_the_json_beside_them(tmp_path: Path) -> None:
    sidecar = json.dumps({"captions": DOG["captions"], "width": 3}).encode()
    path = write_tar(tmp_path / "0.tar", {"000.jpg": b"x", "000.json": sidecar, "001.PNG": b"y", "002.txt": b"z"})
    first, second = records.read(path)
    assert (first.id, first.image, first.data["width"]) == ("000", ImageRef(str(path), "000.jpg"), 3)
    assert first.texts("en") == ["a dog"]
    assert (second.id, second.captions) == ("001", [])


def test_a_shards_json_cannot_point_to_another_image(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "0.tar", {"0.json": b'{"image": "/etc/passwd", "id": "own"}', "0.jpg": b"x"})
    (record,) = records.read(path)
    assert record.image == ImageRef(str(path), "0.jpg")
    assert record.id == "own"


def test_a_broken_json_in_a_shard_is_named(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "0.tar", {"0.jpg": b"x", "0.json": b'{"captions": ['})
    with pytest.raises(CapivaraError, match=r"0\.tar#0\.json: not JSON"):
        list(records.read(path))


@pytest.mark.parametrize("content", [b"not a tar at all", None])
def test_a_shard_that_cannot_be_read_is_named(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "0.tar").write_bytes(content)
    with pytest.raises(CapivaraError, match=r"0\.tar: (not a tar file|No such file)"):
        list(records.read(tmp_path / "0.tar"))


def test_a_brace_pattern_is_its_numbers_padded_as_the_first() -> None:
    assert [path.name for path in records.expand("data/{098..101}.tar")] == ["098.tar", "099.tar", "100.tar", "101.tar"]
    assert [path.name for path in records.expand("{0..2}.tar")] == ["0.tar", "1.tar", "2.tar"]
    assert records.expand("data/{train}.jsonl") == [Path("data/{train}.jsonl")]
    with pytest.raises(CapivaraError, match="names 0 shards"):
        records.expand("{3..1}.tar")


def test_an_image_that_was_found_in_a_shard_can_be_loaded(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), "red").save(buffer, "PNG")
    (record,) = records.read(write_tar(tmp_path / "0.tar", {"a/0.png": buffer.getvalue()}))
    assert images.load(record.image).getpixel((0, 0)) == (255, 0, 0)


def test_standard_input_with_a_bom_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('\ufeff{"image": "a.jpg"}\n'))
    assert [record.id for record in records.read("-")] == ["a.jpg"]


def test_a_folder_that_is_named_like_an_image_is_not_one(tmp_path: Path) -> None:
    (tmp_path / "dir.jpg").mkdir()
    Image.new("RGB", (2, 2)).save(tmp_path / "dir.jpg" / "a.png")
    assert [record.id for record in records.read(tmp_path)] == [str(tmp_path / "dir.jpg" / "a.png")]


def test_an_images_id_is_its_path_as_it_was_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    Image.new("RGB", (2, 2)).save(tmp_path / "a" / "1.png")
    for source in ("a", "./a", "a/1.png"):
        (record,) = records.read(source)
        assert (record.id, record.data["image"]) == ("a/1.png", "a/1.png")
        assert record.image == ImageRef(str(tmp_path / "a" / "1.png"))
    with pytest.raises(CapivaraError, match=r"a/2\.png: no such file"):
        list(records.read("a/2.png"))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("images/1.jpg", "../in/images/1.jpg"),
        ("../1.jpg", "../1.jpg"),
        ("x.tar#1.jpg", "../in/x.tar#1.jpg"),
        ("/data/1.jpg", "/data/1.jpg"),
    ],
)
@pytest.mark.parametrize("key", ["image", "file_name"])
def test_a_record_in_another_folder_names_the_same_image(image: str, expected: str, key: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (record,) = records.read(write(tmp_path / "in" / "a.jsonl", {key: image, "votes": 3}))
    moved = record.for_folder(tmp_path / "out")
    assert moved == {"id": image, key: expected, "votes": 3}
    assert ImageRef.parse(moved[key], tmp_path / "out") == record.image
    assert record.for_folder(tmp_path / "in")[key] == image


def test_a_shards_images_are_named_by_its_path_as_it_was_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s").mkdir()
    write_tar(tmp_path / "s" / "0.tar", {"a/1.jpg": b"x"})
    (record,) = records.read("s/0.tar")
    assert (record.id, record.data["image"]) == ("a/1", "s/0.tar#a/1.jpg")
    assert record.image == ImageRef(str(tmp_path / "s" / "0.tar"), "a/1.jpg")
    assert record.for_folder(tmp_path / "out" / "deep")["image"] == "../../s/0.tar#a/1.jpg"


def test_all_kinds_of_sources_come_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b").mkdir()
    for name in ("b/2.jpg", "b/1.jpg", "a.png"):
        (tmp_path / name).touch()
    sources: list[str | Path] = [
        write(tmp_path / "c.jsonl", DOG),
        "b",
        write_tar(tmp_path / "0.tar", {"x.jpg": b"x"}),
        "a.png",
        "{0..1}.jsonl",
    ]
    for number in range(2):
        write(tmp_path / f"{number}.jsonl", {"image": f"{number}.jpg"})
    ids = ["dog.jpg", "b/1.jpg", "b/2.jpg", "x", "a.png", "0.jpg", "1.jpg"]
    assert [record.id for record in records.stream(sources)] == ids
    assert records.validate(sources)[0] == 7


def test_a_stream_is_read_as_it_is_asked_for(tmp_path: Path) -> None:
    found = records.stream([write(tmp_path / "a.jsonl", DOG), tmp_path / "none.jsonl"])
    assert next(found).id == "dog.jpg"
    with pytest.raises(CapivaraError, match=r"none\.jsonl: no such file"):
        next(found)


def test_a_stream_may_be_begun_in_one_thread_and_read_in_others(tmp_path: Path) -> None:
    found = records.stream([write(tmp_path / "a.jsonl", *({"id": number, "image": "1.jpg"} for number in range(3)))])
    assert next(found).id == "0"
    with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
        assert [thread.submit(next, found).result().id for thread in (first, second)] == ["1", "2"]
        assert second.submit(list, found).result() == []


def test_a_folder_that_is_given_twice_is_refused_in_any_spelling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").touch()
    with pytest.raises(CapivaraError, match=r"the id a/1\.png is also that of a/1\.png"):
        list(records.stream(["a", "./a/"]))


def test_images_of_a_folder_are_counted(tmp_path: Path) -> None:
    for name in ("1.jpg", "2.PNG", "notes.txt"):
        (tmp_path / name).touch()
    assert records.validate([tmp_path])[0] == 2
    assert records.validate([tmp_path / "1.jpg"])[0] == 1
    assert records.validate([tmp_path, "-"])[0] is None
