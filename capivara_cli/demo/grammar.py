"""How the demo's scenes are described in English, Portuguese, Hindi and Xhosa.

Four aligned templates a language, with the agreement that makes each language itself: gender in Portuguese,
gender and oblique case in Hindi, noun classes in Xhosa.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

SHAPES = ("circle", "square", "triangle", "star", "cross", "bar")
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "black", "pink")
SIZES = ("small", "large")
RELATIONS = ("left", "above")
TEMPLATES = 4


@dataclass(frozen=True, order=True)
class Thing:
    """One object of a scene."""

    shape: str
    colour: str
    size: str


def english(things: tuple[Thing, ...], relation: str, template: int) -> str:
    """`a small red circle left of a large blue square`."""
    names = [f"a {thing.size} {thing.colour} {thing.shape}" for thing in things]
    scene = {"left": " left of ", "above": " above "}[relation].join(names)
    return ("{}", "a picture of {}", "here we see {}", "in the scene there is {}")[template].format(scene)


# noun, gender
_PT_SHAPES = {
    "circle": ("círculo", "m"),
    "square": ("quadrado", "m"),
    "triangle": ("triângulo", "m"),
    "star": ("estrela", "f"),
    "cross": ("cruz", "f"),
    "bar": ("barra", "f"),
}
# masculine, feminine
_PT_COLOURS = {
    "red": ("vermelho", "vermelha"),
    "green": ("verde", "verde"),
    "blue": ("azul", "azul"),
    "yellow": ("amarelo", "amarela"),
    "purple": ("roxo", "roxa"),
    "orange": ("laranja", "laranja"),
    "black": ("preto", "preta"),
    "pink": ("rosa", "rosa"),
}
_PT_SIZES = {"small": ("pequeno", "pequena"), "large": ("grande", "grande")}


def portuguese(things: tuple[Thing, ...], relation: str, template: int) -> str:
    """`um pequeno círculo vermelho à esquerda de uma grande estrela azul`: adjectives agree in gender."""
    names = []
    for thing in things:
        noun, gender = _PT_SHAPES[thing.shape]
        form = "mf".index(gender)
        article = ("um", "uma")[form]
        names.append(f"{article} {_PT_SIZES[thing.size][form]} {noun} {_PT_COLOURS[thing.colour][form]}")
    scene = {"left": " à esquerda de ", "above": " acima de "}[relation].join(names)
    return ("{}", "uma imagem de {}", "aqui vemos {}", "na cena há {}")[template].format(scene)


# direct form, oblique form, gender
_HI_SHAPES = {
    "circle": ("वृत्त", "वृत्त", "m"),
    "square": ("वर्ग", "वर्ग", "m"),
    "triangle": ("त्रिभुज", "त्रिभुज", "m"),
    "star": ("तारा", "तारे", "m"),
    "cross": ("क्रॉस", "क्रॉस", "m"),
    "bar": ("पट्टी", "पट्टी", "f"),
}
# masculine direct, masculine oblique, feminine
_HI_COLOURS = {
    "red": ("लाल", "लाल", "लाल"),
    "green": ("हरा", "हरे", "हरी"),
    "blue": ("नीला", "नीले", "नीली"),
    "yellow": ("पीला", "पीले", "पीली"),
    "purple": ("बैंगनी", "बैंगनी", "बैंगनी"),
    "orange": ("नारंगी", "नारंगी", "नारंगी"),
    "black": ("काला", "काले", "काली"),
    "pink": ("गुलाबी", "गुलाबी", "गुलाबी"),
}
_HI_SIZES = {"small": ("छोटा", "छोटे", "छोटी"), "large": ("बड़ा", "बड़े", "बड़ी")}


def hindi(things: tuple[Thing, ...], relation: str, template: int) -> str:
    """`एक बड़ी नीली पट्टी के बाईं ओर एक छोटा लाल वृत्त`: before a postposition nouns and adjectives are oblique."""
    first = _hindi_name(things[0], oblique=template == 1)
    scene = first
    if len(things) == 2:
        place = {"left": "के बाईं ओर", "above": "के ऊपर"}[relation]
        scene = f"{_hindi_name(things[1], oblique=True)} {place} {first}"
    seen = "दिखती" if _HI_SHAPES[things[0].shape][2] == "f" else "दिखता"
    return ("{}", "{} की एक तस्वीर", f"यहाँ {{}} {seen} है", "दृश्य में {} है")[template].format(scene)


def _hindi_name(thing: Thing, *, oblique: bool) -> str:
    direct, bent, gender = _HI_SHAPES[thing.shape]
    form = 2 if gender == "f" else int(oblique)
    return f"एक {_HI_SIZES[thing.size][form]} {_HI_COLOURS[thing.colour][form]} {bent if oblique else direct}"


# noun, noun class; then the noun after `kwa-` (of a place) and after `wa-` (a picture of)
_XH_SHAPES = {
    "circle": ("isangqa", 7, "kwesangqa", "wesangqa"),
    "square": ("isikwere", 7, "kwesikwere", "wesikwere"),
    "triangle": ("unxantathu", 1, "kukanxantathu", "kanxantathu"),
    "star": ("inkwenkwezi", 9, "kwenkwenkwezi", "wenkwenkwezi"),
    "cross": ("umnqamlezo", 3, "komnqamlezo", "womnqamlezo"),
    "bar": ("umgca", 3, "komgca", "womgca"),
}
_XH_COLOURS = {
    "red": "bomvu",
    "green": "luhlaza",
    "blue": "blowu",
    "yellow": "mthubi",
    "purple": "mfusa",
    "orange": "orenji",
    "black": "mnyama",
    "pink": "pinki",
}
_XH_RELATIVE = {1: "o", 3: "o", 7: "esi", 9: "e"}
_XH_SIZES = {
    "small": {1: "omncinci", 3: "omncinci", 7: "esincinci", 9: "encinci"},
    "large": {1: "omkhulu", 3: "omkhulu", 7: "esikhulu", 9: "enkulu"},
}


def xhosa(things: tuple[Thing, ...], relation: str, template: int) -> str:
    """`isangqa esincinci esibomvu ngasekhohlo komgca omkhulu oblowu`: concords follow the noun's class."""
    names = [_xhosa_name(things[0], 3 if template == 1 else 0)]
    names += [_xhosa_name(thing, 2) for thing in things[1:]]
    scene = {"left": " ngasekhohlo ", "above": " ngaphezu "}[relation].join(names)
    return ("{}", "umfanekiso {}", "apha sibona {}", "kulo mboniso kukho {}")[template].format(scene)


def _xhosa_name(thing: Thing, form: int) -> str:
    shape = _XH_SHAPES[thing.shape]
    number = shape[1]
    return f"{shape[form]} {_XH_SIZES[thing.size][number]} {_XH_RELATIVE[number]}{_XH_COLOURS[thing.colour]}"


DESCRIBE: dict[str, Callable[[tuple[Thing, ...], str, int], str]] = {
    "en": english,
    "pt": portuguese,
    "hi": hindi,
    "xh": xhosa,
}
