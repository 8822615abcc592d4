"""Commands that replace a folder, killed at random moments: the old folder or the new one is always there, whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import SETTINGS
from tests.forks import Forks

# A fork for each run, as tests/kills.py has it.
KILLS = """
import os, random, signal, sys, time
from pathlib import Path
from capivara_cli import artifacts
from capivara_cli.training.merge_lora import merge_lora
from capivara_cli.training.options import MergeOptions, train_options
from capivara_cli.training.train import train

verb, folder, kills, run, data, base, *settings = sys.argv[1:]
folder, rng = Path(folder), random.Random(verb)

def work():
    if verb == "merge":
        merge_lora(run, folder, MergeOptions(overwrite=True))
    else:
        flags = {"lang": ["hi"], "data": [data], "model": "local-dir:" + base, "overwrite": True}
        train(train_options("lora", set=[*settings, "save_seconds=0"], **flags), folder)

def start():
    child = os.fork()
    if not child:
        work()
        os._exit(0)
    return child

def whole():
    files = {path.name for path in folder.rglob("*") if path.is_file()}
    wanted = {"merge": {"open_clip_model.safetensors", "README.md", "config.json"}, "train": {"config.yaml"}}[verb]
    assert wanted <= files, files

started = time.monotonic()
assert os.waitpid(start(), 0)[1] == 0
seconds = time.monotonic() - started
for _ in range(int(kills)):
    child = start()
    time.sleep(rng.uniform(0, 1) * seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    artifacts.remove_stale(folder)
    whole()
assert os.waitpid(start(), 0)[1] == 0
whole()
assert [path.name for path in folder.parent.iterdir()] == [folder.name], list(folder.parent.iterdir())
assert not [path for path in folder.rglob(".*") if path.name != ".capivara.json"]
"""


@pytest.mark.parametrize("verb", ["train", "merge"])
def test_a_replaced_folder_survives_kills(
    verb: str, run: Path, world: Path, base: Path, forks: Forks, tmp_path: Path
) -> None:
    folder = tmp_path / "out" / "folder"
    if verb == "train":
        shutil.copytree(run, folder)
    result = forks.run([verb, folder, 6, run, world / "train.jsonl", base, *SETTINGS], tmp_path, code=KILLS)
    assert result.returncode == 0, result.stderr
