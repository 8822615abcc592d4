from __future__ import annotations

import pytest

from capivara_cli.data.images import ImageRef
from capivara_cli.data.records import Record
from capivara_cli.errors import CapivaraError
from capivara_cli.training.data import with_captions


def record(**texts: list[str]) -> Record:
    """Return a record with these captions: `record(en=["a star"])`."""
    captions = [{"text": text, "lang": lang} for lang, lang_texts in texts.items() for text in lang_texts]
    return Record({"image": "1.jpg", "captions": captions}, "a.jsonl:1", ImageRef("/1.jpg"))


def test_records_without_a_wanted_language_are_left_out() -> None:
    hindi, english, portuguese, bare = record(hi=["तारा"]), record(en=["a star"]), record(pt=["uma estrela"]), record()
    records = [hindi, english, portuguese, bare]
    assert with_captions(records, ["hi"]) == [hindi]
    assert with_captions(records, ["hi"], ["en"]) == [hindi, english]
    assert with_captions([hindi], ["hi"], ["en"]) == [hindi]  # an optional language may be missing


def test_a_language_that_does_not_occur_is_told_with_those_that_do() -> None:
    with pytest.raises(CapivaraError, match=r"no caption in xh: the data has en \(2\), hi \(1\)") as caught:
        with_captions([record(en=["a", "b"], hi=["तारा"])], ["hi", "xh"])
    assert "--to xh -o FILE.jsonl makes them" in (caught.value.hint or "")
