"""A training step at full size: `capivara train --lora` against the step of the paper's code, on the same files.

    python benchmarks/train_step.py [--batch-size 64] [--steps 20] [--paper-steps 3] [--schedule]

The model is the recipe's (XLM-R base, ViT-B/32) with random weights: time does not depend on them. Images are
JPEG files of 500 x 375, texts have 9 to 21 tokens. The paper's step (arXiv 2310.13683, published code): decode and
augment in worker processes, image tower, texts padded to 77, gradient checkpointing, LoRA and the projection, Adam.
With a GPU both run there. `--schedule` also runs the recipe's whole schedule, 1500 steps of 1000.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
from full_size import make_data, make_images, make_model
from PIL import Image

STEPS_OF_THE_RECIPE, BATCH_OF_THE_RECIPE = 1500, 1000


def ours(data: Path, model: Path, batch_size: int, steps: int, output: Path) -> dict[str, float]:
    """Seconds a step of a run as a person starts it, and images a second of the image tower before it."""
    from capivara_cli.data import image_records
    from capivara_cli.models import checkpoint
    from capivara_cli.models.embedding_cache import embed
    from capivara_cli.models.spec import ModelSpec
    from capivara_cli.runtime import Runtime
    from capivara_cli.training.options import train_options
    from capivara_cli.training.train import train

    found = image_records.read_all([data])
    clip = checkpoint.load(ModelSpec(f"local-dir:{model}"), Runtime.start())
    started = time.perf_counter()
    embed(clip, [record.image for record in found])
    encoding = len(found) / (time.perf_counter() - started)
    del clip
    options = train_options(
        "lora",
        lang=["hi"],
        data=[str(data)],
        model=f"local-dir:{model}",
        batch_size=batch_size,
        max_steps=steps,
        set=["optimizer.warmup_steps=5", "data.val_share=0"],
    )
    run = train(options, output)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rates = [line["samples_per_second"] for line in lines if "samples_per_second" in line]
    return {"step": batch_size / float(np.median(rates[1:])), "images": encoding}


class Augmented(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """The paper's data set: decode and augment one image, and pad its text to 77 tokens."""

    def __init__(self, data: Path, augment: Any, tokenizer: Any) -> None:
        self.records = [json.loads(line) for line in data.read_text().splitlines()]
        self.folder, self.augment, self.tokenizer = data.parent, augment, tokenizer

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        record = self.records[index]
        image = Image.open(self.folder / record["image"]).convert("RGB")
        return self.augment(image), self.tokenizer([record["captions"][0]["text"]])[0]


def papers(data: Path, model: Path, batch_size: int, steps: int) -> float:
    """Seconds a step of the paper's code, written plainly with open_clip and PEFT."""
    import open_clip
    from open_clip.loss import ClipLoss
    from peft import LoraConfig, get_peft_model
    from torch.utils.data import DataLoader
    from torchvision.transforms import InterpolationMode, v2

    device = "cuda" if torch.cuda.is_available() else "cpu"
    augment = v2.Compose(
        [
            v2.Resize(250, interpolation=InterpolationMode.BICUBIC),
            v2.RandomResizedCrop(224, scale=(0.9, 1.0), interpolation=InterpolationMode.BICUBIC),
            v2.AugMix(severity=2),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.48, 0.46, 0.41], [0.27, 0.26, 0.28]),
        ]
    )
    clip = open_clip.create_model(f"local-dir:{model}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{model}", context_length=77)
    clip.requires_grad_(False)
    clip.text.transformer.gradient_checkpointing_enable({"use_reentrant": False})
    targets = r"text\..*\.(query|value)"
    wrapped = get_peft_model(clip, LoraConfig(r=8, lora_alpha=8, target_modules=targets, modules_to_save=["text.proj"]))
    wrapped.to(device).train()
    optimizer = torch.optim.Adam([p for p in wrapped.parameters() if p.requires_grad], lr=1e-5, weight_decay=0.2)
    workers = min(len(os.sched_getaffinity(0)), 16)
    loader: DataLoader[Any] = DataLoader(
        Augmented(data, augment, tokenizer), batch_size, shuffle=True, num_workers=workers, drop_last=True
    )

    def endless() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        while True:
            yield from loader

    batches = endless()
    times = []
    for _ in range(steps + 1):
        started = time.perf_counter()
        pixels, tokens = next(batches)
        with torch.autocast(device, torch.float16, enabled=device == "cuda"):
            with torch.no_grad():
                images = clip.encode_image(pixels.to(device), normalize=True)
            texts = clip.encode_text(tokens.to(device), normalize=True)
        loss = ClipLoss()(images.float(), texts.float(), clip.logit_scale.exp())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        float(loss.detach())
        times.append(time.perf_counter() - started)
    return float(np.mean(times[1:]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--paper-steps", type=int, default=4)
    parser.add_argument("--schedule", action="store_true", help="run the whole schedule as well")
    arguments = parser.parse_args()
    print(machine.describe())
    count = max(6 * arguments.batch_size, 600)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["CAPIVARA_CACHE"] = str(folder / "cache")
        make_images(folder / "images", count)
        data = make_data(folder, count)
        model = make_model(folder, data)
        mine = ours(data, model, arguments.batch_size, arguments.steps, folder / "run")
        theirs = papers(data, model, arguments.batch_size, arguments.paper_steps)
        print(f"batch {arguments.batch_size}, texts of 9 to 21 tokens, images 500 x 375")
        print(f"| the paper's step | {theirs:.2f} s |")
        print(f"| capivara's step | {mine['step']:.3f} s |")
        print(f"{theirs / mine['step']:.1f} x; before it, once: {mine['images']:.0f} images/s through the image tower")
        scale = BATCH_OF_THE_RECIPE / arguments.batch_size * STEPS_OF_THE_RECIPE
        print(f"1500 steps of 1000, extrapolated: {theirs * scale / 60:,.0f} min, {mine['step'] * scale / 60:,.1f} min")
        if arguments.schedule:
            if count < BATCH_OF_THE_RECIPE:
                parser.error("--schedule wants --batch-size 170 or more, so that there are 1000 images")
            full = ours(data, model, BATCH_OF_THE_RECIPE, STEPS_OF_THE_RECIPE, folder / "whole")
            print(f"1500 steps of 1000, run: {full['step'] * STEPS_OF_THE_RECIPE:.0f} s")


if __name__ == "__main__":
    main()
