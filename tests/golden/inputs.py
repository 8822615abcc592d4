"""The files that the cases read: models, scenes, images and records. No case depends on anything else.

What is hashed, or named by its hash, has the same bytes with every version of every library.
"""

from __future__ import annotations

import json
import random
import shutil
import struct
import zlib
from pathlib import Path

from PIL import Image

from capivara_cli.demo import BASE, CAPTIONER, TRANSLATOR
from capivara_cli.demo.world import write_world
from tests.golden.formats import Json, write_formats, write_lines
from tests.helpers import odd_records


def write_inputs(folder: Path) -> None:
    """Write everything that the cases read into an empty folder."""
    for name, model in (("base", BASE), ("captioner", CAPTIONER), ("translator", TRANSLATOR)):
        shutil.copytree(model, folder / "models" / name)
    _other_model(folder / "models" / "other")
    write_world(folder, train=120, test=24)
    _photos(folder)
    _records(folder)
    _settings(folder)
    write_formats(folder)


def _other_model(folder: Path) -> None:
    """Write a worse copy of the base model, to compare it with: every third row of the text projection is zero."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(BASE, folder)
    weights = folder / "open_clip_model.safetensors"
    tensors = load_file(weights)
    tensors["text.proj.weight"][::3] = 0
    save_file(tensors, weights, metadata={"format": "pt"})


def _photos(folder: Path) -> None:
    """Write images of one colour each, and files that are not images."""
    photos = folder / "photos"
    for number in range(1, 9):
        _png(photos / f"{number}.png", (30 * number, 255 - 30 * number, 128), (8 + number, 9))
    shutil.copy(photos / "2.png", photos / "same-as-2.png")
    (photos / "cut.png").write_bytes((photos / "3.png").read_bytes()[:60])
    (photos / "text.png").write_text("not an image\n")
    Image.new("RGB", (16, 12), (200, 40, 40)).save(photos / "9.jpg")


def _png(path: Path, colour: tuple[int, int, int], size: tuple[int, int]) -> None:
    """Write a PNG without compression: its bytes do not depend on the version of Pillow or zlib."""
    width, height = size
    rows = (b"\0" + bytes(colour) * width) * height
    block = struct.pack("<BHH", 1, len(rows), len(rows) ^ 0xFFFF) + rows
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0))
        + _chunk(b"IDAT", b"\x78\x01" + block + struct.pack(">I", zlib.adler32(rows)))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _records(folder: Path) -> None:
    """Write records of our own: scenes, scenes with wrong captions, records with odd keys, captions with scores."""
    scenes = _read_lines(folder / "train.jsonl")
    write_lines(folder / "scenes.jsonl", scenes[:16])
    bare = [{key: scene[key] for key in ("id", "image", "label")} for scene in scenes[:8]]
    write_lines(folder / "bare.jsonl", [*bare, {"id": "gone", "image": "gone.png"}, {"image": "photos/cut.png"}])
    english = [
        scene | {"captions": [each for each in scene["captions"] if each["lang"] == "en"]} for scene in scenes[:8]
    ]
    odd = ["visit https://x.example {name}", "12345", "a small red star <b>", ""]
    english.append({"id": "odd", "image": "photos/2.png", "captions": [{"text": text, "lang": "en"} for text in odd]})
    english.append({"id": "none", "image": "photos/1.png"})
    write_lines(folder / "english.jsonl", english)
    write_lines(folder / "mixed.jsonl", _mixed(scenes[:10]))
    write_lines(folder / "scored.jsonl", _scored())
    write_lines(folder / "odd.jsonl", ODD)
    broken = ['{"image": "photos/1.png"}', "{", "[1]", '{"id": "x"}', '{"image": "photos/1.png", "id": "photos/1.png"}']
    (folder / "broken.jsonl").write_text("\n".join(broken) + "\n")
    several = [
        {"id": scene["id"], "image": scene["image"], "label": [scene["label"], *more]}
        for scene, more in zip(scenes[:12], [["drop"], [], ["star", "cross"]] * 4, strict=True)
    ]
    write_lines(folder / "several.jsonl", several)


ODD: list[Json] = [
    *odd_records("photos/1.png", "photos/9.jpg", "photos/3.png"),
    {"id": "broken", "image": "photos/text.png", "captions": [{"text": "a text", "lang": "en"}]},
    {"id": "gone", "image": "gone.png", "captions": [{"text": "gone", "lang": "en"}]},
]


def _mixed(scenes: list[Json]) -> list[Json]:
    """Make every scene's captions partly wrong: the first by people, others of the next scene."""
    mixed: list[Json] = []
    for number, (scene, following) in enumerate(zip(scenes, scenes[1:] + scenes[:1], strict=True)):
        own, others = scene["captions"], following["captions"]
        captions = [
            {**_in(own, "en")[0], "source": "human"},
            _in(own, "en")[1],
            _in(others, "en")[number % 2],
            *({**_in(own, "hi")[i], "parent": i} for i in (0, 1)),
            {**_in(others, "hi")[number % 2], "parent": 2},
            {**_in(own, "xh")[0], "parent": 0},
        ]
        captions[0] = {**_in(others, "en")[0], "source": "human"} if number % 5 == 4 else captions[0]
        mixed.append({**scene, "captions": captions})
    # One image twice, one that is missing, one without captions.
    mixed += [{**mixed[1], "id": "again"}, {**mixed[0], "id": "gone", "image": "gone.png"}]
    return [*mixed, {"id": "bare", "image": "photos/1.png", "captions": []}]


