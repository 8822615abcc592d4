"""The demo world: drawn scenes of one or two things, with captions in four languages.

    from capivara_cli.demo.world import write_world
    write_world(Path("world"), train=6000, test=500)

It is closed: 6 shapes, 8 colours, 2 sizes, 3 backgrounds and 2 relations make 55,008 meanings. About
one in eight is held out, always the same ones: the base CLIP beside this file never saw them either.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, get_args

from PIL import Image, ImageDraw

from capivara_cli.demo import language

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

Shape = Literal["circle", "square", "triangle", "star", "cross", "drop"]
Colour = Literal["red", "blue", "green", "yellow", "orange", "purple", "pink", "brown"]
Size = Literal["small", "large"]
Background = Literal["white", "grey", "black"]
Relation = Literal["left", "above"]

SHAPES: tuple[Shape, ...] = get_args(Shape)
COLOURS: tuple[Colour, ...] = get_args(Colour)
SIZES: tuple[Size, ...] = get_args(Size)
BACKGROUNDS: tuple[Background, ...] = get_args(Background)
RELATIONS: tuple[Relation, ...] = get_args(Relation)
LANGS = tuple(language.LANGUAGES)

IMAGE_SIZE = 64  # pixels
GRID = (16, 48)  # pixels, both ways: where things stand; placed freely, shapes are hard to learn
JITTER = 2  # pixels around the grid
RADII: dict[Size, int] = {"small": 7, "large": 13}  # pixels
STAMP = 32  # pixels: side of the square that a thing is drawn in
SMOOTH = 8  # drawn that many times larger and scaled down, for smooth edges
SHADE = 10  # colours vary by so much, of 255

RGB: dict[Colour, tuple[int, int, int]] = {
    "red": (220, 35, 35),
    "blue": (45, 85, 225),
    "green": (30, 150, 60),
    "yellow": (245, 220, 40),
    "orange": (250, 140, 25),
    "purple": (140, 50, 185),
    "pink": (250, 150, 200),
    "brown": (125, 75, 35),
}
GREYS: dict[Background, int] = {"white": 242, "grey": 165, "black": 14}

SINGLE = 0.15  # share of training scenes with one thing; a twentieth of the test scenes
HELD_OUT = 8  # one meaning in so many


@dataclass(frozen=True, order=True)
class Thing:
    """A coloured shape."""

    shape: Shape
    colour: Colour
    size: Size


@dataclass(frozen=True)
class Scene:
    """What a picture shows and its captions say. Where on the grid it stands is not part of it.

    Attributes:
        things: one, or two different ones.
        relation: of the first thing to the second; None when there is one thing.
    """

    background: Background
    things: tuple[Thing, ...]
    relation: Relation | None = None

    def swapped(self) -> Scene:
        """Put the two things in each other's place: the same words in another order."""
        return replace(self, things=self.things[::-1])

    @property
    def held_out(self) -> bool:
        """Whether it is for testing. A scene and its swapped one go together."""
        meaning = f"{self.background} {self.relation} {sorted(self.things)}"
        return hashlib.blake2b(meaning.encode(), digest_size=1).digest()[0] % HELD_OUT == 0


def all_scenes() -> Iterator[Scene]:
    """Go through every meaning there is, in a fixed order."""
    things = [Thing(*parts) for parts in itertools.product(SHAPES, COLOURS, SIZES)]
    for background in BACKGROUNDS:
        for thing in things:
            yield Scene(background, (thing,))
        for relation in RELATIONS:
            for pair in itertools.permutations(things, 2):
                yield Scene(background, pair, relation)


def training_scenes(rng: random.Random) -> Iterator[Scene]:
    """Draw meanings that are not held out, without end; one may come again.

    Each scene of two things is followed by its swapped one: from pairs that differ in nothing else a model
    learns to tell which thing is where. In a random choice it hardly ever needs to.
    """
    while True:
        count = 1 if rng.random() < SINGLE else 2
        things = tuple(Thing(rng.choice(SHAPES), rng.choice(COLOURS), rng.choice(SIZES)) for _ in range(count))
        relation = rng.choice(RELATIONS) if count == 2 else None
        scene = Scene(rng.choice(BACKGROUNDS), things, relation)
        if len(set(things)) == count and not scene.held_out:
            yield scene
            if count == 2:
                yield scene.swapped()


