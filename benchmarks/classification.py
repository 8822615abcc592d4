"""Zero-shot classification at ImageNet's size: `capivara classify-eval`'s engine against class by class.

    python benchmarks/classification.py [--classes 1000] [--plain-classes 20]

The model is the recipe's (XLM-R base, ViT-B/32) with random weights. 80 templates for each class, names of two made-up
words. The plain way (CLIP_benchmark, and the paper's code): class by class, the 80 prompts padded to 77, fp32; so many
classes are timed, and the rest reckoned from them. Then the metrics of 50,000 images x 1,000 classes, with their peak
of memory.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import tempfile
import time
from pathlib import Path

import machine
import numpy as np
import torch
from full_size import make_data, make_model

TEMPLATES = 80


def prompts(classes: int) -> list[list[str]]:
    """80 sentences of 5 to 12 words for each class, its name in them."""
    rng = random.Random(0)
    words = [a + b + c for a in "kgtdpb" for b in "aeiou" for c in ("ra", "ni", "lo", "ma", "tu", "se")]
    templates = [
        (rng.choices(words, k=rng.randint(2, 5)), rng.choices(words, k=rng.randint(1, 5))) for _ in range(TEMPLATES)
    ]
    names = [" ".join(rng.choices(words, k=2)) for _ in range(classes)]
    return [[" ".join([*before, name, *after]) for before, after in templates] for name in names]


def plain(model: Path, found: list[list[str]]) -> float:
    """Seconds a class, after one that starts the threads."""
    import open_clip

    clip, _, _ = open_clip.create_model_and_transforms(f"local-dir:{model}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{model}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    clip.to(device).eval()
    started = 0.0
    for number, own in enumerate(found):
        if number == 1:
            started = time.perf_counter()
        with torch.no_grad():
            features = torch.nn.functional.normalize(clip.encode_text(tokenizer(own).to(device)), dim=-1)
            torch.nn.functional.normalize(features.mean(dim=0), dim=0).cpu()
    return (time.perf_counter() - started) / (len(found) - 1)


def ours(model: Path, found: list[list[str]]) -> float:
    """Seconds for all classes."""
    from capivara_cli.evaluation.classify_eval import class_weights
    from capivara_cli.models import checkpoint
    from capivara_cli.models.spec import ModelSpec
    from capivara_cli.runtime import Runtime

    clip = checkpoint.load(ModelSpec(f"local-dir:{model}"), Runtime.start())
    class_weights(clip, found[:1])
    started = time.perf_counter()
    class_weights(clip, found)
    return time.perf_counter() - started


def scoring(images: int, classes: int) -> tuple[float, float]:
    """Seconds of the product and the metrics, and MB of the peak above what was there before."""
    from capivara_cli.metrics import classification as accuracy

    rng = np.random.default_rng(0)
    features = torch.nn.functional.normalize(torch.from_numpy(rng.standard_normal((images, 512), np.float32)), dim=-1)
    weights = torch.nn.functional.normalize(torch.from_numpy(rng.standard_normal((classes, 512), np.float32)), dim=-1)
    truth = np.zeros((images, classes), bool)
    truth[np.arange(images), rng.integers(classes, size=images)] = True
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    scores = (features @ weights.T).numpy()
    accuracy.metrics_for(scores, truth, single_label=True)
    accuracy.confusions(scores, truth)
    seconds = time.perf_counter() - started
    return seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--plain-classes", type=int, default=10, help="classes that the plain way is timed on")
    arguments = parser.parse_args()
    print(machine.describe())
    seconds, memory = scoring(50_000, 1000)
    found = prompts(arguments.classes)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["CAPIVARA_CACHE"] = str(folder / "cache")
        model = make_model(folder, make_data(folder, 200))
        theirs = plain(model, found[: arguments.plain_classes + 1]) * arguments.classes
        mine = ours(model, found)
    print(f"| weights of {arguments.classes:,} classes x {TEMPLATES} templates | seconds | prompts/s |")
    for what, value in ((f"class by class, padded to 77, from {arguments.plain_classes}", theirs), ("capivara", mine)):
        print(f"| {what} | {value:.0f} | {arguments.classes * TEMPLATES / value:.0f} |")
    print(f"{theirs / mine:.1f} x")
    print(f"50,000 images x 1,000 classes: product, metrics and confusions {seconds:.1f} s, {memory:.0f} MB")


if __name__ == "__main__":
    main()
