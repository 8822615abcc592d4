from __future__ import annotations

import itertools
from typing import Any

import pytest

from capivara_cli.demo.language import LANGUAGES, TEMPLATES, caption
from capivara_cli.demo.scenes import BACKGROUNDS, COLOURS, SHAPES, SIZES, Scene, Thing, all_scenes

EVERYTHING = list(itertools.product(LANGUAGES, range(TEMPLATES)))
SCENES = [scene for scene in all_scenes() if scene.background == "white" or scene.relation is None]


def single(shape: Any, colour: Any, size: Any, background: Any = "white") -> Scene:
    return Scene(background, (Thing(shape, colour, size),))


def pair(first: tuple[Any, Any, Any], second: tuple[Any, Any, Any], relation: Any, background: Any = "white") -> Scene:
    return Scene(background, (Thing(*first), Thing(*second)), relation)


@pytest.mark.parametrize(("lang", "template"), EVERYTHING)
def test_a_caption_is_tidy(lang: str, template: int) -> None:
    for scene in SCENES[::7]:
        text = caption(scene, lang, template)
        assert text == " ".join(text.split())
        assert not set(text) & set("{}")
        assert not any(part in text for part in (" ,", " ;", ",,", ",;"))
        assert text[-1] not in ",; "


@pytest.mark.parametrize(("lang", "template"), EVERYTHING)
def test_distinct_scenes_have_distinct_captions(lang: str, template: int) -> None:
    assert len({caption(scene, lang, template) for scene in SCENES}) == len(SCENES)


@pytest.mark.parametrize(("lang", "template"), EVERYTHING)
def test_backgrounds_are_told_apart(lang: str, template: int) -> None:
    scenes = [pair(("star", "red", "small"), ("drop", "blue", "large"), "left", ground) for ground in BACKGROUNDS]
    assert len({caption(scene, lang, template) for scene in scenes}) == len(BACKGROUNDS)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_templates_of_a_language_differ(lang: str) -> None:
    assert len({caption(single("star", "red", "small"), lang, template) for template in range(TEMPLATES)}) == TEMPLATES


@pytest.mark.parametrize("lang", LANGUAGES)
def test_all_shapes_colours_and_sizes_have_their_words(lang: str) -> None:
    texts = {caption(single(*parts), lang, 0) for parts in itertools.product(SHAPES, COLOURS, SIZES)}
    assert len(texts) == len(SHAPES) * len(COLOURS) * len(SIZES)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (0, "a small blue star to the left of a large orange drop on a grey background"),
        (1, "a picture of a small blue star to the left of a large orange drop, with a grey background"),
        (2, "there is a small blue star on a grey background, to the left of a large orange drop"),
        (3, "the image shows a small blue star to the left of a large orange drop; the background is grey"),
    ],
)
def test_english_says_it_in_four_ways(template: int, text: str) -> None:
    scene = pair(("star", "blue", "small"), ("drop", "orange", "large"), "left", "grey")
    assert caption(scene, "en", template) == text


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (0, "a large green triangle on a black background"),
        (1, "a picture of a large green triangle, with a black background"),
        (2, "there is a large green triangle on a black background"),
        (3, "the image shows a large green triangle; the background is black"),
    ],
)
def test_one_thing_leaves_no_trace_of_a_second(template: int, text: str) -> None:
    assert caption(single("triangle", "green", "large", "black"), "en", template) == text


@pytest.mark.parametrize(
    ("shape", "phrase"),
    [
        ("circle", "um círculo roxo pequeno"),
        ("square", "um quadrado roxo pequeno"),
        ("triangle", "um triângulo roxo pequeno"),
        ("star", "uma estrela roxa pequena"),
        ("cross", "uma cruz roxa pequena"),
        ("drop", "uma gota roxa pequena"),
    ],
)
def test_portuguese_agrees_in_gender(shape: str, phrase: str) -> None:
    assert caption(single(shape, "purple", "small"), "pt", 0) == f"{phrase} sobre um fundo branco"


def test_portuguese_adjectives_of_one_form_do_not_bend() -> None:
    assert caption(single("star", "blue", "large"), "pt", 2) == "há uma estrela azul grande sobre um fundo branco"


@pytest.mark.parametrize(
    ("shape", "direct", "oblique"),
    [
        ("star", "एक छोटा नीला तारा", "एक छोटे नीले तारे"),  # masculine, in -ā: all three bend
        ("circle", "एक छोटा नीला वृत्त", "एक छोटे नीले वृत्त"),  # masculine, ends in a consonant: the noun stays
        ("drop", "एक छोटी नीली बूँद", "एक छोटी नीली बूँद"),  # feminine: nothing bends
    ],
)
def test_hindi_bends_before_a_postposition(shape: str, direct: str, oblique: str) -> None:
    first = single(shape, "blue", "small")
    second = pair(("cross", "red", "large"), (shape, "blue", "small"), "above")
    assert caption(first, "hi", 0) == f"सफ़ेद पृष्ठभूमि पर {direct}"
    assert caption(first, "hi", 1).startswith(f"{oblique} का चित्र")
    assert caption(first, "hi", 2) == f"सफ़ेद पृष्ठभूमि पर {direct} है"
    assert f"{oblique} के ऊपर एक बड़ा लाल क्रॉस" in caption(second, "hi", 0)


def test_hindi_names_the_background_as_a_feminine_noun() -> None:
    assert caption(single("star", "red", "small", "black"), "hi", 3).endswith("पृष्ठभूमि काली है")


@pytest.mark.parametrize(
    ("shape", "phrase", "of", "at"),
    [
        ("circle", "isangqa esincinci esibomvu", "wesangqa", "kwesangqa"),  # class 7
        ("square", "isikwere esincinci esibomvu", "wesikwere", "kwesikwere"),  # class 7
        ("triangle", "unxantathu omncinci obomvu", "kanxantathu", "kukanxantathu"),  # class 1a
        ("star", "inkwenkwezi encinci ebomvu", "wenkwenkwezi", "kwenkwenkwezi"),  # class 9
        ("cross", "umnqamlezo omncinci obomvu", "womnqamlezo", "komnqamlezo"),  # class 3
        ("drop", "ithontsi elincinci elibomvu", "wethontsi", "kwethontsi"),  # class 5
    ],
)
def test_xhosa_agrees_in_class_and_fuses_its_vowels(shape: str, phrase: str, of: str, at: str) -> None:
    adjectives = phrase.split(maxsplit=1)[1]
    second = pair(("star", "pink", "large"), (shape, "red", "small"), "left")
    assert caption(single(shape, "red", "small"), "xh", 0) == f"{phrase} kumva omhlophe"
    assert caption(single(shape, "red", "small"), "xh", 1) == f"umfanekiso {of} {adjectives}, onomva omhlophe"
    assert f"ngasekhohlo {at} {adjectives} kumva" in caption(second, "xh", 0)


def test_a_xhosa_loanword_keeps_its_vowel_apart() -> None:
    assert "inkwenkwezi enkulu e-orenji" in caption(single("star", "orange", "large"), "xh", 0)


def test_a_xhosa_background_is_an_attribute_or_a_predicate() -> None:
    scene = single("star", "red", "small", "black")
    assert caption(scene, "xh", 2).endswith("kumva omnyama")
    assert caption(scene, "xh", 3).endswith("umva umnyama")


def test_another_language_or_template_is_an_error() -> None:
    scene = single("star", "red", "small")
    with pytest.raises(KeyError):
        caption(scene, "de", 0)
    with pytest.raises(IndexError):
        caption(scene, "en", TEMPLATES)
