"""Retrieval metrics: ours against CLIP_benchmark's own code, on the same random embeddings, each in its own process.

    python benchmarks/retrieval.py [--large]

`--large` adds 200,000 texts x 40,000 images, whose score matrix alone would take 32 GB.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import machine
import torch

D = 512
KS = (1, 5, 10)


def embeddings(texts: int, images: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Texts (T, D), images (I, D), the image of each text (T,). A text is its image and noise."""
    torch.manual_seed(0)
    image = torch.nn.functional.normalize(torch.randn(images, D), dim=-1)
    rows = torch.arange(texts) % images
    text = torch.nn.functional.normalize(image[rows] + 0.28 * torch.randn(texts, D), dim=-1)
    return text, image, rows


def ours(text: torch.Tensor, image: torch.Tensor, rows: torch.Tensor) -> dict[str, float]:
    """Recalls, mean recall, median rank and MRR in both directions."""
    from capivara_cli.metrics.retrieval import rank_queries, summarise

    return summarise(rank_queries(text, image, rows), KS)


def clip_benchmarks(text: torch.Tensor, image: torch.Tensor, rows: torch.Tensor) -> dict[str, float]:
    """Recalls in both directions: the whole matrix, its top k, and one-hot comparison (CLIP_benchmark 1.6)."""
    from clip_benchmark.metrics.zeroshot_retrieval import batchify, recall_at_k

    scores = text @ image.t()
    positive = torch.zeros_like(scores, dtype=torch.bool)
    positive[torch.arange(len(scores)), rows] = True
    metrics = {}
    for k in KS:
        hits = batchify(recall_at_k, scores, positive, 64, "cpu", k=k) > 0
        metrics[f"image_retrieval_recall@{k}"] = hits.float().mean().item()
        hits = batchify(recall_at_k, scores.T, positive.T, 64, "cpu", k=k) > 0
        metrics[f"text_retrieval_recall@{k}"] = hits.float().mean().item()
    return metrics


def measure(way: str, texts: int, images: int, runs: int) -> dict[str, float]:
    """Median seconds, peak memory of the process in GB, and the recalls; after a small run that starts the threads."""
    function = {"ours": ours, "clip_benchmarks": clip_benchmarks}[way]
    function(*embeddings(200, 100))
    inputs = embeddings(texts, images)
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        metrics = function(*inputs)
        times.append(time.perf_counter() - started)
    recalls = {name: value for name, value in metrics.items() if "recall@" in name}
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {"seconds": statistics.median(times), "GB": memory, **recalls}


def apart(way: str, texts: int, images: int, runs: int = 3) -> dict[str, float]:
    """Measure in a process of its own, so that the peak of memory is its own."""
    line = [sys.executable, __file__, "--way", way, "--texts", str(texts), "--images", str(images)]
    line += ["--runs", str(runs)]
    result: dict[str, float] = json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)
    return result


def main() -> None:
    """Print the table, or measure one way for it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--large", action="store_true", help="also 200,000 texts x 40,000 images")
    parser.add_argument("--way", choices=["ours", "clip_benchmarks"], help=argparse.SUPPRESS)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--texts", type=int, default=25_000)
    parser.add_argument("--images", type=int, default=5_000)
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(measure(arguments.way, arguments.texts, arguments.images, arguments.runs)))
        return
    print(machine.describe())
    print(f"{arguments.texts:,} texts x {arguments.images:,} images, D {D}")
    theirs, mine = (
        apart(way, arguments.texts, arguments.images, arguments.runs) for way in ("clip_benchmarks", "ours")
    )
    for name, result in (("CLIP_benchmark 1.6", theirs), ("capivara", mine)):
        print(f"| {name} | {result['seconds']:.2f} s | {result['GB']:.2f} GB |")
    differences = [abs(mine[name] - theirs[name]) for name in theirs if "recall@" in name]
    print(f"{theirs['seconds'] / mine['seconds']:.1f} x; recalls differ by at most {max(differences):.1e}")
    if arguments.large:
        large = apart("ours", 200_000, 40_000, runs=1)
        print(f"| capivara, 200,000 x 40,000 | {large['seconds']:.0f} s | {large['GB']:.2f} GB |")


if __name__ == "__main__":
    main()
