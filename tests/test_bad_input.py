"""What a person gets wrong, as real processes: one clear line, exit code 1 or 2, nothing lost."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from capivara_cli.demo.small_clip import make_small_clip
from capivara_cli.models import checkpoint
from tests.conftest import FLAGS, Process

Capivara = Callable[..., Process]


def assert_one_clear_line(result: Process, *says: str, code: int = 1) -> None:
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, result.stderr
    for text in says:
        assert text in result.stderr


def write(path: Path, count: int, lang: str = "hi") -> Path:
    lines = [
        json.dumps({"image": f"{i}.png", "captions": [{"text": f"{lang} {i}", "lang": lang}]}) for i in range(count)
    ]
    path.write_text("\n".join(lines))
    return path


def test_train_in_an_empty_folder_says_what_is_missing_and_what_to_type(capivara: Capivara) -> None:
    result = capivara("train", "--lang", "hi", "--lora")
    assert_one_clear_line(result, "data/train.jsonl", "--data FILE", "capivara demo")


@pytest.mark.parametrize(
    ("data", "flags", "says"),
    [
        ("no.jsonl", [], ["no.jsonl: no such file"]),
        ("empty.jsonl", [], ["empty.jsonl"]),
        ("torn.jsonl", [], ["torn.jsonl:17: not JSON"]),
        ("pt.jsonl", [], ["no caption in hi", "pt (30)"]),
        ("hi.jsonl", ["--batch-size", 1000], ["30 images", "batch of 1000", "--batch-size 8"]),
    ],
)
def test_data_that_cannot_be_trained_on(
    data: str, flags: list[str | int], says: list[str], capivara: Capivara, tmp_path: Path
) -> None:
    (tmp_path / "empty.jsonl").touch()
    lines = write(tmp_path / "hi.jsonl", 30).read_text().splitlines()
    lines[16] = '{"image": "16.png", "captions": ['
    (tmp_path / "torn.jsonl").write_text("\n".join(lines))
    write(tmp_path / "pt.jsonl", 30, "pt")
    assert_one_clear_line(capivara("train", "--lang", "hi", "--lora", "--data", data, *flags), *says)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "neither --lora nor --full"),
        (["--lora", "--full"], "both --lora and --full"),
        (["--lora", "--set", "optimizer.lr=fast"], "--set: optimizer.lr = 'fast': not a number"),
    ],
)
def test_wrong_options_are_a_usage_error(flags: list[str], message: str, capivara: Capivara) -> None:
    assert_one_clear_line(capivara("train", "--lang", "hi", "--data", "x.jsonl", *flags), message, code=2)


@pytest.mark.parametrize("name", ["train", "merge-lora", "retrieve-eval", "demo"])
def test_a_mistyped_flag_is_a_usage_error(name: str, capivara: Capivara) -> None:
    result = capivara(name, "--ovewrite")
    assert result.returncode == 2
    assert "--ovewrite" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_folder_of_another_run(capivara: Capivara, world: Path, base: Path, run: Path) -> None:
    data = ["--data", world / "train.jsonl", "--model", f"local-dir:{base}", *FLAGS]
    result = capivara("train", "--lang", "pt", "--lora", *data, "-o", run)
    assert_one_clear_line(result, "other settings", "lang: was ['hi'], now ['pt']", "--overwrite")


def test_an_adapter_of_another_model(capivara: Capivara, world: Path, run: Path, tmp_path: Path) -> None:
    from capivara_cli.models.spec import ModelSpec
    from capivara_cli.runtime import Runtime

    texts = (world / "test.jsonl").read_text().splitlines()
    empty = make_small_clip(tmp_path / "empty", texts, vocabulary=300, width=64)
    other = checkpoint.load(ModelSpec(f"local-dir:{empty}"), Runtime.start("cpu", "fp32"), weights=False)
    checkpoint.save(other, tmp_path / "other")
    data = ["--data", world / "test.jsonl", "--lang", "hi"]
    result = capivara("retrieve-eval", *data, "--model", "local-dir:other", "--adapter", run)
    assert_one_clear_line(result, "does not fit", "query", "the model has", "it was trained on")


def test_a_model_that_open_clip_does_not_know(capivara: Capivara, world: Path) -> None:
    data = ["--data", world / "test.jsonl", "--lang", "hi"]
    result = capivara("retrieve-eval", *data, "--model", "xlm-roberta-base-ViT-B32")
    assert_one_clear_line(result, "did you mean xlm-roberta-base-ViT-B-32")


@pytest.mark.parametrize("model", ["xlm-roberta-base-ViT-B-32", "hf-hub:nobody/nothing"])
def test_weights_without_network(model: str, capivara: Capivara, world: Path, tmp_path: Path) -> None:
    # Port 9 of this machine, where nobody listens: a real connection that fails.
    env = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "empty")}
    data = ["--data", world / "test.jsonl", "--lang", "hi"]
    result = capivara("retrieve-eval", *data, "--model", model, env=env)
    assert_one_clear_line(result, "hub cannot be reached", "local-dir:FOLDER")


def test_images_none_of_which_can_be_read(capivara: Capivara, world: Path, base: Path, tmp_path: Path) -> None:
    good = (world / "images" / "test-00000.png").read_bytes()
    (tmp_path / "0.png").write_text("text")
    (tmp_path / "1.png").write_bytes(good[: len(good) // 2])
    (tmp_path / "2.png").write_bytes(huge_png())
    write(tmp_path / "data.jsonl", 4)
    model = ["--model", f"local-dir:{base}"]
    result = capivara("train", "--lang", "hi", "--lora", "--data", "data.jsonl", "--batch-size", "2", *model)
    assert_one_clear_line(result, "0 images that can be read", "0.png: not an image that can be read")


def test_images_some_of_which_cannot_be_read_are_named(
    capivara: Capivara, world: Path, base: Path, tmp_path: Path
) -> None:
    good = (world / "images" / "test-00000.png").read_bytes()
    contents = [good, b"text", good[: len(good) // 2], huge_png()]
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.png").write_bytes(content)
    write(tmp_path / "data.jsonl", 5)
    result = capivara("retrieve-eval", "--data", "data.jsonl", "--lang", "hi", "--model", f"local-dir:{base}")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["n_rejected"] == 4
    for reason in ("not an image that can be read", "truncated", "too many pixels", "no such file"):
        assert reason in result.stderr


def huge_png() -> bytes:
    """Return a PNG of 50,000 x 50,000 pixels in a few bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(150_001) * 20)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_a_loss_that_is_no_number(capivara: Capivara, world: Path, base: Path) -> None:
    data = ["--data", world / "train.jsonl", "--model", f"local-dir:{base}", "--set", "optimizer.warmup_steps=0"]
    result = capivara("train", "--lang", "hi", "--lora", *data, "--batch-size", "32", "--lr", "1e30")
    assert_one_clear_line(result, "the loss of step", "a smaller --lr", "weights so far")


