"""The flags of `retrieve-eval` and `classify-eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from capivara_cli.data.languages import Langs
from capivara_cli.models.options import ComparedModelOptions
from capivara_cli.options import Machine, flag


class EvaluationOptions(ComparedModelOptions, Machine):
    """What to measure, in which languages."""

    lang: Langs = flag("Language to evaluate, BCP-47: hi, pt-BR; repeatable, at least one.", default=(), metavar="LANG")
    overwrite: bool = flag("Replace result files that exist.", default=False, name="--overwrite", changes_result=False)


class RetrieveOptions(EvaluationOptions):
    """What to measure in retrieval."""

    section = "retrieve-eval"

    trained_on: str | None = flag(
        "Run, or records, that the model was trained on: reports how much of the test data it contains.",
        default=None,
        metavar="RUN|DATA",
        shown="the run of --adapter",
        changes_result=False,
    )
    ranks: Path | None = flag("JSONL with the rank of each query.", default=None, metavar="FILE", changes_result=False)


class ClassifyOptions(EvaluationOptions):
    """What to measure in zero-shot classification."""

    section = "classify-eval"

    classes: str | None = flag(
        "Names of the classes: FILE, FILE#KEY or the NAME of a set (see --list).",
        default=None,
        metavar="FILE|NAME",
        shown="the labels themselves, in English",
    )
    templates: str | None = flag(
        "File with templates, where {c} stands for the name, or with prompts by class.",
        default=None,
        metavar="FILE",
        shown="the class set's",
    )
    metric: Literal["auto", "acc1", "acc5", "mean_per_class_recall", "map", "map11", "roc_auc"] = flag(
        "Main metric; auto is the class set's. All applicable metrics are in the result.", default="auto"
    )
    split: str | None = flag("Split to use, for example test.", default=None, metavar="NAME")
    images: Path | None = flag("Folder of the images that a table names.", default=None, metavar="DIR")
    predictions: Path | None = flag(
        "JSONL with the best classes of each image.", default=None, metavar="FILE", changes_result=False
    )
    per_class: Path | None = flag(
        "CSV with the recall of each class.", default=None, metavar="FILE", changes_result=False
    )
