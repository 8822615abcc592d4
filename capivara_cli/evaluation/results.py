"""Results of an evaluation: their content and signature, the comparison with a baseline, and the files."""

from __future__ import annotations

import csv
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import numpy as np

from capivara_cli import __version__, artifacts, console, files
from capivara_cli.data.labelled import LabelledImage
from capivara_cli.data.output import check_not_a_source
from capivara_cli.data.records import Record, to_json
from capivara_cli.errors import CapivaraError
from capivara_cli.evaluation.options import EvaluationOptions
from capivara_cli.files import Kind
from capivara_cli.metrics.bootstrap import compare_hits, compare_ranks
from capivara_cli.metrics.classification import hits
from capivara_cli.metrics.retrieval import Ranks
from capivara_cli.models.clip import Clip

TOP = 5  # predictions per image in --predictions
HITS = {"acc1": 1, "acc5": 5, "mean_per_class_recall": 1}  # metrics computed from hits@k -> k


@dataclass(frozen=True)
class Result(ABC):
    """The result of one model in one language.

    Attributes:
        content: what the result file holds: CLIP_benchmark's keys, our metrics and the signature.
    """

    content: dict[str, Any]

    @abstractmethod
    def difference(self, baseline: Self, seed: int) -> dict[str, float]:
        """Return metrics minus the baseline's, and for the main metric `low`, `high` and `p_value` if it has them."""

    @abstractmethod
    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield an object per query or image, for `--ranks` or `--predictions`."""


@dataclass(frozen=True)
class RetrievalResult(Result):
    """The result of `retrieve-eval`.

    Attributes:
        ranks: of the T text queries and of the image queries.
        texts: (T,) the text queries.
        images: (I,) records of the images.
    """

    ranks: Ranks
    texts: list[str]
    images: list[Record]

    def difference(self, baseline: Self, seed: int) -> dict[str, float]:
        """Return the difference in mean recall with its interval."""
        return compare_ranks(self.ranks, baseline.ranks, seed=seed)

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield an object per query with the rank of its first positive; ties count as their expected rank."""
        text_ranks, image_ranks = self.ranks.text_to_image.expected(), self.ranks.image_to_text.expected()
        for text, row, rank in zip(self.texts, self.ranks.text_rows, text_ranks, strict=True):
            yield {"direction": "text_to_image", "id": self.images[row].id, "text": text, "rank": float(rank)}
        for row, rank in zip(self.ranks.image_rows, image_ranks, strict=True):
            yield {"direction": "image_to_text", "id": self.images[row].id, "rank": float(rank)}


@dataclass(frozen=True)
class ClassificationResult(Result):
    """The result of `classify-eval`. All N x C scores would take gigabytes: only the best of each image are kept.

    Attributes:
        images: the N images.
        labels: of the C classes.
        top: (N, 5) class indices of the highest scores, in descending order.
        top_scores: (N, 5) these scores.
        true: indices of each image's own classes.
        label_scores: (N,) the highest score of an image's own classes; NaN for an image of no class.
        hits: (N,) probability that each image is classified correctly; None if the main metric is not in HITS.
        groups: (N,) class index of each image, if the main metric is a mean over classes.
    """

    images: list[LabelledImage]
    labels: list[str]
    top: np.ndarray
    top_scores: np.ndarray
    true: list[list[int]]
    label_scores: np.ndarray
    hits: np.ndarray | None
    groups: np.ndarray | None

    @classmethod
    def from_scores(
        cls,
        content: dict[str, Any],
        images: list[LabelledImage],
        labels: list[str],
        scores: np.ndarray,
        truth: np.ndarray,
    ) -> Self:
        """Keep what the files and the comparison need of (N, C) scores and (N, C) bool truth."""
        main = content["main_metric"]
        # A stable sort of the negated scores: of equal scores the first class comes first, as with argmax.
        top = np.argsort(-scores, axis=1, kind="stable")[:, :TOP]
        true = [np.flatnonzero(row).tolist() for row in truth]
        label_scores = [row[classes].max() if classes else np.nan for row, classes in zip(scores, true, strict=True)]
        return cls(
            content,
            images,
            labels,
            top,
            np.take_along_axis(scores, top, axis=1),
            true,
            np.array(label_scores),
            hits(scores, truth, HITS[main]) if main in HITS else None,
            truth.argmax(axis=1) if main == "mean_per_class_recall" else None,
        )

    def difference(self, baseline: Self, seed: int) -> dict[str, float]:
        """Return the differences of all metrics, and the interval if the main metric is an accuracy."""
        ours, theirs = self.content["metrics"], baseline.content["metrics"]
        difference = {name: ours[name] - theirs[name] for name in ours if name in theirs}
        # A paired test needs the same images; one may have become unreadable between the two models.
        same_images = [image.id for image in self.images] == [image.id for image in baseline.images]
        if self.hits is not None and baseline.hits is not None and same_images:
            difference |= compare_hits(self.hits, baseline.hits, self.groups, seed=seed)
        return difference

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield an object per image: its labels, the prediction, and the five highest scores."""
        rows = zip(self.images, self.top, self.top_scores, self.true, self.label_scores, strict=True)
        for image, top, scores, true, label_score in rows:
            best = [
                {"label": self.labels[i], "score": round(float(score), 6)} for i, score in zip(top, scores, strict=True)
            ]
            yield {
                "id": image.id,
                "image": str(image.image),
                "labels": [self.labels[i] for i in true],
                "predicted": best[0]["label"],
                "correct": int(top[0]) in true,
                "score": best[0]["score"],
                "label_score": None if np.isnan(label_score) else round(float(label_score), 6),
                "top": best,
            }


def make_content(
    clip: Clip,
    role: str,
    data: Sequence[str],
    lang: str,
    task: str,
    metrics: dict[str, float],
    counts: Mapping[str, object],
    settings: Mapping[str, object],
) -> dict[str, Any]:
    """Return the content of a result file.

    Args:
        task: retrieval or classification.
        counts: keys of the result file that only this task has.
        settings: what else changes the figures, for the signature. The signature is one line, as sacrebleu's, with all
            that somebody needs to measure the same again.
    """
    signature = {
        "capivara": __version__,
        "task": task,
        **clip.signature(),
        "data": "+".join(Path(name).name for name in data),
        "lang": lang,
        **settings,
        "precision": clip.runtime.precision,
        "ties": "expected",
    }
    return {
        "dataset": dataset_name(data),
        **clip.spec.columns(),
        "role": role,
        "task": f"zeroshot_{task}",
        "metrics": metrics,
        "language": lang,
        **counts,
        "signature": "|".join(f"{key}:{value}" for key, value in signature.items()),
    }


def dataset_name(data: Sequence[str]) -> str:
    """Return CLIP_benchmark's `dataset`: the names of the sources."""
    return "+".join(Path(name).stem if name != "-" else "stdin" for name in data)


