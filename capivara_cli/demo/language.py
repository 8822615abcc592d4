"""Captions of the demo world in four languages, from four aligned templates, with correct agreement.

Template n says the same in every language, so the Portuguese, Hindi and Xhosa captions of a scene are translations of
the English one. What agrees with what:

    pt  article, colour and size with the noun's gender
    hi  colour and size with gender and case; before a postposition a noun is oblique (तारा, तारे का)
    xh  colour (relative concord) and size (adjectival concord) with the noun's class; possessives
        and locatives fuse with the noun's first vowel (isangqa, wesangqa, kwesangqa)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from capivara_cli.demo.scenes import Relation, Scene, Thing

TEMPLATES = 4


class Phrases(NamedTuple):
    """The parts of a scene's captions in one language."""

    things: tuple[str, str, str, str]
    """The first thing as each template needs it: its case or its possessive may differ."""
    last: str
    """The last thing as a relation needs it."""
    grounds: tuple[str, str, str, str]
    """The background as each template needs it."""


class Language(NamedTuple):
    """How to describe scenes in a language."""

    patterns: tuple[str, str, str, str]
    """The templates."""
    relations: dict[Relation, str]
    """How the first thing is related to the last one, `{}`."""
    phrases: Callable[[Scene], Phrases]


def caption(scene: Scene, lang: str, template: int = 0) -> str:
    """Describe a scene.

    Args:
        scene: what to describe.
        lang: en, pt, hi or xh.
        template: 0 to 3; the same number says the same in every language.

    Raises:
        KeyError: another language.
        IndexError: another template.
    """
    language = LANGUAGES[lang]
    parts = language.phrases(scene)
    relation = language.relations[scene.relation].format(parts.last) if scene.relation else ""
    thing, ground = parts.things[template], parts.grounds[template]
    text = language.patterns[template].format(thing=thing, relation=relation, ground=ground)
    # Without a second thing, the pattern leaves a double space, or a space or comma before punctuation.
    return " ".join(text.split()).replace(" ,", ",").replace(" ;", ";").rstrip(" ,")


# English

_EN_PATTERNS = (
    "{thing} {relation} on {ground}",
    "a picture of {thing} {relation}, with {ground}",
    "there is {thing} on {ground}, {relation}",
    "the image shows {thing} {relation}; the background is {ground}",
)
_EN_RELATIONS: dict[Relation, str] = {"left": "to the left of {}", "above": "above {}"}


def _english(scene: Scene) -> Phrases:
    def name(thing: Thing) -> str:
        return f"a {thing.size} {thing.colour} {thing.shape}"

    ground = f"a {scene.background} background"
    return Phrases((name(scene.things[0]),) * 4, name(scene.things[-1]), (ground, ground, ground, scene.background))


# Portuguese, as in Brazil: masculine and feminine forms

_PT_PATTERNS = (
    "{thing} {relation} sobre um {ground}",
    "uma figura de {thing} {relation}, com {ground}",
    "há {thing} sobre um {ground}, {relation}",
    "a imagem mostra {thing} {relation}; o fundo é {ground}",
)
_PT_RELATIONS: dict[Relation, str] = {"left": "à esquerda de {}", "above": "acima de {}"}
_PT_NOUNS = {
    "circle": ("círculo", "m"),
    "square": ("quadrado", "m"),
    "triangle": ("triângulo", "m"),
    "star": ("estrela", "f"),
    "cross": ("cruz", "f"),
    "drop": ("gota", "f"),
}
_PT_ADJECTIVES = {
    "small": ("pequeno", "pequena"),
    "large": ("grande", "grande"),
    "red": ("vermelho", "vermelha"),
    "blue": ("azul", "azul"),
    "green": ("verde", "verde"),
    "yellow": ("amarelo", "amarela"),
    "orange": ("laranja", "laranja"),
    "purple": ("roxo", "roxa"),
    "pink": ("rosa", "rosa"),
    "brown": ("marrom", "marrom"),
}
_PT_GROUNDS = {"white": "branco", "grey": "cinza", "black": "preto"}  # with fundo, masculine


def _portuguese(scene: Scene) -> Phrases:
    def name(thing: Thing) -> str:
        noun, gender = _PT_NOUNS[thing.shape]
        form = "mf".index(gender)
        colour, size = (_PT_ADJECTIVES[word][form] for word in (thing.colour, thing.size))
        return f"{('um', 'uma')[form]} {noun} {colour} {size}"

    bare = _PT_GROUNDS[scene.background]
    ground = f"fundo {bare}"
    return Phrases((name(scene.things[0]),) * 4, name(scene.things[-1]), (ground, ground, ground, bare))


# Hindi: masculine, masculine oblique and feminine forms

_HI_PATTERNS = (
    "{ground} पर {relation} {thing}",
    "{relation} {thing} का चित्र, {ground} के साथ",
    "{ground} पर {thing} है, {relation}",
    "चित्र में {relation} {thing} है; पृष्ठभूमि {ground} है",
)
_HI_RELATIONS: dict[Relation, str] = {"left": "{} के बाईं ओर", "above": "{} के ऊपर"}
_HI_NOUNS = {  # direct, oblique, gender
    "circle": ("वृत्त", "वृत्त", "m"),
    "square": ("वर्ग", "वर्ग", "m"),
    "triangle": ("त्रिभुज", "त्रिभुज", "m"),
    "star": ("तारा", "तारे", "m"),
    "cross": ("क्रॉस", "क्रॉस", "m"),
    "drop": ("बूँद", "बूँद", "f"),
}
_HI_ADJECTIVES = {
    "small": ("छोटा", "छोटे", "छोटी"),
    "large": ("बड़ा", "बड़े", "बड़ी"),
    "red": ("लाल", "लाल", "लाल"),
    "blue": ("नीला", "नीले", "नीली"),
    "green": ("हरा", "हरे", "हरी"),
    "yellow": ("पीला", "पीले", "पीली"),
    "orange": ("नारंगी", "नारंगी", "नारंगी"),
    "purple": ("बैंगनी", "बैंगनी", "बैंगनी"),
    "pink": ("गुलाबी", "गुलाबी", "गुलाबी"),
    "brown": ("भूरा", "भूरे", "भूरी"),
}
_HI_GROUNDS = {"white": "सफ़ेद", "grey": "स्लेटी", "black": "काली"}  # with पृष्ठभूमि, feminine


