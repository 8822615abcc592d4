"""What the demo's pictures can show: 55,008 scenes of one or two things, and which of them are held out for testing.

    6 shapes x 8 colours x 2 sizes = 96 things; 3 backgrounds x (96 things + 2 relations x 96 x 95 pairs) = 55,008

About one scene in eight is held out. They are always the same: the shipped base model has not seen them either.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

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

SINGLE = 0.15  # share of training scenes with one thing; of test scenes it is a twentieth
HELD_OUT = 8  # one scene in HELD_OUT is for testing


@dataclass(frozen=True, order=True)
class Thing:
    """A coloured shape."""

    shape: Shape
    colour: Colour
    size: Size


@dataclass(frozen=True)
class Scene:
    """What a picture shows and its captions say. The position on the grid is not part of it.

    Attributes:
        things: one, or two different ones.
        relation: of the first thing to the second; None if there is one thing.
    """

    background: Background
    things: tuple[Thing, ...]
    relation: Relation | None = None

    def swapped(self) -> Scene:
        """Return the scene with the two things exchanged: the same words in another order."""
        return replace(self, things=self.things[::-1])

    @property
    def held_out(self) -> bool:
        """Whether the scene is for testing. A scene and its swapped one go together."""
        meaning = f"{self.background} {self.relation} {sorted(self.things)}"
        return hashlib.blake2b(meaning.encode(), digest_size=1).digest()[0] % HELD_OUT == 0


def all_scenes() -> Iterator[Scene]:
    """Yield every scene, in a fixed order."""
    things = [Thing(*parts) for parts in itertools.product(SHAPES, COLOURS, SIZES)]
    for background in BACKGROUNDS:
        for thing in things:
            yield Scene(background, (thing,))
        for relation in RELATIONS:
            for pair in itertools.permutations(things, 2):
                yield Scene(background, pair, relation)


def training_scenes(rng: random.Random) -> Iterator[Scene]:
    """Yield random scenes that are not held out, without end and with repetition.

    Each scene of two things is followed by its swapped one. From pairs that differ in nothing else, a model learns
    to tell which thing is where; in a random sample it hardly ever needs to.
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
    """Draw distinct held-out scenes, in random order. Each scene of two things comes with its swapped one.

    Such hard negatives separate a model that knows which thing is where from a model that knows only what is in the
    picture. A random sample has hardly any.

    Args:
        count: number of scenes; one in twenty, or one more, has one thing.
        rng: chooses and shuffles them.

    Raises:
        ValueError: fewer such scenes exist.
    """
    scenes = [scene for scene in all_scenes() if scene.held_out]
    rng.shuffle(scenes)
    singles = [scene for scene in scenes if scene.relation is None]
    pairs = [scene for scene in scenes if scene.relation and scene.things[0] < scene.things[1]]
    pairs = pairs[: (count - count // 20) // 2]
    result = [scene for pair in pairs for scene in (pair, pair.swapped())]
    result += singles[: count - len(result)]
    if len(result) != count:
        raise ValueError(f"{count} distinct held-out scenes, one in twenty of them with one thing")
    rng.shuffle(result)
    return result
