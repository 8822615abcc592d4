"""Translation: a local model against the paper's code, requests to a service, and the memory, each in one run.

    python benchmarks/translation.py [--captions 600] [--remembered 1000000]

The model has NLLB-600M's architecture with half of its width and depth, and random weights; time does not depend on
the weights. Translations have 25 tokens at most. The paper's code translates every caption in the order of the file, in
padded batches of ten, in fp32. Captions have 6 to 25 tokens, and 40 % of them repeat others. The service is a server on
this machine with 50 ms of latency, reached through googletrans.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))  # the tests' server and tokenizer

from capivara_cli.demo.translator import CODES, make_tokenizer
from capivara_cli.runtime import Runtime
from capivara_cli.translation.google import Google
from capivara_cli.translation.local import CTranslate2, Local
from capivara_cli.translation.memory import Maker, Memory
from capivara_cli.translation.options import TranslateOptions

REPEATS = 0.4
LATENCY = 0.05


def make_captions(count: int) -> list[str]:
    """Return captions of 4 to 20 words, of which 40 % repeat others."""
    rng = random.Random(0)
    words = [a + b + c for a in "kgtdpbmn" for b in "aeiou" for c in ("ra", "ni", "lo", "ma", "tu", "se")]
    distinct = [" ".join(rng.choices(words, k=min(4 + int(rng.expovariate(0.2)), 20))) for _ in range(int(count * 0.6))]
    captions = distinct + rng.choices(distinct, k=count - len(distinct))
    rng.shuffle(captions)
    return captions


def make_model(folder: Path, captions: list[str]) -> Path:
    """Save NLLB-600M's proportions: 6 + 6 layers of 512 (not 12 + 12 of 1024), an eighth of the vocabulary."""
    from transformers import M2M100Config, M2M100ForConditionalGeneration

    tokenizer = make_tokenizer(captions, 1200)
    torch.manual_seed(0)
    config = M2M100Config(
        vocab_size=32_000,
        d_model=512,
        encoder_layers=6,
        decoder_layers=6,
        encoder_attention_heads=8,
        decoder_attention_heads=8,
        encoder_ffn_dim=2048,
        decoder_ffn_dim=2048,
        max_position_embeddings=256,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.eos_token_id,
    )
    model = M2M100ForConditionalGeneration(config).eval()
    settings: Any = model.generation_config
    settings.max_length, settings.num_beams = 25, 1  # random weights rarely end a text
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def paper(folder: Path, captions: list[str]) -> int:
    """Translate in the order of the file, in batches of ten padded to their longest."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, src_lang=CODES["en"])
    model: Any = AutoModelForSeq2SeqLM.from_pretrained(folder)
    started = time.perf_counter()
    for start in range(0, len(captions), 10):
        batch = tokenizer(captions[start : start + 10], return_tensors="pt", padding=True)
        with torch.inference_mode():
            model.generate(**batch, forced_bos_token_id=tokenizer.convert_tokens_to_ids(CODES["hi"]))
    return _print_rate("the paper's code", len(captions), time.perf_counter() - started)


def ours(folder: Path, captions: list[str], kind: type[Local], name: str) -> int:
    """Translate distinct texts, the longest first, in batches of a number of tokens."""
    local = kind(TranslateOptions(to=["hi"], backend="nllb", model=str(folder)), "hi", Runtime.start())
    list(local.translate(captions[:4], "hi"))  # loads, and converts
    started = time.perf_counter()
    distinct = list(dict.fromkeys(captions))
    assert len(dict(local.translate(distinct, "hi"))) == len(distinct)
    return _print_rate(f"capivara, {name}", len(captions), time.perf_counter() - started)


def _print_rate(name: str, count: int, seconds: float) -> int:
    print(f"  {name:36} {seconds:8.2f} s  {count / seconds:8.1f} captions/s", flush=True)
    return round(seconds * 1000)


def service(count: int) -> None:
    """Count requests and time, joined and one by one, through the real client."""
    from tests.google_server import certificate, serving, to_hindi

    captions = [f"a photo of number {number} among many other things" for number in range(count)]
    with tempfile.TemporaryDirectory() as name:
        os.environ["SSL_CERT_FILE"] = str(certificate(Path(name)))
        for label, attempt in (("one request per caption", 1), ("capivara: joined", 0)):
            with serving(Path(os.environ["SSL_CERT_FILE"])) as server:
                server.latency = LATENCY
                google = Google(TranslateOptions(to=["hi"], google_url=server.url, rate=1e6, concurrency=4))
                started = time.perf_counter()
                translations = dict(google.translate(captions, "hi", attempt))
                seconds = time.perf_counter() - started
                google.close()
                assert translations == {i: to_hindi(text) for i, text in enumerate(captions)}
                print(f"  {label:36} {seconds:8.2f} s  {server.requests:8,} requests")


def remember(count: int) -> None:
    """Measure the memory's size and look-ups per second."""
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "memory.sqlite"
        with Memory(path) as memory:
            maker = Maker("google", "google", "en", "hi")
            started = time.perf_counter()
            for start in range(0, count, 5000):
                numbers = range(start, start + 5000)
                memory.add(maker, {f"a photo of thing number {n} somewhere": "क" * 40 for n in numbers})
            added = time.perf_counter() - started
            texts = [f"a photo of thing number {rng.randrange(count)} somewhere" for _ in range(100_000)]
            started = time.perf_counter()
            known = memory.recall(maker, texts)
            seconds = time.perf_counter() - started
            assert len(known) == len(set(texts))
        size = path.stat().st_size / 1e6
        print(
            f"  {count:,} texts: {size:.0f} MB, {count / added:,.0f} added/s, {len(texts) / seconds:,.0f} looked up/s"
        )


def main() -> None:
    """Run the command above."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--captions", type=int, default=600)
    parser.add_argument("--requests", type=int, default=5000, help="captions for the service")
    parser.add_argument("--remembered", type=int, default=1_000_000)
    arguments = parser.parse_args()
    print(machine.describe())
    with tempfile.TemporaryDirectory() as name:
        os.environ["CAPIVARA_CACHE"] = name
        captions = make_captions(arguments.captions)
        folder = make_model(Path(name) / "model", captions)
        print(f"{len(captions)} captions, {len(set(captions))} of them distinct")
        slow = paper(folder, captions)
        for kind, engine in ((Local, "transformers"), (CTranslate2, "CTranslate2 int8")):
            print(f"  {slow / ours(folder, captions, kind, engine):.1f} times")
    print(f"{arguments.requests} captions by a service with {1000 * LATENCY:.0f} ms of latency")
    service(arguments.requests)
    print("the translation memory")
    remember(arguments.remembered)


if __name__ == "__main__":
    main()
