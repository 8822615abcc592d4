"""Captioners of every family say what their library's own `generate` says for each prefix alone."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipForConditionalGeneration,
    BlipProcessor,
)

from capivara_cli.captioning import chat
from capivara_cli.captioning.blip2 import Blip2
from capivara_cli.captioning.captioner import LARGEST_BATCH
from capivara_cli.captioning.load import load
from capivara_cli.captioning.options import CaptionOptions
from capivara_cli.data.images import ImageRef
from capivara_cli.demo.scenes import training_scenes
from capivara_cli.demo.world import draw
from capivara_cli.errors import CapivaraError
from capivara_cli.runtime import Runtime
from tests import small_models

PREFIXES = ("", "a photo of", "a small", "this is a scene depicting", "a photo of a large green", "b")
NEW = 12


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, rng = tmp_path_factory.mktemp("pictures"), random.Random(0)
    paths = [folder / f"{number}.png" for number in range(5)]
    for path, scene in zip(paths, training_scenes(rng), strict=False):
        draw(scene, rng).save(path)
    return paths


def load_small(folder: Path | str, *, prefixes: tuple[str, ...] = PREFIXES, **options: Any) -> Any:
    fixed: dict[str, Any] = {"model": str(folder), "max_new_tokens": NEW}
    return load(CaptionOptions(**fixed | options), prefixes, Runtime.start("cpu", "fp32"))


def describe(captioner: Any, pictures: list[Path]) -> list[list[str]]:
    prepared = [captioner.prepare(ImageRef(str(path))) for path in pictures]
    return captioner.captions(torch.stack(prepared) if torch.is_tensor(prepared[0]) else prepared)


def generate(model: Any, processor: Any, picture: Path, text: str, num_beams: int = 1) -> tuple[list[int], list[int]]:
    """Return the tokens of one prompt, and what the library's own `generate` returns for it alone."""
    inputs = processor(images=Image.open(picture), text=text, return_tensors="pt")
    tokens = model.generate(**inputs, max_new_tokens=NEW, num_beams=num_beams, do_sample=False)
    return inputs.input_ids[0].tolist(), tokens[0].tolist()


def pairs(pictures: list[Path], prefixes: tuple[str, ...]) -> Iterator[tuple[int, Path, int, str]]:
    for (i, picture), (j, prefix) in itertools.product(enumerate(pictures), enumerate(prefixes)):
        yield i, picture, j, prefix


