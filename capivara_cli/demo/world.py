"""The demo world: drawn scenes of one or two things, with captions in four languages.

    from capivara_cli.demo.world import write_world
    write_world(Path("world"), train=6000, test=500)

It is closed: 6 shapes, 8 colours, 2 sizes, 3 backgrounds and 2 relations make 55,008 meanings. About one in
eight of them is held out for good, whatever the seed: the base CLIP beside this file never saw it either.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from PIL import Image, ImageDraw

from capivara_cli.demo import grammar

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
LANGS = tuple(grammar.LANGUAGES)

IMAGE_SIZE = 64  # pixels
GRID = (16, 48)  # pixels: where centres are, in both directions; placed freely, shapes are hard to learn
JITTER = 2  # pixels around the grid
RADII: dict[Size, int] = {"small": 7, "large": 13}  # pixels: with the jitter, a cell's 16 hold it
STAMP = 32  # pixels: side of the square that a thing is drawn on
SMOOTH = 8  # drawn that many times larger and scaled down, for smooth edges
SHADE = 10  # colours vary by up to this, of 255

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

ONE_THING = 0.15  # share of the training scenes with one thing; of the test scenes it is a twentieth
HELD_OUT = 8  # one meaning in so many


@dataclass(frozen=True, order=True)
class Thing:
    """A coloured shape."""

    shape: Shape
    colour: Colour
    size: Size


@dataclass(frozen=True)
class Scene:
    """What a picture shows, that is all that its captions say: where on the grid it stands is not part of it.

    Attributes:
        things: one, or two different ones.
        relation: of the first thing to the second; None when there is one thing.
    """

    background: Background
    things: tuple[Thing, ...]
    relation: Relation | None = None

    def swapped(self) -> Scene:
        """The scene with the two things in each other's place: the same words in another order."""
        return replace(self, things=self.things[::-1])

    @property
    def held_out(self) -> bool:
        """Whether it belongs to the test set. A scene and its swapped one always go together."""
        meaning = f"{self.background} {self.relation} {sorted(self.things)}"
        return hashlib.blake2b(meaning.encode(), digest_size=1).digest()[0] % HELD_OUT == 0


def all_scenes() -> Iterator[Scene]:
    """Every meaning there is, in a fixed order."""
    things = [Thing(*parts) for parts in itertools.product(SHAPES, COLOURS, SIZES)]
    for background in BACKGROUNDS:
        for thing in things:
            yield Scene(background, (thing,))
        for relation in RELATIONS:
            for pair in itertools.permutations(things, 2):
                yield Scene(background, pair, relation)


def training_scenes(rng: random.Random) -> Iterator[Scene]:
    """Meanings that are not held out, drawn without end; one may come again."""
    while True:
        pair = tuple(_any_thing(rng) for _ in range(1 if rng.random() < ONE_THING else 2))
        relation = rng.choice(RELATIONS) if len(pair) == 2 else None
        scene = Scene(rng.choice(BACKGROUNDS), pair, relation)
        if len(set(pair)) == len(pair) and not scene.held_out:
            yield scene


def _any_thing(rng: random.Random) -> Thing:
    return Thing(rng.choice(SHAPES), rng.choice(COLOURS), rng.choice(SIZES))


