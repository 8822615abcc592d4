"""Scores and filters: `capivara score` against the paper's script, and the diversity filter against scikit-learn's.

    python benchmarks/scoring.py [--images 2000] [--captions 10] [--paper-records 40]

The model is the recipe's (XLM-R base, ViT-B/32) with random weights: time does not depend on them. Images are JPEG
files of 500 x 375, texts have 9 to 21 tokens. The paper's script (generated_caps_sim_score.py of its published code):
record by record, the image through the image tower, its texts padded to 77, fp32; so many records are timed, and the
rest reckoned from them. Its training code fits scikit-learn's TF-IDF on an image's captions each time it draws one.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from pathlib import Path

import machine
import torch
from full_size import make_data, make_images, make_model
from PIL import Image


def papers(data: Path, model: Path, count: int) -> float:
    """Seconds a record, after two that start the threads."""
    import open_clip

    clip, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{model}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{model}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    clip.to(device).eval()
    times = []
    for line in data.read_text().splitlines()[: count + 2]:
        record = json.loads(line)
        started = time.perf_counter()
        with torch.no_grad():
            pixels = preprocess(Image.open(data.parent / record["image"]).convert("RGB"))[None].to(device)
            tokens = tokenizer([caption["text"] for caption in record["captions"] if caption["lang"] == "hi"])
            image = torch.nn.functional.normalize(clip.encode_image(pixels), dim=-1)
            texts = torch.nn.functional.normalize(clip.encode_text(tokens.to(device)), dim=-1)
            (image @ texts.T).squeeze().tolist()
        times.append(time.perf_counter() - started)
    return statistics.mean(times[2:])


def ours(data: Path, model: Path, output: Path) -> float:
    """Seconds of the whole command, the loading of the model included; image embeddings are in the cache."""
    from capivara_cli.data import image_records
    from capivara_cli.models import checkpoint
    from capivara_cli.models.embedding_cache import embed
    from capivara_cli.models.spec import ModelSpec
    from capivara_cli.runtime import Runtime
    from capivara_cli.scoring.options import ScoreOptions
    from capivara_cli.scoring.score import score

    clip = checkpoint.load(ModelSpec(f"local-dir:{model}"), Runtime.start())
    embed(clip, [record.image for record in image_records.read_all([data])])
    del clip
    started = time.perf_counter()
    options = ScoreOptions(lang=["hi"], model=f"local-dir:{model}", min_score=-1, diverse=0.3)
    score([data], output, options)
    return time.perf_counter() - started


def diversity(groups: list[list[str]]) -> tuple[float, float]:
    """Captions a second: scikit-learn's TF-IDF fitted on each group, and ours, removal included in both."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.metrics.pairwise import cosine_similarity

    from capivara_cli.data.filters import redundant

    vectorizer = TfidfVectorizer()

    def plain(texts: list[str]) -> None:
        similar = cosine_similarity(vectorizer.fit_transform(texts))
        here = list(range(len(texts)))
        for i in here:
            similar[i, i] = 0
        while len(here) > 3 and (similar > 0.3).any():
            worst = int(similar.sum(axis=0).argmax())
            similar[worst, :] = similar[:, worst] = 0
            here.remove(worst)

    rates = []
    for function in (plain, lambda texts: redundant(texts, [0.0] * len(texts), 0.3, 3)):
        started = time.perf_counter()
        for texts in groups:
            function(texts)
        rates.append(sum(map(len, groups)) / (time.perf_counter() - started))
    return rates[0], rates[1]


def captions_of_a_captioner(count: int) -> list[list[str]]:
    """Ten captions an image as a captioner says them: the recipe's prefixes, and much the same behind them."""
    from capivara_cli.captioning.prefixes import read_prefixes

    rng = random.Random(0)
    nouns = [a + b + c for a in "kgtdpb" for b in "aeiou" for c in ("ra", "ni", "lo", "ma", "tu", "se")]
    groups = []
    for _ in range(count):
        scene = rng.choices(nouns, k=8)
        groups.append(
            [
                f"{prefix} a {' '.join(word for word in scene if rng.random() < 0.7)}"
                for prefix in read_prefixes(None, "en")
            ]
        )
    return groups


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--captions", type=int, default=10, help="an image")
    parser.add_argument("--paper-records", type=int, default=40, help="records that the paper's script is timed on")
    arguments = parser.parse_args()
    print(machine.describe())
    total = arguments.images * arguments.captions
    with tempfile.TemporaryDirectory() as name:
        import os

        folder = Path(name)
        os.environ["CAPIVARA_CACHE"] = str(folder / "cache")
        make_images(folder / "images", arguments.images)
        data = make_data(folder, arguments.images, arguments.captions)
        model = make_model(folder, data)
        theirs = papers(data, model, arguments.paper_records) * arguments.images
        mine = ours(data, model, folder / "scored.jsonl")
    print(f"| {total:,} captions of {arguments.images:,} images | seconds | captions/s |")
    print(f"| the paper's script, from {arguments.paper_records} records | {theirs:.0f} | {total / theirs:.0f} |")
    print(f"| capivara score, image embeddings in the cache | {mine:.0f} | {total / mine:.0f} |")
    print(f"{theirs / mine:.1f} x")
    plain, fast = diversity(captions_of_a_captioner(1000))
    print(f"diversity, captions/s: scikit-learn's TF-IDF {plain:,.0f}, ours {fast:,.0f}: {fast / plain:.1f} x")


if __name__ == "__main__":
    main()
