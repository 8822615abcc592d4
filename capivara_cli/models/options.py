"""Flags that name a model, and the settings of an adapter: what several verbs share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from capivara_cli.models.spec import DEFAULT_MODEL, DEFAULT_PRETRAINED
from capivara_cli.options import Options, flag, key

MODEL_HELP = "Architecture of open_clip, hf-hub:ORG/REPO or local-dir:FOLDER."


class CacheOptions(Options):
    """How far to trust the cache of image embeddings."""

    verify_cache: bool = flag(
        "Compare every cached image embedding with the content of its image first.",
        default=False,
        name="--verify-cache",
        changes_result=False,
    )


class WeightsOptions(Options):
    """Which weights of an architecture."""

    pretrained: str | None = flag(
        "Tag of an architecture's weights.",
        default=None,
        metavar="TAG",
        shown=f"{DEFAULT_PRETRAINED} for the default model",
    )


class ModelOptions(WeightsOptions, CacheOptions):
    """The model to use."""

    model_unless: ClassVar[tuple[str, ...]] = ("adapter",)  # an adapter names its base model itself

    model: str | None = flag(MODEL_HELP, default=None, shown=DEFAULT_MODEL)
    adapter: Path | None = flag("Run folder whose adapter is put on the model.", default=None, metavar="RUN")


class ComparedModelOptions(ModelOptions):
    """The model to evaluate, and what to compare it with."""

    baseline: str | None = flag(
        "Model to compare with: ARCHITECTURE[:TAG], hf-hub:… or local-dir:…", default=None, metavar="MODEL"
    )


class LoraOptions(Options):
    """The adapter, as PEFT understands it."""

    r: int = key("Rank.", default=8, above=0, max=4096)  # widths of layers end there: a larger rank only costs memory
    alpha: float = key("The update is (alpha / r) B A.", default=8, above=0)
    target_modules: Sequence[str] = key(
        "Names of layers of the text tower; those that it has are used. The recipe's query and value, as XLM-R and"
        " BERT, M2M100, and T5 spell them.",
        default=("query", "value", "q_proj", "v_proj", "q", "v"),
    )
    projection: bool = key("Train the text projection as a whole.", default=True)
    tokens: bool = flag(
        "Also train the embeddings of the tokens that occur in the captions.",
        default=False,
        name="--tokens/--no-tokens",
        shown="the recipe's",
    )
