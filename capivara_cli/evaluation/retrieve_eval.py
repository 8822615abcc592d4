"""`retrieve-eval`: text-to-image and image-to-text retrieval, of one model or against a baseline."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capivara_cli import __version__, artifacts, console
from capivara_cli.data import records
from capivara_cli.data.records import Record, collect_queries
from capivara_cli.errors import CapivaraError
from capivara_cli.evaluation.results import check_files, dataset_name, show_rejected, write_results
from capivara_cli.evaluation.retrieval_table import show
from capivara_cli.metrics.bootstrap import compare_ranks
from capivara_cli.metrics.retrieval import Ranks, rank_queries, summarise
from capivara_cli.models import checkpoint
from capivara_cli.models.clip import Clip
from capivara_cli.models.embedding_cache import embed
from capivara_cli.models.spec import ModelSpec, with_baseline
from capivara_cli.runtime import Runtime


@dataclass(frozen=True)
class Outcome:
    """One model in one language.

    Attributes:
        result: what the result file holds: CLIP_benchmark's keys, our metrics and the signature.
        ranks: of each query.
        texts: (record, text) of each text query, in the order of the ranks.
    """

    role: str
    lang: str
    result: dict[str, Any]
    ranks: Ranks
    texts: list[tuple[Record, str]]
    images: list[Record]


def retrieve_eval(
    data: Sequence[str],
    lang: Sequence[str],
    *,
    model: str | None = None,
    pretrained: str | None = None,
    adapter: Path | None = None,
    baseline: str | None = None,
    output: Path | None = None,
    ranks: Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Evaluate, write the files that were asked for, and return the results. Arguments as `capivara retrieve-eval`.

    Raises CapivaraError for data without captions in a language, without readable images, or for a model or
    adapter that cannot be loaded.
    """
    found = records.read_all(data)
    there = records.languages(found)
    if not lang:
        names = ", ".join(f"{name} ({number:,})" for name, number in there.most_common(20)) or "none"
        raise CapivaraError(f"no language: --lang LANG is missing (the data has {names})")
    records.check_languages(there, lang)
    lang = list(dict.fromkeys(lang))
    check_files(data, lang, ["model"] if baseline is None else ["model", "baseline"], output=output, ranks=ranks)
    chosen = with_baseline(ModelSpec.pick(model, pretrained, adapter), baseline)
    runtime = Runtime.start(device, precision, seed)
    outcomes = [outcome for role, spec in chosen for outcome in _evaluate(role, spec, found, lang, data, runtime)]
    if baseline is not None:
        _add_differences(outcomes, seed)
    results = [outcome.result for outcome in outcomes]
    if runtime.is_main:
        show(results)
        write_results(results, output)
        if ranks is not None:
            _write_ranks(outcomes, ranks)
    return results


def _evaluate(
    role: str, spec: ModelSpec, found: Sequence[Record], langs: Sequence[str], data: Sequence[str], runtime: Runtime
) -> Iterator[Outcome]:
    import torch

    clip = checkpoint.load(spec, runtime, role=role)
    table, kept, rejected = embed(clip, [record.image for record in found])
    if not kept:
        raise CapivaraError(f"no image can be read; the first: {rejected[0].image}: {rejected[0].reason}")
    if role == "model":
        show_rejected(rejected)
    images = [found[i] for i in kept]
    for lang in langs:
        with_text = [row for row, record in enumerate(images) if record.texts(lang)]
        if len(with_text) < len(images) and role == "model":
            console.warn(f"{len(images) - len(with_text)} images without a caption in {lang} are distractors only")
        queries = collect_queries(images, [lang])
        if not queries:
            raise CapivaraError(f"none of the images that can be read has a caption in {lang}")
        texts, rows = queries[lang]
        features = table.take(torch.arange(len(images)).numpy())
        ranks = rank_queries(clip.encode_texts(texts), features, torch.tensor(rows))
        metrics = summarise(ranks)
        result = {
            "dataset": dataset_name(data),
            **clip.spec.columns(),
            "role": role,
            "task": "zeroshot_retrieval",
            "metrics": metrics,
            "language": lang,
            "n_texts": len(texts),
            "n_images": len(images),
            "n_rejected": len(rejected),
            "signature": _signature(clip, data, lang, len(texts), len(images)),
        }
        pairs = [(images[row], text) for row, text in zip(rows, texts, strict=True)]
        yield Outcome(role, lang, result, ranks, pairs, images)


def _signature(clip: Clip, data: Sequence[str], lang: str, texts: int, images: int) -> str:
    """All that somebody needs to measure the same again, in one line (as sacrebleu does)."""
    parts = {
        "capivara": __version__,
        "task": "retrieval",
        **clip.signature(),
        "data": "+".join(Path(name).name for name in data),
        "lang": lang,
        "texts": texts,
        "images": images,
        "precision": clip.runtime.precision,
        "ties": "expected",
    }
    return "|".join(f"{key}:{value}" for key, value in parts.items())


def _add_differences(outcomes: Sequence[Outcome], seed: int) -> None:
    """Give each of the model's results the difference to the baseline's, with interval and p-value."""
    baselines = {outcome.lang: outcome for outcome in outcomes if outcome.role == "baseline"}
    for outcome in outcomes:
        if outcome.role == "model":
            base = baselines[outcome.lang]
            outcome.result["baseline"] = {
                "model": base.result["model"],
                "pretrained": base.result["pretrained"],
                "metrics": base.result["metrics"],
                "difference": compare_ranks(outcome.ranks, base.ranks, seed=seed),
            }


def _write_ranks(outcomes: Sequence[Outcome], path: Path) -> None:
    """A line for each query: who asked, what, and where its answer stood; ties as their expected rank."""
    with artifacts.writing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for outcome in outcomes:
            head = {"role": outcome.role, "lang": outcome.lang}
            for query in _queries(outcome):
                file.write(json.dumps(head | query, ensure_ascii=False) + "\n")
    console.say(f"wrote {path}")


def _queries(outcome: Outcome) -> Iterator[dict[str, Any]]:
    for (record, text), rank in zip(outcome.texts, outcome.ranks.text_to_image.expected(), strict=True):
        yield {"direction": "text_to_image", "id": record.id, "text": text, "rank": float(rank)}
    rows = outcome.ranks.image_rows.tolist()
    for row, rank in zip(rows, outcome.ranks.image_to_text.expected(), strict=True):
        yield {"direction": "image_to_text", "id": outcome.images[row].id, "rank": float(rank)}
