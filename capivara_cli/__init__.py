"""capivara: CLIP for languages that it hardly knows.

    from capivara_cli import TranslateOptions, translate

    translate(["photos.jsonl"], "photos.hi.jsonl", TranslateOptions(to=["hi"]))

Each verb of the command line is a function here, and takes the options class of that verb. Nothing heavy is imported
before the first one is used.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_ROOMS = {
    "cache": "inspection.cache",
    "caption": "captioning.caption",
    "CaptionOptions": "captioning.options",
    "classify_eval": "evaluation.classify_eval",
    "ClassifyOptions": "evaluation.options",
    "doctor": "inspection.doctor",
    "export": "exporting.export",
    "ExportOptions": "exporting.options",
    "import_data": "importing.import_data",
    "ImportOptions": "importing.options",
    "merge_lora": "training.merge_lora",
    "MergeOptions": "training.options",
    "retrieve_eval": "evaluation.retrieve_eval",
    "RetrieveOptions": "evaluation.options",
    "score": "scoring.score",
    "ScoreOptions": "scoring.options",
    "train": "training.train",
    "TrainOptions": "training.options",
    "train_options": "training.options",
    "translate": "translation.translate",
    "TranslateOptions": "translation.options",
}
"""Public name -> the module that has it."""

__all__ = ["__version__", *_ROOMS]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return getattr(importlib.import_module(f"capivara_cli.{_ROOMS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