def test_scenes(count: int, rng: random.Random) -> list[Scene]:
    """Distinct held-out meanings. Each scene of two things comes with its swapped one.

    Such hard negatives are what tells a model that knows which thing is where from one that knows only what
    is there; a random choice hardly holds any.

    Raises:
        ValueError: more than there are.
    """
    held_out = [scene for scene in all_scenes() if scene.held_out]
    rng.shuffle(held_out)
    single = [scene for scene in held_out if len(scene.things) == 1]
    pairs = [scene for scene in held_out if len(scene.things) == 2 and list(scene.things) == sorted(scene.things)]
    wanted = min((count - count // 20) // 2, len(pairs))
    if count - 2 * wanted > len(single):
        wanted = (count - len(single) + 1) // 2
    if not 0 <= count or wanted > len(pairs):
        raise ValueError(f"{count} test scenes: there are {len(held_out):,}")
    scenes = single[: count - 2 * wanted]
    scenes += [scene for pair in pairs[:wanted] for scene in (pair, pair.swapped())]
    rng.shuffle(scenes)
    return scenes


def caption(scene: Scene, lang: str, template: int = 0) -> str:
    """What the scene shows, in en, pt, hi or xh.

    Args:
        template: 0 to 3; the same number says the same in every language.
    """
    return grammar.say(scene, lang, template)


def draw(scene: Scene, rng: random.Random) -> Image.Image:
    """A 64 x 64 RGB picture. `rng` chooses the place on the grid, the jitter and the shades."""
    grey = _shade(GREYS[scene.background], rng)
    image = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), (grey, grey, grey))
    row, column = rng.choice(GRID), rng.choice(GRID)
    for number, thing in enumerate(scene.things):
        x = GRID[number] if scene.relation == "left" else column
        y = GRID[number] if scene.relation == "above" else row
        corner = tuple(place + rng.randint(-JITTER, JITTER) - STAMP // 2 for place in (x, y))
        red, green, blue = (_shade(value, rng) for value in RGB[thing.colour])
        image.paste((red, green, blue), (corner[0], corner[1]), _stamp(thing.shape, RADII[thing.size]))
    return image


def _shade(value: int, rng: random.Random) -> int:
    return min(max(value + rng.randint(-SHADE, SHADE), 0), 255)


@lru_cache
def _stamp(shape: Shape, radius: int) -> Image.Image:
    """A mask of STAMP x STAMP pixels with the shape in its middle, `radius` pixels to its outermost point."""
    side = STAMP * SMOOTH
    mask = Image.new("L", (side, side))
    pen = ImageDraw.Draw(mask)

    def points(*places: tuple[float, float]) -> list[tuple[float, float]]:
        return [(side / 2 + x * radius * SMOOTH, side / 2 + y * radius * SMOOTH) for x, y in places]

    if shape == "circle":
        pen.ellipse(points((-0.95, -0.95), (0.95, 0.95)), fill=255)
    elif shape == "square":
        pen.rectangle(points((-0.85, -0.85), (0.85, 0.85)), fill=255)
    elif shape == "triangle":
        pen.polygon(points((0, -1), (1, 0.8), (-1, 0.8)), fill=255)
    elif shape == "star":
        pen.polygon(points(*_star()), fill=255)
    elif shape == "cross":
        pen.rectangle(points((-0.3, -1), (0.3, 1)), fill=255)
        pen.rectangle(points((-1, -0.3), (1, 0.3)), fill=255)
    else:
        pen.ellipse(points((-0.65, -0.3), (0.65, 1)), fill=255)
        pen.polygon(points((0, -1), (0.58, 0.05), (-0.58, 0.05)), fill=255)
    return mask.resize((STAMP, STAMP), Image.Resampling.BOX)


def _star() -> list[tuple[float, float]]:
    """Five points on the unit circle, the first at its top, and five dents between them."""
    turns = [(math.pi * step / 5, 0.42 if step % 2 else 1.0) for step in range(10)]
    return [(length * math.sin(angle), -length * math.cos(angle)) for angle, length in turns]


def write_world(
    folder: Path,
    *,
    train: int = 6000,
    test: int = 500,
    seed: int = 0,
    captions: int = 2,
    langs: Sequence[str] = LANGS,
) -> None:
    """Write `train.jsonl`, `test.jsonl` and their pictures under `images/`.

    A training record has `captions` captions a language, from different templates; a test record has one,
    which no other test record has. The English ones come first, and the others name theirs as `parent`. The
    label is the shape of the first thing.

    Args:
        folder: made if need be; what it holds is overwritten.
        train, test: pictures.
        seed: of everything that is drawn by lot; the same seed writes the same files.
        captions: 1 to 4.
        langs: English and others.

    Raises:
        ValueError: more test pictures than there are held-out meanings, or more captions than templates.
    """
    rng = random.Random(seed)  # noqa: S311 - nothing here is secret
    parts = {
        "train": (itertools.islice(training_scenes(rng), train), captions),
        "test": (test_scenes(test, rng), 1),
    }
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for name, (scenes, count) in parts.items():
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8", newline="\n") as file:
            for number, scene in enumerate(scenes):
                place = f"images/{name}-{number:05d}.png"
                draw(scene, rng).save(folder / place, compress_level=1)
                templates = rng.sample(range(grammar.TEMPLATES), count)
                record = {
                    "id": f"{name}-{number:05d}",
                    "image": place,
                    "captions": _captions(scene, langs, templates),
                    "label": scene.things[0].shape,
                }
                file.write(json.dumps(record, ensure_ascii=False) + "\n")


def _captions(scene: Scene, langs: Iterable[str], templates: Sequence[int]) -> list[dict[str, Any]]:
    """Captions of one scene: the English ones, then each other language's in the same order."""
    english = [{"text": caption(scene, "en", n), "lang": "en", "source": "template"} for n in templates]
    others = [
        {"text": caption(scene, lang, n), "lang": lang, "source": "template", "parent": parent}
        for lang in langs
        if lang != "en"
        for parent, n in enumerate(templates)
    ]
    return [*english, *others]
