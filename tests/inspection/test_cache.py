from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from capivara_cli import artifacts
from capivara_cli.data import shards
from capivara_cli.data.images import ImageRef
from capivara_cli.inspection.cache import cache
from capivara_cli.models.clip import Clip
from capivara_cli.models.embedding_cache import embed
from capivara_cli.translation.memory import Maker, Memory, default_path
from tests.conftest import command
from tests.helpers import write_tar


@pytest.fixture
def filled(clip: Clip, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with a bit of everything."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("CAPIVARA_CACHE", str(folder))
    refs = [ImageRef(str(world / "images" / f"test-{number:05d}.png")) for number in range(5)]
    embed(clip, refs)
    embed(clip, refs[:2], views=2)
    shards.find(str(write_tar(tmp_path / "0.tar", {"a.png": b"a"})), "a.png")
    with Memory(default_path()) as memory:
        memory.add(Maker("google", "", "en", "hi"), {"a dog": "x", "a cat": "y"})
        memory.add(Maker("nllb", "facebook/nllb", "en", "hi"), {"a dog": "z"})
    converted = folder / "ctranslate2" / artifacts.fingerprint("model")
    converted.mkdir(parents=True)
    (converted / "model.bin").write_bytes(bytes(3 << 20))
    (converted / "shared_vocabulary.json").write_text("[]")
    return folder


def test_what_is_kept_is_shown_by_model(filled: Path, clip: Clip, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    entries = cache()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(filled)
    assert [line.split("  ")[0] for line in lines[1:]] == [
        *["image embeddings"] * 2,
        "indexes of shards",
        *["translations"] * 3,
        "translation model",
    ]
    embeddings = "\n".join(lines[1:3])
    assert f"{clip.spec}, fp32, views: 1" in embeddings
    assert "5 images" in embeddings
    assert "2 images" in embeddings
    assert "1 shard " in lines[3]
    assert "google " in lines[4]
    assert "2 texts" in lines[4]
    assert "nllb facebook/nllb" in lines[5]
    assert lines[7].endswith(" 3.0 MiB")
    total = sum(path.stat().st_size for path in filled.rglob("*") if path.is_file())
    assert sum(entry.size for entry in entries) == total


def test_it_is_emptied_and_nothing_else_is_removed(
    filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (store, _) = (filled / "embeddings").iterdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    foreign = [filled / "thesis.txt", filled / "shards" / "notes.npy", store / "photo.png", elsewhere / "model.bin"]
    for path in foreign:
        path.write_text("not ours")
    (filled / "ctranslate2" / ("0" * 32)).symlink_to(elsewhere)
    cache(clear=True)
    messages = capsys.readouterr().err
    assert f"note: {store / 'photo.png'} and whatever else is in {filled / 'embeddings'} is not ours" in messages
    assert "removed 3." in messages
    assert all(path.read_text() == "not ours" for path in foreign)
    left = [path for path in filled.rglob("*") if path.is_file() or path.is_symlink()]
    assert sorted(left) == sorted([*foreign[:3], filled / "ctranslate2" / ("0" * 32)])


def test_an_emptied_cache_is_empty_and_is_filled_again(
    filled: Path, clip: Clip, world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache(clear=True)
    assert list(filled.iterdir()) == []
    assert cache() == []
    assert "the cache is empty" in capsys.readouterr().err
    table, _, _ = embed(clip, [ImageRef(str(world / "images" / "test-00000.png"))])
    assert np.isfinite(table.parts[0]).all()


def test_what_killed_processes_left_goes_too(filled: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (store, _) = (filled / "embeddings").iterdir()
    (store / f".1.safetensors.{dead.pid}.tmp").touch()
    cache(clear=True)
    assert list(filled.iterdir()) == []


def test_a_damaged_cache_is_shown_and_emptied(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in list(filled.rglob("*")):
        if path.is_file():
            path.write_bytes(b"damaged")
    cache(clear=True)
    assert "unknown" in capsys.readouterr().out
    assert list(filled.iterdir()) == []


def test_the_command_says_the_same(filled: Path) -> None:
    shutil.rmtree(filled / "embeddings")
    result = subprocess.run(command("cache"), capture_output=True, text=True, check=True)
    assert "indexes of shards" in result.stdout
    assert "removed" in subprocess.run(command("cache", "--clear"), capture_output=True, text=True, check=True).stderr
    assert list(filled.iterdir()) == []


def test_scripts_get_json(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = cache(as_json=True)
    shown = json.loads(capsys.readouterr().out)
    assert shown["folder"] == str(filled)
    assert [(row["kind"], row["bytes"]) for row in shown["entries"]] == [(entry.kind, entry.size) for entry in entries]
