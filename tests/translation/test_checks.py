"""Texts that cannot be translations are rejected; those that a person would write are not."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from capivara_cli.data.languages import Language, find
from capivara_cli.demo.language import caption
from capivara_cli.demo.scenes import held_out_scenes
from capivara_cli.translation.checks import problem


def language(code: str) -> Language:
    known = find(code)
    assert known is not None
    return known


def verdict(source: str, text: str, target: str, origin: str = "en") -> str | None:
    return problem(source, text, language(origin), language(target))


@pytest.mark.parametrize(
    ("source", "text", "target"),
    [
        ("a dog on a beach", "समुद्र तट पर एक कुत्ता", "hi"),
        ("a piano", "piano", "pt"),
        ("New York City", "New York City", "pt"),
        ("a TV", "टीवी", "hi"),
        ("an Apple iPhone on a table", "मेज़ पर एक Apple iPhone", "hi"),
        ("no no no no way", "não não não não mesmo", "pt"),
        ("a photo of a {}.", "एक {} की तस्वीर।", "hi"),
        ("a {c} and a {c}", "um {c} e um {c}", "pt"),
        ("12:30", "12:30", "hi"),
        ("a cat sleeping on the sofa in the living room", "猫在沙发上睡觉", "zh"),
        ("a dog runs", "犬が走っている", "ja"),
        ("a dog runs", "개가 달린다", "ko"),
        ("a dog", "inja", "xh"),
        ("ha ha", "हा हा", "hi"),
        ("fish", "peixe dourado", "pt"),
        ("a dog", "пас", "sr"),
        ("a very big dog", "um cachorro muito muito muito grande", "pt"),  # three times is emphasis
        ("a cat on a mat", "um gato um gato um gato no tapete", "pt"),
    ],
)
def test_a_translation_passes(source: str, text: str, target: str) -> None:
    assert verdict(source, text, target) is None


@pytest.mark.parametrize(
    ("source", "text", "target", "reason"),
    [
        ("a dog", "", "hi", "empty"),
        ("a dog", " \n", "hi", "empty"),
        ("a dog on a beach", "a dog on a beach", "hi", "not translated"),
        ("a dog on a beach", "A dog, on a beach!", "pt", "not translated"),
        ("a dog", "a dog", "hi", "0% of its letters"),
        ("a dog on a beach", "a dog एक on a beach", "hi", "of its letters are of Hindi's script"),
        ("a dog", "собака", "pt", "of its letters"),
        ("a dog", "123", "hi", "no letters"),
        ("a photo of a {c}", "एक तस्वीर", "hi", "placeholders"),
        ("a photo of a {c}", "{ c } की एक तस्वीर", "hi", "placeholders"),
        ("a photo of a {}", "{c} की तस्वीर", "hi", "placeholders"),
        ("a dog", "एक कुत्ता " * 8, "hi", "characters for 5"),
        ("a long sentence about a dog", "ए", "hi", "1 characters for 27"),
        ("a cat sits on the mat today", "बिल्ली बिल्ली बिल्ली बिल्ली चटाई", "hi", "one word again"),
        ("a cat on a mat", "um gato um gato um gato um gato", "pt", "one word again"),
        ("a very big dog", "um cachorro muito muito muito muito grande", "pt", "one word again"),
        ("a cat on a mat", "猫猫猫猫猫猫猫猫", "zh", "one sound again"),
        ("a dog", "कु\ufffdत्ता", "hi", "broken characters"),
        ("a dog", "कुत्ता\x00", "hi", "broken characters"),
    ],
)
def test_another_text_is_rejected_with_the_reason(source: str, text: str, target: str, reason: str) -> None:
    assert reason in (verdict(source, text, target) or "")


@pytest.mark.parametrize("lang", ["pt", "hi", "xh"])
def test_translations_of_the_demos_world_pass_and_its_english_does_not(lang: str) -> None:
    for number, scene in enumerate(held_out_scenes(400, random.Random(0))):
        english, translation = (caption(scene, code, number % 4) for code in ("en", lang))
        assert verdict(english, translation, lang) is None
        assert verdict(english, english, lang) is not None


@pytest.mark.skipif(
    "CAPIVARA_EMOJI" not in os.environ, reason="CAPIVARA_EMOJI does not name a folder with human captions"
)
def test_human_captions_pass_and_english_ones_as_hindi_do_not() -> None:
    """`train.jsonl` and `test.jsonl` in that folder have captions in en, pt and hi, in the same order."""
    passed = total = 0
    for name in ("train", "test"):
        for line in (Path(os.environ["CAPIVARA_EMOJI"]) / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            captions = json.loads(line)["captions"]
            texts = {lang: [c["text"] for c in captions if c["lang"] == lang] for lang in ("en", "pt", "hi")}
            for lang in ("pt", "hi"):
                verdicts = [verdict(e, text, lang) for e, text in zip(texts["en"], texts[lang], strict=False)]
                passed += verdicts.count(None)
                total += len(verdicts)
            for english in texts["en"]:
                assert not any(c.isalpha() for c in english) or verdict(english, english, "hi")
    assert total > 1000
    assert passed / total >= 0.995
