"""Make the demo's models again, from nothing: `python -m capivara_cli.demo.build` (forty minutes on two cores).

The base CLIP is pretrained by the project's own engine, both towers from random weights, on English with so few
captions in the other languages that it hardly knows them: the start that the recipe is for. The captioner's image tower
starts from the CLIP's; what it learns is in captioner.py, and what the translator learns in translator.py. `--only`
makes one of them.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from pathlib import Path

from capivara_cli import artifacts
from capivara_cli.captioning.caption import read_prefixes
from capivara_cli.data import records
from capivara_cli.demo import BASE, CAPTIONER, TEST_IMAGES, TRANSLATOR
from capivara_cli.demo.captioner import exactness, train_captioner
from capivara_cli.demo.small_clip import make_small_clip
from capivara_cli.demo.translator import exactness as translation_exactness
from capivara_cli.demo.translator import train_translator
from capivara_cli.demo.world import write_world
from capivara_cli.models import checkpoint
from capivara_cli.training.merge_lora import merge_lora
from capivara_cli.training.train import train

IMAGES = 12_000
FEW = {"pt": 60, "hi": 8, "xh": 8}  # images with captions in these languages
CARD = """---
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
    """Draw the world, pretrain a CLIP, and write it to the package's `demo/models/base/`."""
    write_world(work, train=IMAGES, test=TEST_IMAGES)
    found = records.read_all([work / "train.jsonl"])
    thin = _few_captions([record.data for record in found], random.Random(seed))
    artifacts.write_text(
        work / "pretrain.jsonl", "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in thin)
    )
    texts = [caption["text"] for record in found[:4000] for caption in record.captions]
    make_small_clip(work / "empty", texts, vocabulary=600)
    train(
        ["en", *FEW],
        recipe="from-scratch",
        model=f"local-dir:{work / 'empty'}",
        data=[str(work / "pretrain.jsonl")],
        batch_size=512,
        max_steps=steps,
        seed=seed,
        output=work / "run",
        overwrite=True,
    )
    merge_lora(work / "run", work / "base", dtype="float16", overwrite=True)
    checkpoint.relocate(work / "base", "capivara-demo")  # no path of this machine in what is shipped
    (work / "base" / "README.md").write_text(CARD, encoding="utf-8")
    _ship(work / "base", BASE)


def build_captioner(work: Path, seed: int) -> None:
    """Train the captioner from the base CLIP, and write it to the package's `demo/models/captioner/`."""
    made = train_captioner(work / "captioner", read_prefixes(None, "en"), seed=seed)
    exact, words = exactness(made)
    print(f"held-out scenes described exactly: {exact:.1%}; words right: {words:.1%}")
    (made / "README.md").write_text(CAPTIONER_CARD.format(exact=exact, words=words), encoding="utf-8")
    _ship(made, CAPTIONER)


def build_translator(work: Path, seed: int) -> None:
    """Train the translator, and write it to the package's `demo/models/translator/`."""
    made = train_translator(work / "translator", seed=seed)
    exact = translation_exactness(made)
    print("sentences translated exactly: " + ", ".join(f"{lang} {share:.1%}" for lang, share in exact.items()))
    (made / "README.md").write_text(TRANSLATOR_CARD.format(**exact), encoding="utf-8")
    _ship(made, TRANSLATOR)


def _ship(made: Path, place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(made, place)
    print(f"wrote {place}: {sum(path.stat().st_size for path in place.iterdir()):,} bytes")


def _few_captions(found: list[dict[str, object]], rng: random.Random) -> list[dict[str, object]]:
    """English for every image, another language for a few."""
    few: dict[int, str] = {}
    for lang, count in FEW.items():
        few |= dict.fromkeys(rng.sample(range(len(found)), count), lang)
    result = []
    for number, record in enumerate(found):
        captions = [c for c in record["captions"] if c["lang"] in ("en", few.get(number))]  # type: ignore[attr-defined]
        result.append({**record, "captions": captions})
    return result


def main() -> None:
    """The command above."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("build/demo"), help="folder for the world and the runs")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=["base", "captioner", "translator"], help="one of the three")
    arguments = parser.parse_args()
    if arguments.only in (None, "base"):
        build_base(arguments.work, arguments.steps, arguments.seed)
    if arguments.only in (None, "captioner"):
        build_captioner(arguments.work, arguments.seed)
    if arguments.only in (None, "translator"):
        build_translator(arguments.work, arguments.seed)


if __name__ == "__main__":
    main()
