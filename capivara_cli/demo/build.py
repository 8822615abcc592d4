"""Make the demo's models again, from nothing: `python -m capivara_cli.demo.build` (forty minutes on two cores).

The base CLIP is pretrained by this project's own `train`: both towers from random weights, on English captions and so
few in the other languages that it hardly knows them, which is where the recipe starts. captioner.py and translator.py
say what the other two models learn. `--only` makes one of them.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from capivara_cli import artifacts
from capivara_cli.captioning.prefixes import read_prefixes
from capivara_cli.data import image_records
from capivara_cli.data.records import Record
from capivara_cli.demo import BASE, CAPTIONER, TEST_IMAGES, TRANSLATOR
from capivara_cli.demo.captioner import exactness as captioner_exactness
from capivara_cli.demo.captioner import train_captioner
from capivara_cli.demo.small_clip import make_small_clip
from capivara_cli.demo.translator import exactness as translator_exactness
from capivara_cli.demo.translator import train_translator
from capivara_cli.demo.world import write_world
from capivara_cli.training.merge_lora import merge_lora
from capivara_cli.training.options import MergeOptions, train_options
from capivara_cli.training.train import train

IMAGES = 12_000
TRANSLATED_IMAGES = {"pt": 60, "hi": 8, "xh": 8}  # images with captions in these languages
BASE_CARD = """---
license: mit
language: [en, pt, hi, xh]
---
# The demo's base model

A CLIP of 1.2 million weights that knows the demo's scenes in English and hardly in Portuguese, Hindi and Xhosa.
Made from nothing by `python -m capivara_cli.demo.build`.
"""
TRANSLATOR_CARD = """---
license: mit
language: [en, pt, hi, xh]
---
# The demo's translator

An NLLB of 1.0 million weights that translates captions of the demo's scenes from English to Portuguese, Hindi and
Xhosa: of 300 sentences about held-out scenes, {pt:.1%}, {hi:.1%} and {xh:.1%} exactly. Made by
`python -m capivara_cli.demo.build`.
"""
CAPTIONER_CARD = """---
license: mit
language: [en]
---
# The demo's captioner

A BLIP-2 of 1.9 million weights that describes the demo's scenes in English: of 500 held-out ones, {exact:.1%} exactly,
{words:.1%} of the words. Made by `python -m capivara_cli.demo.build`.
"""


def build_base(work: Path, steps: int, seed: int) -> None:
    """Draw the world, pretrain a CLIP, and write it to `demo/models/base/` of the package."""
    write_world(work, train=IMAGES, test=TEST_IMAGES)
    world = image_records.read_all([work / "train.jsonl"])
    lines = [json.dumps(data, ensure_ascii=False) + "\n" for data in _with_few_translations(world, random.Random(seed))]
    artifacts.write_text(work / "pretrain.jsonl", "".join(lines))
    texts = [caption["text"] for record in world[:4000] for caption in record.captions]
    empty = make_small_clip(work / "capivara-demo", texts, vocabulary=600)  # its name stays in the configuration
    options = train_options(
        recipe="from-scratch",
        lang=["en", *TRANSLATED_IMAGES],
        model=f"local-dir:{empty}",
        data=[str(work / "pretrain.jsonl")],
        batch_size=512,
        max_steps=steps,
        seed=seed,
    )
    train(options.replace(overwrite=True), work / "run")
    merge_lora(work / "run", work / "base", MergeOptions(dtype="float16", overwrite=True))
    _ship(work / "base", BASE, BASE_CARD)


def build_captioner(work: Path, seed: int) -> None:
    """Train the captioner from the base CLIP, and write it to `demo/models/captioner/` of the package."""
    folder = train_captioner(work / "captioner", read_prefixes(None, "en"), seed=seed)
    exact, words = captioner_exactness(folder)
    print(f"held-out scenes described exactly: {exact:.1%}; words right: {words:.1%}")
    _ship(folder, CAPTIONER, CAPTIONER_CARD.format(exact=exact, words=words))


def build_translator(work: Path, seed: int) -> None:
    """Train the translator, and write it to `demo/models/translator/` of the package."""
    folder = train_translator(work / "translator", seed=seed)
    exact = translator_exactness(folder)
    print("sentences translated exactly: " + ", ".join(f"{lang} {share:.1%}" for lang, share in exact.items()))
    _ship(folder, TRANSLATOR, TRANSLATOR_CARD.format(**exact))


def _ship(folder: Path, target: Path, card: str) -> None:
    (folder / "README.md").write_text(card, encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target)
    print(f"wrote {target}: {sum(path.stat().st_size for path in target.iterdir()):,} bytes")


def _with_few_translations(world: Sequence[Record], rng: random.Random) -> Iterator[dict[str, Any]]:
    """Yield the records with their English captions, and those of another language for TRANSLATED_IMAGES only."""
    lang_of: dict[int, str] = {}
    for lang, count in TRANSLATED_IMAGES.items():
        lang_of |= dict.fromkeys(rng.sample(range(len(world)), count), lang)
    for index, record in enumerate(world):
        captions = [caption for caption in record.captions if caption["lang"] in ("en", lang_of.get(index))]
        yield {**record.data, "captions": captions}


def main() -> None:
    """Run `python -m capivara_cli.demo.build`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("build/demo"), help="folder for the world and the runs")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=["base", "captioner", "translator"], help="make one model only")
    arguments = parser.parse_args()
    if arguments.only in (None, "base"):
        build_base(arguments.work, arguments.steps, arguments.seed)
    if arguments.only in (None, "captioner"):
        build_captioner(arguments.work, arguments.seed)
    if arguments.only in (None, "translator"):
        build_translator(arguments.work, arguments.seed)


if __name__ == "__main__":
    main()
