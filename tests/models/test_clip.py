from __future__ import annotations

import torch

from capivara_cli.models import checkpoint
from capivara_cli.models.clip import Clip, tokenise
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


def test_a_text_tower_without_padding_mask_gets_texts_of_full_length() -> None:
    small = checkpoint.load(ModelSpec("RN50"), Runtime.start("cpu", "fp32"), weights=False)
    assert set(tokenise(small, ["a dog", "two dogs and a cat"]).lengths) == {77}
