from __future__ import annotations

import pytest

from capivara_cli.models.spec import ModelSpec


@pytest.mark.parametrize(
    ("given", "name", "pretrained"),
    [
        (None, "xlm-roberta-base-ViT-B-32", "laion5b_s13b_b90k"),
        ("ViT-B-32:openai", "ViT-B-32", "openai"),
        ("local-dir:a:b", "local-dir:a:b", None),
        ("hf-hub:org/repo", "hf-hub:org/repo", None),
    ],
)
def test_a_model_is_named_as_open_clip_names_it(given: str | None, name: str, pretrained: str | None) -> None:
    assert ModelSpec.parse(given) == ModelSpec(name, pretrained)