@pytest.mark.parametrize("num_beams", [1, 2, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_blip2_says_what_generate_says_for_each_prefix_alone(
    seed: int, num_beams: int, pictures: list[Path], tmp_path: Path
) -> None:
    folder = small_models.blip2(tmp_path / "blip2", seed=seed, ends=50 if num_beams == 1 else 150)
    got = describe(load_small(folder, num_beams=num_beams), pictures)
    processor = Blip2Processor.from_pretrained(folder)
    model = Blip2ForConditionalGeneration.from_pretrained(folder)
    ends = set(model.language_model.generation_config.eos_token_id)
    lengths = set()
    for i, picture, j, prefix in pairs(pictures, PREFIXES):
        prompt, tokens = generate(model, processor, picture, prefix, num_beams)
        new = tokens[len(prompt) :]
        words = itertools.takewhile(lambda token: token not in ends, new)
        assert got[i][j] == processor.tokenizer.decode([*prompt, *words], skip_special_tokens=True)
        lengths.add(len(new))
    assert len({text for texts in got for text in texts}) > len(PREFIXES)  # images and prefixes matter
    assert len(lengths) > 2  # some ended early, at different steps


def test_settings_that_the_decoder_does_not_support_go_to_the_library(pictures: list[Path], tmp_path: Path) -> None:
    folder = small_models.blip2(tmp_path / "blip2", ends=1)
    captioner = load_small(folder)
    free = describe(captioner, pictures[:2])
    captioner.model.language_model.generation_config.no_repeat_ngram_size = 1
    processor = Blip2Processor.from_pretrained(folder)
    strict = Blip2(captioner.model, processor, captioner.options, PREFIXES, captioner.runtime)
    assert strict.decoder is None
    said = describe(strict, pictures[:2])
    assert said != free
    assert any(text.startswith("a photo of a large green") and len(text) > 24 for text in said[0])


def test_blip2_with_t5_says_what_generate_says(pictures: list[Path], tmp_path: Path) -> None:
    folder = small_models.blip2_t5(tmp_path / "t5")
    got = describe(load_small(folder), pictures)
    processor = Blip2Processor.from_pretrained(folder)
    model = Blip2ForConditionalGeneration.from_pretrained(folder)
    for i, picture, j, prefix in pairs(pictures, PREFIXES):
        _, tokens = generate(model, processor, picture, prefix)
        assert got[i][j] == f"{prefix} {processor.tokenizer.decode(tokens, skip_special_tokens=True)}"


@pytest.mark.parametrize("num_beams", [1, 3])
def test_blip_says_what_generate_says(num_beams: int, pictures: list[Path], tmp_path: Path) -> None:
    folder = small_models.blip(tmp_path / "blip")
    prefixes = ("", "a photo of", "A photo of a", "a small")
    got = describe(load_small(folder, prefixes=prefixes, num_beams=num_beams), pictures)
    processor = BlipProcessor.from_pretrained(folder)
    model = BlipForConditionalGeneration.from_pretrained(folder)
    for i, picture, j, prefix in pairs(pictures, prefixes):
        _, tokens = generate(model, processor, picture, prefix, num_beams)
        assert got[i][j].lower() == processor.tokenizer.decode(tokens, skip_special_tokens=True)
        assert got[i][j].startswith(prefix)
    assert len({text for texts in got for text in texts}) > len(prefixes)


def test_a_chat_model_says_what_generate_says_to_each_instruction(pictures: list[Path], tmp_path: Path) -> None:
    folder = small_models.llava(tmp_path / "llava")
    captioner = load_small(folder)
    got = describe(captioner, pictures[:3])
    model: Any = AutoModelForImageTextToText.from_pretrained(folder)
    for i, picture, j, prefix in pairs(pictures[:3], PREFIXES):
        text = f"USER: <image>{chat.instruction(prefix, 'en')} ASSISTANT:"
        prompt, tokens = generate(model, captioner.processor, picture, text)
        said = captioner.processor.decode(tokens[len(prompt) :], skip_special_tokens=True)
        assert got[i][j] == said.strip().strip('"')
    assert len({text for texts in got for text in texts}) > len(PREFIXES)


def test_an_instruction_names_prefix_and_language() -> None:
    assert '"a photo of"' in chat.instruction("a photo of", "en")
    assert " pt." in chat.instruction("", "pt")
    assert "begins" not in chat.instruction("", "pt")


def test_a_chat_model_without_a_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CapivaraError, match="no chat template"):
        load_small(small_models.llava(tmp_path / "base", template=None))


def test_a_model_that_cannot_describe_images_is_refused(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    BertModel(BertConfig(**small_models.SMALL)).save_pretrained(tmp_path / "bert")
    with pytest.raises(CapivaraError, match="is a bert, which does not describe images") as error:
        load_small(tmp_path / "bert")
    assert "BLIP-2" in (error.value.hint or "")


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    folder = small_models.blip2(tmp_path / "blip2")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CapivaraError, match="no weights"):
        load_small(folder)


def test_truncated_weights_are_named(tmp_path: Path) -> None:
    folder = small_models.blip2(tmp_path / "blip2")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(CapivaraError, match="cannot be loaded"):
        load_small(folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [("nowhere", "no such folder"), ("./nowhere/at-all", "no such folder"), ("Org/model", "hub cannot be reached")],
)
def test_a_missing_model_says_what_to_do(name: str, message: str) -> None:
    with pytest.raises(CapivaraError, match=message) as error:
        load_small(name)
    assert error.value.hint


def test_a_folder_without_a_config_is_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(CapivaraError, match=r"no config\.json"):
        load_small(tmp_path)


@pytest.mark.parametrize("family", ["blip2", "blip"])
def test_more_tokens_than_positions_are_refused(family: str, tmp_path: Path) -> None:
    folder = getattr(small_models, family)(tmp_path / family)
    with pytest.raises(CapivaraError, match=r"--max-new-tokens 4000: the prompt has \d+ tokens") as error:
        load_small(folder, max_new_tokens=4000)
    assert error.value.hint is not None
    load_small(folder, max_new_tokens=int(error.value.hint.removeprefix("--max-new-tokens ")))  # it works when typed


@pytest.mark.parametrize("family", ["blip2", "blip"])
def test_a_prefix_that_leaves_no_position_for_new_tokens_is_refused(family: str, tmp_path: Path) -> None:
    folder = getattr(small_models, family)(tmp_path / family)
    with pytest.raises(CapivaraError, match=r"a prefix is too long: the prompt has \d+ tokens") as error:
        load_small(folder, prefixes=("a photo of", "a photo " * 300), max_new_tokens=1)
    assert "--max-new-tokens" not in (error.value.hint or "")
    load_small(folder, prefixes=("",), max_new_tokens=1)  # the hint's --prefixes none


def test_the_batch_fits_into_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captioner = load_small(small_models.blip2(tmp_path / "blip2"))
    assert captioner.batch_size() == LARGEST_BATCH
    monkeypatch.setattr(Runtime, "memory", lambda _: (10 * captioner.bytes_per_image(), 0))
    assert captioner.batch_size() == 6
