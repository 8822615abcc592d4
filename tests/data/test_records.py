from __future__ import annotations

import io
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from capivara_cli.data import images, records
from capivara_cli.errors import CapivaraError

DOG = {"image": "dog.jpg", "captions": [{"text": "a dog", "lang": "en"}, {"text": "एक कुत्ता", "lang": "hi"}]}


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines), encoding="utf-8")
    return path


def refused(text: str, folder: Path) -> str:
    with pytest.raises(CapivaraError) as caught:
        list(records.parse(io.StringIO(text), "a.jsonl", folder))
    return caught.value.message


def test_unknown_keys_are_kept_as_they_came(tmp_path: Path) -> None:
    line = {**DOG, "licence": {"name": "CC-BY", "year": 2020}}
    (record,) = records.read(write(tmp_path / "a.jsonl", line))
    assert record.data == line


def test_texts_are_those_of_the_language_in_their_order(tmp_path: Path) -> None:
    captions = [{"text": text, "lang": lang} for text, lang in (("b", "en"), ("c", "hi"), ("a", "en"))]
    (record,) = records.read(write(tmp_path / "a.jsonl", {"image": "1.jpg", "captions": captions}))
    assert record.texts("en") == ["b", "a"]
    assert record.texts("xh") == []
    (record,) = records.read(write(tmp_path / "a.jsonl", {"image": "1.jpg"}))
    assert record.captions == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({"id": "7", "image": "1.jpg"}, "7"),
        ({"id": 7, "image": "1.jpg"}, "7"),
        ({"image": "1.jpg"}, "1.jpg"),
        ({"file_name": "2.jpg"}, "2.jpg"),
        ({"id": 0, "image": "a.jpg"}, "0"),
    ],
)
def test_a_record_without_an_id_goes_by_its_images_name(line: object, expected: str, tmp_path: Path) -> None:
    (record,) = records.read(write(tmp_path / "a.jsonl", line))
    assert record.id == expected


@pytest.mark.parametrize(("given", "expected"), [(None, "1.jpg"), ("", "1.jpg"), (0, 0)])
def test_an_id_is_written_if_it_says_something(given: object, expected: object, tmp_path: Path) -> None:
    line = {"licence": "CC0", "id": given, "image": "1.jpg"}
    (record,) = records.read(write(tmp_path / "a.jsonl", line))
    assert record.for_folder(tmp_path) == {"licence": "CC0", "id": expected, "image": "1.jpg"}
    assert record.data == line


def test_blank_lines_are_passed_over_and_counted(tmp_path: Path) -> None:
    text = f"\n  \n{json.dumps(DOG)}\n\n{json.dumps(DOG)}"
    found = list(records.parse(io.StringIO(text), "a.jsonl", tmp_path))
    assert [record.where for record in found] == ["a.jsonl:3", "a.jsonl:5"]


def test_a_byte_order_mark_is_no_part_of_the_data(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(DOG).encode())
    (record,) = records.read(tmp_path / "a.jsonl")
    assert record.data == DOG


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"image": "torn', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('["dog.jpg"]', "a list, not an object with `image` and `captions`"),
    ],
)
def test_a_line_that_is_not_a_record_is_named_by_its_number(line: str, message: str, tmp_path: Path) -> None:
    assert refused(f"{json.dumps(DOG)}\n{line}", tmp_path).startswith(f"a.jsonl:2: {message}")


@pytest.mark.parametrize(
    "captions", ["a dog", [["a dog"]], [{"text": "a dog"}], [{"lang": "en"}], [{"text": 3, "lang": "en"}], None]
)
def test_captions_without_a_text_and_a_language_are_refused(captions: object, tmp_path: Path) -> None:
    message = refused(json.dumps({"image": "1.jpg", "captions": captions}), tmp_path)
    assert message.startswith("a.jsonl:1: `captions` is not a list of")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CapivaraError, match=r"none\.jsonl: no such file"):
        list(records.read(tmp_path / "none.jsonl"))


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes('{"image": "cão.jpg"}'.encode("latin-1"))
    with pytest.raises(CapivaraError, match=r"a\.jsonl is not UTF-8 text"):
        list(records.read(tmp_path / "a.jsonl"))


