"""Make the demo's base model again, from nothing: `python -m capivara_cli.demo.build` (twenty minutes on two cores).

It is pretrained by the project's own engine, both towers from random weights, on English with so few captions in the
other languages that it hardly knows them: the start that the recipe is for.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from pathlib import Path

from capivara_cli import artifacts, clip, records
from capivara_cli.demo import BASE, TEST_IMAGES
from capivara_cli.demo.small_clip import make_small_clip
from capivara_cli.demo.world import write_world
from capivara_cli.merging import merge_lora
from capivara_cli.training import train

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


def build(work: Path, steps: int, seed: int) -> None:
    """Draw the world, pretrain, and write the model to the package's `demo/base/`."""
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
    clip.relocate(work / "base", "capivara-demo")  # no path of this machine in what is shipped
    (work / "base" / "README.md").write_text(CARD, encoding="utf-8")
    shutil.rmtree(BASE, ignore_errors=True)
    shutil.copytree(work / "base", BASE)
    print(f"wrote {BASE}: {sum(path.stat().st_size for path in BASE.iterdir()):,} bytes")


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
    parser.add_argument("--work", type=Path, default=Path("build/demo"), help="folder for the world and the run")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    build(arguments.work, arguments.steps, arguments.seed)


if __name__ == "__main__":
    main()
