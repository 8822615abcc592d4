"""Ten captions per image: `capivara caption`'s engine against the paper's code, on the same images, in one run.

    python benchmarks/captioning.py [--images 16] [--batch-size 8] [--true-size] [--memory]

The paper's published code (arXiv 2310.13683) calls `model.generate` once per prefix: each image goes ten times through
the image tower, the Q-Former and, with its image tokens, the language model. Both are forced to write the same number
of new tokens, greedily: `--new-tokens`. Models have BLIP-2's architecture and random weights; time does not depend on
the weights. On a CPU they have its proportions at 220 million weights and 224 pixels. With `--true-size` (the default
with a GPU) they have the configuration of Salesforce/blip2-opt-2.7b. `--memory` also measures peak memory with two
numbers of records.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine
import torch
from full_size import make_images

from capivara_cli.captioning.blip2 import Blip2
from capivara_cli.captioning.captioner import PreparePixels
from capivara_cli.captioning.options import CaptionOptions
from capivara_cli.captioning.prefixes import read_prefixes
from capivara_cli.data.images import ImageRef
from capivara_cli.data.loading import cores, load_images
from capivara_cli.runtime import Runtime

TRUE_SIZE: dict[str, dict[str, Any]] = {  # of Salesforce/blip2-opt-2.7b
    "vision_config": {"initializer_range": 0.02},
    "qformer_config": {},
    "text_config": {"model_type": "opt", "hidden_size": 2560, "word_embed_proj_dim": 2560, "ffn_dim": 10240}
    | {"num_hidden_layers": 32, "num_attention_heads": 32, "vocab_size": 50305},
}
SMALL: dict[str, dict[str, Any]] = {  # the same proportions, a fifteenth of the weights
    "vision_config": TRUE_SIZE["vision_config"]
    | {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 17, "num_attention_heads": 8},
    "qformer_config": {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 4}
    | {"encoder_hidden_size": 512},
    "text_config": {"model_type": "opt", "hidden_size": 768, "word_embed_proj_dim": 768, "ffn_dim": 3072}
    | {"num_hidden_layers": 16, "num_attention_heads": 12, "vocab_size": 50305},
}


def make_model(sizes: dict[str, dict[str, Any]], runtime: Runtime) -> Any:
    """Return BLIP-2 with random weights, made on the device that it will run on."""
    from transformers import Blip2Config, Blip2ForConditionalGeneration

    config = Blip2Config(image_token_index=50304, **sizes)  # type: ignore[arg-type]
    torch.manual_seed(0)
    with torch.device(runtime.device):
        model: Any = Blip2ForConditionalGeneration(config)
    return model.to(runtime.dtype).eval()


class Tokenizer:
    """Token ids of prefixes as long as OPT's, without its vocabulary: time depends only on their lengths."""

    def __call__(self, texts: list[str], **_: Any) -> Any:
        """Return token ids (K, P), padded on the left, and their mask."""
        from transformers import BatchEncoding

        lengths = [1 + len(text.split()) for text in texts]
        ids = torch.full((len(texts), max(lengths)), 1)
        for row, length in enumerate(lengths):
            ids[row, -length:] = torch.arange(2, 2 + length)
        return BatchEncoding({"input_ids": ids, "attention_mask": (ids != 1).long()})

    def decode(self, tokens: list[int], **_: Any) -> str:
        """Return the token ids as text."""
        return " ".join(map(str, tokens))


def paper(model: Any, batches: list[torch.Tensor], prompts: torch.Tensor, mask: torch.Tensor, new: int) -> list[Any]:
    """Call `generate` once per prefix."""
    result = []
    queries = torch.full((1, model.config.num_query_tokens), model.config.image_token_index, device=model.device)
    for pixels in batches:
        for prompt, seen in zip(prompts, mask, strict=True):
            ids = torch.cat([queries, prompt[seen.bool()][None]], 1).repeat(len(pixels), 1)
            tokens = model.generate(
                pixels.to(model.device, model.dtype),
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=new,
                min_new_tokens=new,
                do_sample=False,
            )
            result.append(tokens[:, ids.shape[1] :].cpu())
    return result


def timed(run: Callable[[], Any]) -> tuple[float, float]:
    """Return seconds, and GB of GPU memory at the peak (0 on a CPU)."""
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    started = time.perf_counter()
    run()
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started, torch.cuda.max_memory_allocated() / 1e9 if cuda else 0.0