def _hindi(scene: Scene) -> Phrases:
    def name(thing: Thing, *, oblique: bool) -> str:
        direct, bent, gender = _HI_NOUNS[thing.shape]
        form = 2 if gender == "f" else int(oblique)
        size, colour = (_HI_ADJECTIVES[word][form] for word in (thing.size, thing.colour))
        return f"एक {size} {colour} {bent if oblique else direct}"

    first = name(scene.things[0], oblique=False)
    of_first = name(scene.things[0], oblique=True)  # before का
    bare = _HI_GROUNDS[scene.background]
    ground = f"{bare} पृष्ठभूमि"
    last = name(scene.things[-1], oblique=True)  # before के
    return Phrases((first, of_first, first, first), last, (ground, ground, ground, bare))


# Xhosa: noun classes

_XH_PATTERNS = (
    "{thing} {relation} kumva {ground}",
    "umfanekiso {thing} {relation}, onomva {ground}",
    "kukho {thing} kumva {ground}, {relation}",
    "umfanekiso ubonisa {thing} {relation}; umva {ground}",
)
_XH_RELATIONS: dict[Relation, str] = {"left": "ngasekhohlo {}", "above": "ngaphezulu {}"}
_XH_NOUNS = {
    "circle": ("isangqa", "7"),
    "square": ("isikwere", "7"),
    "triangle": ("unxantathu", "1a"),
    "star": ("inkwenkwezi", "9"),
    "cross": ("umnqamlezo", "3"),
    "drop": ("ithontsi", "5"),
}
_XH_RELATIVE = {"1a": "o", "3": "o", "5": "eli", "7": "esi", "9": "e"}
_XH_SIZES = {
    "small": {"1a": "omncinci", "3": "omncinci", "5": "elincinci", "7": "esincinci", "9": "encinci"},
    "large": {"1a": "omkhulu", "3": "omkhulu", "5": "elikhulu", "7": "esikhulu", "9": "enkulu"},
}
_XH_COLOURS = {
    "red": "bomvu",
    "blue": "luhlaza okwesibhakabhaka",  # one word for both: as the sky,
    "green": "luhlaza okwengca",  # as grass
    "yellow": "mthubi",
    "orange": "orenji",
    "purple": "mfusa",
    "pink": "pinki",
    "brown": "mdaka",
}
_XH_GROUNDS = {"white": "mhlophe", "grey": "ngwevu", "black": "mnyama"}  # with umva, class 3


def _xhosa(scene: Scene) -> Phrases:
    def name(thing: Thing, concord: str = "") -> str:
        noun, noun_class = _XH_NOUNS[thing.shape]
        colour = _XH_COLOURS[thing.colour]
        hyphen = "-" if colour[0] == "o" else ""  # a loanword's vowel does not fuse: e-orenji
        head = _fuse(concord, noun, noun_class) if concord else noun
        return f"{head} {_XH_SIZES[thing.size][noun_class]} {_XH_RELATIVE[noun_class]}{hyphen}{colour}"

    first = name(scene.things[0])
    stem = _XH_GROUNDS[scene.background]
    # "o" makes it an attribute (a white background), "u" a predicate (the background is white).
    grounds = (f"o{stem}", f"o{stem}", f"o{stem}", f"u{stem}")
    return Phrases((first, name(scene.things[0], "wa"), first, first), name(scene.things[-1], "kwa"), grounds)


def _fuse(concord: str, noun: str, noun_class: str) -> str:
    """Join `wa` (of) or `kwa` (at, of a place) to a noun: a + i is e, a + u is o; class 1a differs."""
    if noun_class == "1a":
        return {"wa": "ka", "kwa": "kuka"}[concord] + noun[1:]
    if noun[0] == "i":
        return f"{concord[:-1]}e{noun[1:]}"
    return {"wa": "wo", "kwa": "ko"}[concord] + noun[1:]


LANGUAGES = {
    "en": Language(_EN_PATTERNS, _EN_RELATIONS, _english),
    "pt": Language(_PT_PATTERNS, _PT_RELATIONS, _portuguese),
    "hi": Language(_HI_PATTERNS, _HI_RELATIONS, _hindi),
    "xh": Language(_XH_PATTERNS, _XH_RELATIONS, _xhosa),
}

NAMES: dict[str, dict[str, str]] = {
    "en": {word: word for word in (*_PT_NOUNS, *_XH_COLOURS)},
    "pt": {word: forms[0] for word, forms in (_PT_NOUNS | _PT_ADJECTIVES).items()},
    "hi": {word: forms[0] for word, forms in (_HI_NOUNS | _HI_ADJECTIVES).items()},
    "xh": {word: noun for word, (noun, _) in _XH_NOUNS.items()} | _XH_COLOURS,
}
"""Language -> English word for a shape or a colour -> the word for it, in its dictionary form."""