def compare_with_baseline(results: Sequence[Result], seed: int) -> None:
    """Add `baseline` to each result of the model: the baseline's metrics in that language, and the differences."""
    baselines = {result.content["language"]: result for result in results if result.content["role"] == "baseline"}
    for result in results:
        if result.content["role"] == "model" and baselines:
            baseline = baselines[result.content["language"]]
            result.content["baseline"] = {
                **{key: baseline.content[key] for key in ("model", "pretrained", "metrics")},
                "difference": result.difference(baseline, seed),
            }


def check_outputs(
    sources: Sequence[str],
    options: EvaluationOptions,
    roles: Sequence[str],
    output: Path | None,
    others: Mapping[str, tuple[Path | None, Kind]],
) -> None:
    """Raise CapivaraError now for a file that cannot be written after the work, or that would replace another file.

    Args:
        sources: names of the files that are read.
        others: flag -> file to write beside the results, and what it will be.
    """
    outputs = [(flag, path, kind) for flag, (path, kind) in others.items() if path is not None]
    if output is not None and str(output) != "-":
        files.refuse_folder(output, "--output")
        results = [{"language": lang, "role": role} for role in roles for lang in options.lang]
        outputs += [("--output", _result_path(output, result, results), files.RESULT) for result in results]
    first_flag: dict[Path, str] = {}
    for flag, path, kind in outputs:
        if str(path) == "-":
            raise CapivaraError(f"{flag} -: standard output is for the results", f"{flag} FILE")
        files.refuse_folder(path, flag)
        check_not_a_source(sources, path)
        files.check_writable(path, kind, overwrite=options.overwrite, flag=flag)
        first = first_flag.setdefault(Path(os.path.realpath(path)), flag)
        if first != flag and not files.is_stream(path):
            raise CapivaraError(f"{flag} and {first} are both {path}", "use another name")


def write_results(contents: Sequence[dict[str, Any]], output: Path | None) -> None:
    """Write one file per result, which `clip_benchmark build` reads; to a stream (`-` or a device), JSON lines."""
    if output is None:
        return
    for content in contents:
        if str(output) == "-":
            console.answer(to_json(content))
        elif files.is_stream(output):
            artifacts.write_text(output, to_json(content) + "\n")
        else:
            path = _result_path(output, content, contents)
            artifacts.write_json(path, content)
            console.say(f"wrote {path}")


def _result_path(output: Path, content: dict[str, Any], contents: Sequence[dict[str, Any]]) -> Path:
    """Return `result.json`; with several languages `result.hi.json`; and for the baseline `result.hi.baseline.json`."""
    if files.is_stream(output):
        return output
    many = len({other["language"] for other in contents}) > 1
    lang = f".{re.sub(r'[^A-Za-z0-9_-]', '_', content['language'])}" if many else ""
    role = ".baseline" if content["role"] == "baseline" else ""
    return output.with_name(output.stem + lang + role + (output.suffix or ".json"))


def write_lines(results: Sequence[Result], path: Path | None) -> None:
    """Write the lines of all results as JSONL: the file of `--ranks` or `--predictions`."""
    if path is None:
        return
    with _open(path) as file:
        for result in results:
            head = {"role": result.content["role"], "lang": result.content["language"]}
            file.writelines(to_json(head | line) + "\n" for line in result.lines())


def write_per_class(results: Sequence[ClassificationResult], path: Path | None) -> None:
    """Write a CSV with a row per class, language and model."""
    if path is None:
        return
    with _open(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["role", "lang", "label", "name", "images", "metric", "value"])
        for result in results:
            role, lang = result.content["role"], result.content["language"]
            for row in result.content["per_class"]:
                metric = "recall" if "recall" in row else "average_precision"
                value = "" if row[metric] is None else f"{row[metric]:.6f}"
                writer.writerow([role, lang, row["label"], row["name"], row["images"], metric, value])


@contextmanager
def _open(path: Path) -> Iterator[IO[str]]:
    # backslashreplace: a label or a path may hold bytes that are not UTF-8, which Python reads as lone surrogates.
    with (
        artifacts.writing(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        yield file
    console.say(f"wrote {path}")
