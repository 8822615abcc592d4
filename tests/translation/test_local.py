"""Local models against their libraries' own `generate`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from capivara_cli.demo import TRANSLATOR
from capivara_cli.demo.translator import CODES, exactness
from capivara_cli.errors import CapivaraError
from capivara_cli.runtime import Runtime
from capivara_cli.translation.local import CTranslate2, Local
from capivara_cli.translation.options import TranslateOptions
from tests import small_models
from tests.translation.conftest import expected


def local(folder: Path, kind: type[Local] = Local, **others: Any) -> Local:
    options: dict[str, Any] = {"backend": "nllb", "model": str(folder)} | others
    return kind(TranslateOptions(to=["hi"], **options), "hi", Runtime("cpu", "fp32"))


@pytest.mark.parametrize("family", ["m2m100", "madlad", "marian", "marian-many"])
def test_every_family_is_told_the_language_in_its_own_way(family: str, tmp_path: Path) -> None:
    folder = getattr(small_models, family.replace("-", "_"))(tmp_path / "model")
    translator = local(folder, backend=family.removesuffix("-many"), batch_tokens=64)
    texts = [text for text in small_models.TEXTS if text]
    got = dict(translator.translate(texts, "hi"))
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSeq2SeqLM.from_pretrained(folder)
    start = {"madlad": "<2hi> ", "marian-many": ">>hin<< "}.get(family, "")
    generation: dict[str, Any] = {}
    if family == "m2m100":
        tokenizer.src_lang = "en"
        generation["forced_bos_token_id"] = tokenizer.get_lang_id("hi")
    for i, text in enumerate(texts):
        tokens = model.generate(**tokenizer(start + text, return_tensors="pt"), do_sample=False, **generation)
        assert got[i] == tokenizer.decode(tokens[0], skip_special_tokens=True)
    if family in ("madlad", "marian-many"):
        with pytest.raises(CapivaraError, match="so it does not know xh"):
            list(translator.translate(texts, "xh"))


def test_out_of_memory_halves_the_batch(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    translator = local(model, batch_tokens=2000)
    texts = [text for number in range(30) for text in expected(number, "en")]
    free = dict(translator.translate(texts, "hi"))
    generate = Local._generate

    def tight(self: Local, model: Any, tokenizer: Any, tokens: list[list[int]], *others: Any) -> list[str]:
        if len(tokens) > 7:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        return generate(self, model, tokenizer, tokens, *others)

    monkeypatch.setattr(Local, "_generate", tight)
    assert dict(translator.translate(texts, "hi")) == free


def test_another_model_in_the_same_folder_has_its_own_cache(model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "translator"))
    before = local(folder).identity()
    assert local(folder).identity() == before
    assert local(folder, CTranslate2).identity() != before
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    assert local(folder).identity() != before


def test_the_demos_translator_is_right_and_small() -> None:
    assert min(exactness(TRANSLATOR, count=120).values()) >= 0.99
    assert (TRANSLATOR / "model.safetensors").stat().st_size <= 2_500_000
    assert set(CODES) == {"en", "pt", "hi", "xh"}