def _in(captions: list[Json], lang: str) -> list[Json]:
    return [caption for caption in captions if caption["lang"] == lang]


def _scored() -> list[Json]:
    """Make captions that have their scores already: 6 records of 6 English captions and a translation of each."""
    rng = random.Random(0)
    words = ["a dog", "a dog runs", "a brown dog runs", "a cat", "a small cat sleeps", "two birds", "nothing at all"]
    records = []
    for number in range(6):
        english: list[Json] = [
            {"text": text, "lang": "en", "source": "human" if i == 0 else "blip2", "score": rng.randint(50, 400) / 1000}
            for i, text in enumerate(rng.sample(words, 6))
        ]
        hindi: list[Json] = [
            {"text": f"अनुवाद {i}", "lang": "hi", "source": "nllb", "parent": i, "score": rng.randint(50, 400) / 1000}
            for i in range(6)
        ]
        records.append({"id": f"r{number}", "image": f"photos/{number % 8 + 1}.png", "captions": english + hindi})
    return records


# What the shapes are called; a class may have several names.
NAMES: dict[str, Json] = {
    "en": {word: word for word in ("circle", "square", "triangle", "star", "cross", "drop")},
    "hi": {
        "circle": ["वृत्त", "गोला"],
        "square": "वर्ग",
        "triangle": "त्रिभुज",
        "star": "तारा",
        "cross": "क्रॉस",
        "drop": "बूँद",
    },
}


def _settings(folder: Path) -> None:
    """Write prefixes and class files."""
    (folder / "prefixes.yaml").write_text("- a picture of\n- there is\n- the image shows\n")
    # JSON is YAML.
    templates = {"en": ["a picture of a large red {c}", "there is a {c}"], "hi": ["एक बड़ा लाल {c}"]}
    classes = {"labels": [*NAMES["en"]], "names": NAMES, "templates": templates}
    (folder / "shapes.yaml").write_text(json.dumps(classes, ensure_ascii=False, indent=1), encoding="utf-8")
    sentences = {
        "circle": "a large red circle on a white background",
        "star": "a small green star on a black background",
    }
    (folder / "sentences.yaml").write_text(
        "# two classes\nlabels: [circle, star]\nmetric: acc1\nnames:\n  en:\n"
        + "".join(f"    {label}: {text}\n" for label, text in sentences.items())
    )
    (folder / "sentences.json").write_text(json.dumps({"shapes": [*sentences.values()]}))


def _read_lines(path: Path) -> list[Json]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
