"""Several ranks on this machine's CPU, as torchrun starts them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from capivara_cli.models import checkpoint
from tests.conftest import distance
from tests.forks import Forks

SETTINGS = ["batch_size=32", "max_steps=6", "eval_every=3", "optimizer.warmup_steps=0", "optimizer.lr=1e-3"]
FLAGS = [part for setting in SETTINGS for part in ("--set", setting)]

# The same loss and gradient as one process, in float64, from the two halves of a batch.
GRADIENTS = """
import torch
from torch.nn.functional import normalize
from capivara_cli.training.loss import clip_loss, gradcache_backward
from capivara_cli.runtime import Runtime

runtime = Runtime.start("cpu", "fp32")
torch.manual_seed(0)
text, image = torch.nn.Linear(6, 5).double(), torch.nn.Linear(7, 5).double()
scale = torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
texts, pictures = torch.randn(12, 6).double(), torch.randn(12, 7).double()
parameters = [*text.parameters(), *image.parameters(), scale]
loss = clip_loss(normalize(image(pictures), dim=-1), normalize(text(texts), dim=-1), scale)
expected = torch.autograd.grad(loss, parameters)
half = slice(6 * runtime.rank, 6 * runtime.rank + 6)
def micro_batches(tower, inputs):
    return [lambda part=part: normalize(tower(part), dim=-1) for part in inputs[half].split(4)]
sides = micro_batches(text, texts), micro_batches(image, pictures)
gradcache_loss = gradcache_backward(*sides, scale, runtime, keep_graphs=False)
runtime.sum_gradients(parameters)
torch.testing.assert_close(gradcache_loss, loss.detach(), rtol=0, atol=1e-12)
for parameter, gradient in zip(parameters, expected):
    torch.testing.assert_close(parameter.grad, gradient, rtol=0, atol=1e-9)
print("equal on rank", runtime.rank)
torch.distributed.destroy_process_group()
"""


def test_two_ranks_have_the_gradient_of_one(forks: Forks, tmp_path: Path) -> None:
    result = forks.run_ranks([], tmp_path, code=GRADIENTS)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("equal on rank") == 2


# The first rank has written its embeddings before the second one looks which are missing.
EMBEDDINGS = """
import sys, time
from pathlib import Path
from capivara_cli.data import images
from capivara_cli.models import checkpoint
from capivara_cli.models.spec import ModelSpec
from capivara_cli.models.embedding_cache import embed
from capivara_cli.data.images import ImageRef
from capivara_cli.runtime import Runtime, leave_process_group

runtime = Runtime.start("cpu", "fp32")
clip = checkpoint.load(ModelSpec("local-dir:" + sys.argv[1]), runtime)
refs = [ImageRef(str(path)) for path in images.find(Path(sys.argv[2]))][:40]
refs = [*refs, ImageRef("/nowhere.png"), ImageRef(sys.argv[3]), *refs[:5]]
time.sleep(2 * runtime.rank)
_, kept, rejected = embed(clip, refs)
print(len(kept), sorted(item.reason for item in rejected), flush=True)
leave_process_group()
"""


def test_ranks_embed_all_images_whoever_is_faster(
    world: Path, base: Path, forks: Forks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPIVARA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "bad.png").write_text("no image")
    result = forks.run_ranks([base, world / "images", tmp_path / "bad.png"], tmp_path, code=EMBEDDINGS)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["45 ['no such file', 'not an image that can be read']"] * 2
    stored = [load_file(path)["identity"] for path in (tmp_path / "cache").rglob("*.safetensors")]
    assert sum(map(len, stored)) == 40


def torchrun(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `capivara` with two ranks."""
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "capivara_cli"]
    return subprocess.run([*line, *arguments], cwd=cwd, capture_output=True, text=True, timeout=200, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("pixels", [False, True])
def test_two_ranks_train_what_one_trains(pixels: bool, world: Path, base: Path, forks: Forks, tmp_path: Path) -> None:
    how = ["--full", "--unlock-image"] if pixels else ["--lora"]
    line = ["train", "--lang", "hi", *how, "--data", str(world / "train.jsonl"), "--model", f"local-dir:{base}", *FLAGS]
    one = forks.run([*line, "-o", "one"], tmp_path)
    assert one.returncode == 0, one.stderr
    two = [*line, "-o", "two"]
    result = forks.run_ranks(two, tmp_path) if pixels else torchrun(*two, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "two\n"  # only the first rank speaks
    [path] = (tmp_path / "one").glob("*/*model.safetensors")
    ours, theirs = load_file(tmp_path / "two" / path.relative_to(tmp_path / "one")), load_file(path)
    start = load_file(base / checkpoint.WEIGHTS) if pixels else {name: 0 * tensor for name, tensor in theirs.items()}
    assert distance(ours, theirs, start) < 0.02