def compare(images: int, batch_size: int, new: int, sizes: dict[str, dict[str, Any]], runtime: Runtime) -> None:
    """Time both on the same pixels; decoding images is measured separately."""
    from types import SimpleNamespace

    model = make_model(sizes, runtime)
    settings = model.language_model.generation_config
    settings.eos_token_id = None  # all captions get the same length
    side = model.config.vision_config.image_size
    pixels = [torch.randn(min(batch_size, images - i), 3, side, side) for i in range(0, images, batch_size)]
    processor = SimpleNamespace(image_processor=None, tokenizer=Tokenizer())
    options = CaptionOptions(max_new_tokens=new)
    captioner = Blip2(model, processor, options, read_prefixes(None, "en"), runtime)
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{count / 1e6:.0f} million weights in {runtime.precision}, {images} images of {side} px, {new} new tokens")
    for batch in pixels[:1]:  # warm up before timing
        captioner.captions(batch[:2])
        paper(model, [batch[:2]], captioner.prompt_ids[:1], captioner.prompt_mask[:1], 2)
    slow, slow_memory = timed(lambda: paper(model, pixels, captioner.prompt_ids, captioner.prompt_mask, new))
    fast, fast_memory = timed(lambda: [captioner.captions(batch) for batch in pixels])
    for name, seconds, memory in (("the paper's way", slow, slow_memory), ("capivara", fast, fast_memory)):
        peak = f", {memory:.1f} GB at the peak" if memory else ""
        print(f"  {name:16} {seconds:8.2f} s  {images / seconds:8.2f} images/s{peak}")
    print(f"  {slow / fast:.1f} times")


def decoding(count: int) -> None:
    """Time the input side: from files to normalised pixels, with BLIP-2's own processor."""
    from transformers import BlipImageProcessor

    with tempfile.TemporaryDirectory() as name:
        make_images(Path(name) / "images", count)
        refs = [ImageRef(str(path)) for path in sorted((Path(name) / "images").iterdir())]
        prepare = PreparePixels(BlipImageProcessor(size={"height": 224, "width": 224}))
        prepare(refs[0])
        batches = (refs[i : i + 16] for i in range(0, count, 16))
        started = time.perf_counter()
        total = sum(len(batch.rows) for batch in load_images(batches, lambda ref: ref, prepare, workers=cores()))
        rate = total / (time.perf_counter() - started)
    print(f"decoding and preparing 500 x 375 JPEG: {rate / cores():.0f} images/s per core ({cores()} workers)")


MEMORY = """
import resource, sys
from capivara_cli import CaptionOptions, caption
caption([sys.argv[1]], sys.argv[2], CaptionOptions(model=sys.argv[3], prefixes="none", max_new_tokens=1))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def memory(counts: tuple[int, ...]) -> None:
    """Print the peak memory of `caption` with the demo's captioner for several numbers of records."""
    from capivara_cli.demo import CAPTIONER
    from capivara_cli.demo.world import write_world

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_world(folder, train=100, test=20)
        for count in counts:
            with (folder / "in.jsonl").open("w") as file:
                for number in range(count):
                    image = f"images/train-{number % 100:05d}.png"
                    file.write(json.dumps({"id": f"{number:07d}", "image": image, "note": "x" * 500}) + "\n")
            arguments = [str(folder / "in.jsonl"), str(folder / f"{count}.jsonl"), str(CAPTIONER)]
            result = subprocess.run(
                [sys.executable, "-c", MEMORY, *arguments], check=True, stdout=subprocess.PIPE, text=True
            )
            print(f"{count:,} records: {int(result.stdout) / 1024:.0f} MB at the peak")


def main() -> None:
    """Run the command above."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    gpu = torch.cuda.is_available()
    parser.add_argument("--images", type=int, default=256 if gpu else 16)
    parser.add_argument("--batch-size", type=int, default=64 if gpu else 8)
    parser.add_argument("--new-tokens", type=int, default=20)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--true-size", action="store_true", default=gpu, help="blip2-opt-2.7b's configuration")
    parser.add_argument("--memory", action="store_true", help="peak memory at 10,000 and 100,000 records")
    arguments = parser.parse_args()
    print(machine.describe())
    sizes = TRUE_SIZE if arguments.true_size else SMALL
    runtime = Runtime.start(precision=arguments.precision).for_width(sizes["text_config"]["hidden_size"])
    compare(arguments.images, arguments.batch_size, arguments.new_tokens, sizes, runtime)
    decoding(400)
    if arguments.memory:
        memory((10_000, 100_000))


if __name__ == "__main__":
    main()