def held_out_scenes(count: int, rng: random.Random) -> list[Scene]:
    """Draw distinct held-out meanings. Each scene of two things comes with its swapped one.

    Such hard negatives tell a model that knows which thing is where from one that knows only what is
    there; a random choice hardly holds any.

    Args:
        count: scenes; one in twenty, or one more, has one thing.
        rng: chooses, and orders them.

    Raises:
        ValueError: more than there are.
    """
    scenes = [scene for scene in all_scenes() if scene.held_out]
    rng.shuffle(scenes)
    singles = [scene for scene in scenes if scene.relation is None]
    pairs = [scene for scene in scenes if scene.relation and scene.things[0] < scene.things[1]]
    pairs = pairs[: (count - count // 20) // 2]
    chosen = [scene for pair in pairs for scene in (pair, pair.swapped())]
    chosen += singles[: count - len(chosen)]
    if len(chosen) != count:
        raise ValueError(f"{count} distinct held-out scenes, one in twenty of them with one thing")
    rng.shuffle(chosen)
    return chosen


def caption(scene: Scene, lang: str, template: int = 0) -> str:
    """Describe the scene.

    Args:
        scene: what to describe.
        lang: en, pt, hi or xh.
        template: 0 to 3; the same number says the same in every language.
    """
    return language.say(scene, lang, template)


def draw(scene: Scene, rng: random.Random) -> Image.Image:
    """Draw the scene, 64 x 64 pixels RGB. `rng` chooses the place, the jitter and the shades."""
    grey = _shade(GREYS[scene.background], rng)
    image = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), (grey, grey, grey))
    column, row = rng.choice(GRID), rng.choice(GRID)
    for number, thing in enumerate(scene.things):
        x = GRID[number] if scene.relation == "left" else column
        y = GRID[number] if scene.relation == "above" else row
        left, top = (at + rng.randint(-JITTER, JITTER) - STAMP // 2 for at in (x, y))
        red, green, blue = (_shade(value, rng) for value in RGB[thing.colour])
        image.paste((red, green, blue), (left, top), _stamp(thing.shape, RADII[thing.size]))
    return image


def _shade(value: int, rng: random.Random) -> int:
    return min(max(value + rng.randint(-SHADE, SHADE), 0), 255)


@lru_cache
def _stamp(shape: Shape, radius: int) -> Image.Image:
    """Draw a shape as a mask of STAMP x STAMP pixels; it reaches `radius` pixels from the middle."""
    side = STAMP * SMOOTH
    mask = Image.new("L", (side, side))
    pen = ImageDraw.Draw(mask)

    def at(*places: tuple[float, float]) -> list[tuple[float, float]]:
        return [(side / 2 + x * radius * SMOOTH, side / 2 + y * radius * SMOOTH) for x, y in places]

    if shape == "circle":
        pen.ellipse(at((-0.95, -0.95), (0.95, 0.95)), fill=255)
    elif shape == "square":
        pen.rectangle(at((-0.85, -0.85), (0.85, 0.85)), fill=255)
    elif shape == "triangle":
        pen.polygon(at((0, -1), (1, 0.8), (-1, 0.8)), fill=255)
    elif shape == "star":
        pen.polygon(at(*_star()), fill=255)
    elif shape == "cross":
        pen.rectangle(at((-0.3, -1), (0.3, 1)), fill=255)
        pen.rectangle(at((-1, -0.3), (1, 0.3)), fill=255)
    else:
        pen.ellipse(at((-0.65, -0.3), (0.65, 1)), fill=255)
        pen.polygon(at((0, -1), (0.58, 0.05), (-0.58, 0.05)), fill=255)
    return mask.resize((STAMP, STAMP), Image.Resampling.BOX)


def _star() -> list[tuple[float, float]]:
    """Give five points of the unit circle, the first at its top, with dents between them."""
    corners = [(math.pi * step / 5, 0.42 if step % 2 else 1.0) for step in range(10)]
    return [(length * math.sin(angle), -length * math.cos(angle)) for angle, length in corners]


def write_world(
    folder: Path, *, train: int = 6000, test: int = 500, seed: int = 0, captions: int = 2, captioned: bool = True
) -> None:
    """Write `train.jsonl`, `test.jsonl` and their pictures under `images/`.

    A training record has `captions` captions in each language, from different templates; a test
    record has one, which no other test record has. The English ones come first, and the others name
    theirs as `parent`. The label is the shape of the first thing.

    Args:
        folder: made if need be; files of these names in it are overwritten.
        train: training pictures.
        test: test pictures, see `held_out_scenes`.
        seed: of all that is drawn by lot: the same seed writes the same files.
        captions: 1 to 4.
        captioned: if not, the training records are in `scenes.jsonl` and have no captions: those are for a
            captioner and a translator to make.

    Raises:
        ValueError: more test pictures than held-out meanings, or more captions than templates.
    """
    rng = random.Random(seed)
    scenes = list(itertools.islice(training_scenes(rng), train))
    (folder / "images").mkdir(parents=True, exist_ok=True)
    _write_part(folder / "test.jsonl", "test", held_out_scenes(test, rng), 1, rng)
    if captioned:
        _write_part(folder / "train.jsonl", "train", scenes, captions, rng)
    else:
        _write_part(folder / "scenes.jsonl", "train", scenes, 0, rng)


def _write_part(path: Path, name: str, scenes: Sequence[Scene], captions: int, rng: random.Random) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for number, scene in enumerate(scenes):
            key = f"{name}-{number:05d}"
            draw(scene, rng).save(path.parent / "images" / f"{key}.png", compress_level=1)
            record = {
                "id": key,
                "image": f"images/{key}.png",
                "captions": _captions(scene, rng.sample(range(language.TEMPLATES), captions)),
                "label": scene.things[0].shape,
            }
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def _captions(scene: Scene, templates: Sequence[int]) -> list[dict[str, Any]]:
    """Captions of one scene: the English ones, then each other language's in the same order."""
    return [
        {"text": caption(scene, lang, template), "lang": lang, "source": "template"}
        | ({} if lang == "en" else {"parent": parent})
        for lang in LANGS
        for parent, template in enumerate(templates)
    ]


def write_classes(folder: Path, *, each: int = 8, seed: int = 0) -> None:
    """Write `shapes.jsonl` and `colours.jsonl`, pictures of one thing to classify, and class files of those names.

    Args:
        folder: with `images/` in it.
        each: pictures of each meaning that is held out.
        seed: of all that is drawn by lot.
    """
    import yaml

    rng = random.Random(seed)
    scenes = [scene for scene in all_scenes() if scene.relation is None and scene.held_out]
    records = []
    for number, scene in enumerate(scene for scene in scenes for _ in range(each)):
        key = f"single-{number:05d}"
        draw(scene, rng).save(folder / "images" / f"{key}.png", compress_level=1)
        records.append((key, scene.things[0]))
    for name, words, kind in (("shapes", SHAPES, "shape"), ("colours", COLOURS, "colour")):
        lines = [{"id": key, "image": f"images/{key}.png", "label": getattr(thing, kind)} for key, thing in records]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8", newline="\n")
        singles = [scene for scene in all_scenes() if scene.relation is None]
        prompts = {
            lang: {word: [caption(s, lang) for s in singles if getattr(s.things[0], kind) == word] for word in words}
            for lang in LANGS
        }
        names = {lang: {word: language.NAMES[lang][word] for word in words} for lang in LANGS}
        content = {"title": name, "metric": "acc1", "labels": [*words], "names": names, "prompts": prompts}
        (folder / f"{name}.yaml").write_text(
            f"# What the {name} of the demo's world are called; prompts by class, as words agree with each other.\n"
            + yaml.safe_dump(content, allow_unicode=True, sort_keys=False, width=120),
            encoding="utf-8",
        )
