from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from capivara_cli.errors import CapivaraError
from capivara_cli.evaluation.classify_eval import classify_eval
from capivara_cli.evaluation.options import ClassifyOptions, RetrieveOptions
from capivara_cli.evaluation.retrieve_eval import retrieve_eval
from capivara_cli.models import checkpoint
from capivara_cli.scoring.options import ScoreOptions
from capivara_cli.scoring.score import score
from capivara_cli.training.options import train_options
from capivara_cli.training.train import train

VERBS: dict[str, Callable[[str, Path], Any]] = {
    "score": lambda data, output: score([data], output / "scored.jsonl", ScoreOptions(verify_cache=True)),
    "retrieve-eval": lambda data, _: retrieve_eval([data], options=RetrieveOptions(lang=["hi"], verify_cache=True)),
    "classify-eval": lambda data, _: classify_eval([data], options=ClassifyOptions(lang=["en"], verify_cache=True)),
    "train": lambda data, output: train(
        train_options("lora", lang=["hi"], data=[data], batch_size=8, verify_cache=True), output / "run"
    ),
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_with_a_cache_can_verify_it(
    verb: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object, verify_cache: bool = False, **__: object) -> None:
        raise CapivaraError(f"verify_cache is {verify_cache}")

    monkeypatch.setattr(checkpoint, "load", load)
    with pytest.raises(CapivaraError, match="verify_cache is True"):
        VERBS[verb](str(world / "train.jsonl"), tmp_path)