@pytest.mark.parametrize("largest", [20_000, 1 << 20], ids=["tokenizer", "weights"])
def test_a_full_disk(largest: int, run: Path, capivara: Capivara, tmp_path: Path) -> None:
    result = capivara("merge-lora", run, "-o", "merged", largest=largest)
    assert_one_clear_line(result, "cannot write merged", "free some space")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_in_the_middle_of_a_run_keeps_what_was_written(
    world: Path, base: Path, capivara: Capivara, tmp_path: Path
) -> None:
    data = ["--data", world / "train.jsonl", "--model", f"local-dir:{base}", *FLAGS]
    how = ["--max-steps", 200, "--set", "eval_every=200", "--set", "save_seconds=0"]
    result = capivara("train", "--lang", "hi", "--lora", *data, *how, "-o", "out", largest=150_000)
    assert_one_clear_line(result, "cannot write out/state.safetensors", "free some space")
    done = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(done[0])["step"] == 0
    assert not list((tmp_path / "out").glob("*.tmp"))


def test_debug_shows_the_traceback(capivara: Capivara) -> None:
    result = capivara("train", "--lang", "hi", "--lora", "--data", "no.jsonl", "--debug")
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "no.jsonl: no such file" in result.stderr


def test_a_file_name_does_not_steer_the_terminal(capivara: Capivara) -> None:
    result = capivara("train", "--lang", "hi", "--lora", "--data", "\033[2Jno.jsonl")
    assert "\033" not in result.stderr
    assert "no.jsonl" in result.stderr
