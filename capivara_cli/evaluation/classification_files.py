"""What `classify-eval` writes beside its results: the answers for each image, and a table of the classes."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from capivara_cli import artifacts, console
from capivara_cli.data.labelled import Labelled

if TYPE_CHECKING:
    from capivara_cli.evaluation.classify_eval import Outcome

TOP = 5  # predictions of an image that are written


@dataclass(frozen=True)
class Answers:
    """The answers for N images: not all scores, which would be gigabytes.

    Attributes:
        items: the images.
        best: (N, 5) numbers of the classes with the best scores, the best first.
        scores: (N, 5) their scores.
        true: numbers of each image's own classes.
        own: (N,) the best score of those; NaN where there is none.
    """

    items: list[Labelled]
    best: np.ndarray
    scores: np.ndarray
    true: list[list[int]]
    own: np.ndarray

    @classmethod
    def of(cls, items: list[Labelled], scores: np.ndarray, truth: np.ndarray) -> Answers:
        """From (N, C) scores and (N, C) whether an image is of a class."""
        best = np.argsort(-scores, axis=1, kind="stable")[:, :TOP]
        true = [np.flatnonzero(row).tolist() for row in truth]
        own = np.array([row[places].max() if places else np.nan for row, places in zip(scores, true, strict=True)])
        return cls(items, best, np.take_along_axis(scores, best, axis=1), true, own)


def write_predictions(outcomes: Sequence[Outcome], path: Path) -> None:
    """A line for each image: what it is, and the best answers with their scores."""
    with artifacts.writing(path) as temporary, temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for outcome in outcomes:
            labels, answers = outcome.labels, outcome.answers
            rows = zip(answers.items, answers.best, answers.scores, answers.true, answers.own, strict=True)
            for item, best, scores, true, own in rows:
                line = {
                    "role": outcome.role,
                    "lang": outcome.lang,
                    "id": item.id,
                    "image": str(item.image),
                    "labels": [labels[i] for i in true],
                    "predicted": labels[best[0]],
                    "correct": int(best[0]) in true,
                    "score": round(float(scores[0]), 6),
                    "label_score": None if np.isnan(own) else round(float(own), 6),
                    "top": [
                        {"label": labels[i], "score": round(float(score), 6)}
                        for i, score in zip(best, scores, strict=True)
                    ],
                }
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    console.say(f"wrote {path}")


def write_classes(outcomes: Sequence[Outcome], path: Path) -> None:
    """A row for each class, language and model."""
    with (
        artifacts.writing(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["role", "lang", "label", "name", "images", "metric", "value"])
        for outcome in outcomes:
            for row in outcome.result["per_class"]:
                measure = "recall" if "recall" in row else "average_precision"
                value = "" if row[measure] is None else f"{row[measure]:.6f}"
                writer.writerow([outcome.role, outcome.lang, row["label"], row["name"], row["images"], measure, value])
    console.say(f"wrote {path}")
