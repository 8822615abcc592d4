"""The demo's data: draw pictures of scenes, and write them with captions in four languages and with class files."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from capivara_cli.demo.language import LANGUAGES, NAMES, TEMPLATES, caption
from capivara_cli.demo.scenes import (
    COLOURS,
    SHAPES,
    Background,
    Colour,
    Scene,
    Shape,
    Size,
    Thing,
    all_scenes,
    held_out_scenes,
    training_scenes,
)

IMAGE_SIZE = 64  # pixels
GRID = (16, 48)  # pixels, both ways: where things are centred; freely placed shapes are hard to learn
JITTER = 2  # pixels around the grid
RADII: dict[Size, int] = {"small": 7, "large": 13}  # pixels
STAMP = 32  # pixels: side of the square that a thing is drawn in
SMOOTH = 8  # a thing is drawn this many times larger and scaled down, for smooth edges
SHADE = 10  # largest random change of a colour value, of 255

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

# The figures that make up each shape; points are in units of the radius, around the middle.
_STAR = [(0.42 if step % 2 else 1.0, math.pi * step / 5) for step in range(10)]  # length and angle from the top
OUTLINES: dict[Shape, list[tuple[str, list[tuple[float, float]]]]] = {
    "circle": [("ellipse", [(-0.95, -0.95), (0.95, 0.95)])],
    "square": [("rectangle", [(-0.85, -0.85), (0.85, 0.85)])],
    "triangle": [("polygon", [(0, -1), (1, 0.8), (-1, 0.8)])],
    "star": [("polygon", [(length * math.sin(angle), -length * math.cos(angle)) for length, angle in _STAR])],
    "cross": [("rectangle", [(-0.3, -1), (0.3, 1)]), ("rectangle", [(-1, -0.3), (1, 0.3)])],
    "drop": [("ellipse", [(-0.65, -0.3), (0.65, 1)]), ("polygon", [(0, -1), (0.58, 0.05), (-0.58, 0.05)])],
}


def draw(scene: Scene, rng: random.Random) -> Image.Image:
    """Draw the scene, 64 x 64 pixels RGB. `rng` chooses the position, the jitter and the shades."""
    grey = _shade(GREYS[scene.background], rng)
    image = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), (grey, grey, grey))
    column, row = rng.choice(GRID), rng.choice(GRID)
    for index, thing in enumerate(scene.things):
        x = GRID[index] if scene.relation == "left" else column
        y = GRID[index] if scene.relation == "above" else row
        left, top = (centre + rng.randint(-JITTER, JITTER) - STAMP // 2 for centre in (x, y))
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
    for figure, points in OUTLINES[shape]:
        pixels = [(side / 2 + x * radius * SMOOTH, side / 2 + y * radius * SMOOTH) for x, y in points]
        getattr(pen, figure)(pixels, fill=255)
    return mask.resize((STAMP, STAMP), Image.Resampling.BOX)


def write_world(folder: Path, *, train: int = 6000, test: int = 500, seed: int = 0, captions: int = 2) -> None:
    """Write `train.jsonl`, `test.jsonl` and their pictures under `images/`.

    A training record has `captions` captions in each language, from different templates. A test record has one per
    language, which no other test record has. The English captions come first; each of the others names its English
    one as `parent`. The label is the shape of the first thing.

    Args:
        folder: created if needed; its files of these names are overwritten.
        train: number of training pictures.
        test: number of test pictures, see `held_out_scenes`.
        seed: random seed; the same seed writes the same files.
        captions: 1 to 4. If 0, the training records are in `scenes.jsonl` and have no captions: those are for a
            captioner and a translator to make.

    Raises:
        ValueError: more test pictures than held-out scenes, or more captions than templates.
    """
    rng = random.Random(seed)
    scenes = list(itertools.islice(training_scenes(rng), train))
    (folder / "images").mkdir(parents=True, exist_ok=True)
    _write_part(folder / "test.jsonl", "test", held_out_scenes(test, rng), 1, rng)
    _write_part(folder / ("train.jsonl" if captions else "scenes.jsonl"), "train", scenes, captions, rng)


def _write_part(path: Path, name: str, scenes: Sequence[Scene], captions: int, rng: random.Random) -> None:
    records = []
    for index, scene in enumerate(scenes):
        record = _picture(path.parent, f"{name}-{index:05d}", scene, rng)
        record["captions"] = _captions(scene, rng.sample(range(TEMPLATES), captions))
        record["label"] = scene.things[0].shape
        records.append(record)
    _write_records(path, records)


def _picture(folder: Path, key: str, scene: Scene, rng: random.Random) -> dict[str, Any]:
    """Draw the scene into `images/`, and return the start of its record."""
    image = f"images/{key}.png"
    draw(scene, rng).save(folder / image, compress_level=1)
    return {"id": key, "image": image}


def _captions(scene: Scene, templates: Sequence[int]) -> list[dict[str, Any]]:
    """Return the English captions of the scene, then those of each other language in the same order."""
    captions = []
    for lang in LANGUAGES:
        for parent, template in enumerate(templates):
            item = {"text": caption(scene, lang, template), "lang": lang, "source": "template"}
            captions.append(item if lang == "en" else {**item, "parent": parent})
    return captions


def _write_records(path: Path, records: Sequence[dict[str, Any]]) -> None:
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_text("".join(lines), encoding="utf-8", newline="\n")


def write_classes(folder: Path, *, per_scene: int = 8, seed: int = 0) -> None:
    """Write `shapes.jsonl` and `colours.jsonl`, pictures of one thing to classify, and class files for both.

    Args:
        folder: has `images/` in it.
        per_scene: pictures per held-out scene of one thing.
        seed: random seed.
    """
    import yaml

    rng = random.Random(seed)
    singles = [scene for scene in all_scenes() if scene.relation is None]
    pictures: list[tuple[dict[str, Any], Thing]] = []
    for scene in singles:
        for _ in range(per_scene if scene.held_out else 0):
            pictures.append((_picture(folder, f"single-{len(pictures):05d}", scene, rng), scene.things[0]))
    for name, words, kind in (("shapes", SHAPES, "shape"), ("colours", COLOURS, "colour")):
        labelled = [{**record, "label": getattr(thing, kind)} for record, thing in pictures]
        _write_records(folder / f"{name}.jsonl", labelled)
        prompts = {lang: {word: list[str]() for word in words} for lang in LANGUAGES}
        for lang in LANGUAGES:
            for scene in singles:
                prompts[lang][getattr(scene.things[0], kind)].append(caption(scene, lang))
        names = {lang: {word: NAMES[lang][word] for word in words} for lang in LANGUAGES}
        content = {"title": name, "metric": "acc1", "labels": [*words], "names": names, "prompts": prompts}
        comment = (
            f"# What the {name} of the demo's world are called; prompts by class, as words agree with each other.\n"
        )
        text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False, width=120)
        (folder / f"{name}.yaml").write_text(comment + text, encoding="utf-8")
