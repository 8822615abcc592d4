from __future__ import annotations

import pytest
import torch

from capivara_cli.models import checkpoint
from capivara_cli.models.clip import Clip, tokenise
from capivara_cli.models.cut_texts import CutTexts
from capivara_cli.models.spec import ModelSpec
from capivara_cli.runtime import Runtime

TEXTS = ["a small red circle", "a large blue star above a small green square on a white background", "लाल तारा", ""]


def test_trimmed_and_padded_texts_have_the_same_embeddings(clip: Clip) -> None:
    with torch.inference_mode():
        padded = clip.model.encode_text(clip.tokenizer(TEXTS), normalize=True)
    assert clip.tokenizer(TEXTS).shape[1] > int(tokenise(clip, TEXTS).lengths.max())
    torch.testing.assert_close(clip.encode_texts(TEXTS), padded, rtol=0, atol=1e-6)


def test_a_text_without_words_is_encoded_like_any_other(clip: Clip) -> None:
    assert clip.encode_texts(["", "  "]).isfinite().all()


def test_a_text_longer_than_the_context_is_truncated_as_open_clip_does(clip: Clip) -> None:
    long = "a small red circle and " * 40
    with torch.inference_mode():
        plain = clip.model.encode_text(clip.tokenizer([long]), normalize=True)
    torch.testing.assert_close(clip.encode_texts([long]), plain, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["base", "RN50"])
def test_texts_longer_than_the_context_are_counted_and_told(
    name: str, clip: Clip, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not those that just fit."""
    if name == "RN50":
        clip = checkpoint.load(ModelSpec("RN50"), Runtime.start("cpu", "fp32"), weights=False)
    context = clip.tokenizer.context_length
    length = next(
        n for n in range(context) if (clip.tokenizer(["a " * n])[0, -2:] != clip.tokenizer([""])[0, -1]).all()
    )
    texts = ["", "a", "a " * (length - 1), "a " * length, "a " * (length + 1), "a " * 300, "a"]
    clip.encode_texts(texts)
    counts = CutTexts.of(clip, texts)
    counts.warn("captions in en")
    assert (counts.cut, counts.total) == (2, 7)
    assert counts.content() == {"count": 2, "share": 0.285714, "example": texts[4]}
    assert f"2 of 7 captions in en (28.6%) are longer than the model's {context} tokens" in capsys.readouterr().err


def test_a_text_tower_without_padding_mask_gets_texts_of_full_length() -> None:
    small = checkpoint.load(ModelSpec("RN50"), Runtime.start("cpu", "fp32"), weights=False)
    assert set(tokenise(small, ["a dog", "two dogs and a cat"]).lengths) == {77}
