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
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from capivara_cli.demo.scenes import Scene, Thing

TEMPLATES = 4
WORDS: dict[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
"""The content of language.yaml: language -> its templates and words."""


class Phrases(NamedTuple):
    """The parts of a scene's captions in one language."""

    things: tuple[str, str, str, str]
    """The first thing as each template needs it: its case or its possessive may differ."""
    last: str
    """The last thing as a relation needs it."""
    grounds: tuple[str, str, str, str]
    """The background as each template needs it."""


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
    words, parts = WORDS[lang], LANGUAGES[lang](scene)
    relation = words["relations"][scene.relation].format(parts.last) if scene.relation else ""
    thing, ground = parts.things[template], parts.grounds[template]
    text = words["patterns"][template].format(thing=thing, relation=relation, ground=ground)
    # Without a second thing, the pattern leaves a double space, or a space or comma before punctuation.
    return " ".join(text.split()).replace(" ,", ",").replace(" ;", ";").rstrip(" ,")


def _english(scene: Scene) -> Phrases:
    def name(thing: Thing) -> str:
        return f"a {thing.size} {thing.colour} {thing.shape}"

    ground = f"a {scene.background} background"
    return Phrases((name(scene.things[0]),) * 4, name(scene.things[-1]), (ground, ground, ground, scene.background))


def _portuguese(scene: Scene) -> Phrases:
    words = WORDS["pt"]

    def name(thing: Thing) -> str:
        noun, gender = words["shapes"][thing.shape]
        form = "mf".index(gender)
        return f"{('um', 'uma')[form]} {noun} {words['colours'][thing.colour][form]} {words['sizes'][thing.size][form]}"

    bare = words["grounds"][scene.background]
    ground = f"fundo {bare}"
    return Phrases((name(scene.things[0]),) * 4, name(scene.things[-1]), (ground, ground, ground, bare))


def _hindi(scene: Scene) -> Phrases:
    words = WORDS["hi"]

    def name(thing: Thing, *, oblique: bool) -> str:
        direct, bent, gender = words["shapes"][thing.shape]
        form = 2 if gender == "f" else int(oblique)
        size, colour = words["sizes"][thing.size][form], words["colours"][thing.colour][form]
        return f"एक {size} {colour} {bent if oblique else direct}"

    first = name(scene.things[0], oblique=False)
    of_first = name(scene.things[0], oblique=True)  # before का
    bare = words["grounds"][scene.background]
    ground = f"{bare} पृष्ठभूमि"
    last = name(scene.things[-1], oblique=True)  # before के
    return Phrases((first, of_first, first, first), last, (ground, ground, ground, bare))


def _xhosa(scene: Scene) -> Phrases:
    words = WORDS["xh"]

    def name(thing: Thing, concord: str = "") -> str:
        noun, noun_class = words["shapes"][thing.shape]
        colour = words["colours"][thing.colour]
        hyphen = "-" if colour[0] == "o" else ""  # a loanword's vowel does not fuse: e-orenji
        head = _fuse(concord, noun, noun_class) if concord else noun
        size, relative = words["sizes"][thing.size][noun_class], words["concords"][noun_class]
        return f"{head} {size} {relative}{hyphen}{colour}"

    first = name(scene.things[0])
    stem = words["grounds"][scene.background]
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


LANGUAGES: dict[str, Callable[[Scene], Phrases]] = {"en": _english, "pt": _portuguese, "hi": _hindi, "xh": _xhosa}


def _dictionary_form(word: str | list[str]) -> str:
    return word if isinstance(word, str) else word[0]


NAMES: dict[str, dict[str, str]] = {
    lang: {word: _dictionary_form(forms) for word, forms in (words["shapes"] | words["colours"]).items()}
    for lang, words in WORDS.items()
}
"""Language -> English word for a shape or a colour -> the word for it, in its dictionary form."""