def test_languages_are_counted_by_caption(tmp_path: Path) -> None:
    found = list(records.read(write(tmp_path / "a.jsonl", DOG, DOG, {"image": "1.jpg"})))
    assert records.languages(found) == {"en": 2, "hi": 2}


def test_an_id_that_comes_twice_is_named_with_both_places(tmp_path: Path) -> None:
    one = write(tmp_path / "a.jsonl", {"id": "x", "image": "1.jpg"}, {"id": "y", "image": "1.jpg"})
    two = write(tmp_path / "b.jsonl", {"id": "y", "image": "2.jpg"})
    assert [record.id for record in records.stream([one])] == ["x", "y"]
    with pytest.raises(CapivaraError, match=r"b\.jsonl:1: the id y is also that of .*a\.jsonl:2"):
        list(records.stream([one, two]))


def test_an_id_is_the_same_as_a_number_and_as_a_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"id": 7, "image": "1.jpg"}, {"id": "7", "image": "2.jpg"})
    with pytest.raises(CapivaraError, match=r"a\.jsonl:2: the id 7 is also that of .*a\.jsonl:1"):
        list(records.stream([path]))


def test_ids_that_are_no_unicode_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"id": "{id_}", "image": "1.jpg"}}\n' for id_ in ("\\ud800", "\\ud801", "?")))
    assert records.validate([path])[0] == 3
    with pytest.raises(CapivaraError, match=r"a\.jsonl:1: the id .* is also that of .*a\.jsonl:1"):
        records.validate([path, path])


def test_without_any_record_the_hint_says_what_one_is(tmp_path: Path) -> None:
    (tmp_path / "image.heic").touch()
    with pytest.raises(CapivaraError, match="no images in it") as error:
        records.validate([tmp_path])
    assert error.value.hint == f"images end in {' '.join(sorted(images.EXTENSIONS))}"
    with pytest.raises(CapivaraError, match=r"none\.jsonl: no records in it") as error:
        records.validate([tmp_path, write(tmp_path / "none.jsonl")])
    assert "docs/data.md" in (error.value.hint or "")


def test_what_is_wrong_in_the_last_source_is_found_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text('{"image": "1.jpg"}\n{"image": ')
    with pytest.raises(CapivaraError, match=r"b\.jsonl:2: not JSON"):
        records.validate([write(tmp_path / "a.jsonl", DOG), tmp_path / "b.jsonl"])
    assert records.validate([tmp_path / "a.jsonl"]) == (1, Counter(en=1, hi=1))


@pytest.mark.parametrize(
    ("lang", "message", "hint"),
    [
        (
            "yo",
            "no caption in yo: the data has en (2), pt-BR (1)",
            "capivara translate 'a b.jsonl' --to yo -o FILE.jsonl",
        ),
        ("hindy", "no caption in hindy, did you mean hindi", "capivara translate --languages"),
        ("pt", "no caption in pt: the data has", "--lang pt-BR"),
    ],
)
def test_a_language_that_no_caption_is_in(lang: str, message: str, hint: str) -> None:
    with pytest.raises(CapivaraError, match=re.escape(message)) as error:
        records.check_languages(Counter({"en": 2, "pt-BR": 1}), ["en", lang], ["a b.jsonl"])
    assert (error.value.hint or "").startswith(hint)


def test_a_variant_is_taken_where_the_language_itself_is_in_no_caption(capsys: pytest.CaptureFixture[str]) -> None:
    captions = Counter({"pt-BR": 3, "pt-PT": 1, "en": 4})
    assert records.resolve_languages(captions, ["en", "pt"], []) == ["en", "pt-BR"]
    assert "no captions in pt: using pt-BR (3 captions)" in capsys.readouterr().err
    assert records.resolve_languages(captions + Counter(pt=1), ["pt"], []) == ["pt"]


def test_languages_of_captions_are_read_as_bcp47(tmp_path: Path) -> None:
    spellings = ["HI", "pt_br", "Hindi", "eng", "mine"]
    captions = [{"text": "a", "lang": lang} for lang in spellings]
    (record,) = records.read(write(tmp_path / "a.jsonl", {"image": "a.jpg", "captions": captions}))
    assert [caption["lang"] for caption in record.captions] == ["hi", "pt-BR", "hi", "en", "mine"]
