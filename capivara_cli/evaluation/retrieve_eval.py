"""`retrieve-eval`: text-to-image and image-to-text retrieval, of one model or against a baseline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from capivara_cli import console, files, interrupts
from capivara_cli.data import image_records, records
from capivara_cli.data.records import Record
from capivara_cli.errors import CapivaraError
from capivara_cli.evaluation import tables
from capivara_cli.evaluation.images import count_copies, embed_images
from capivara_cli.evaluation.options import RetrieveOptions
from capivara_cli.evaluation.results import (
    RetrievalResult,
    check_outputs,
    compare_with_baseline,
    make_content,
    write_lines,
    write_results,
)
from capivara_cli.metrics.retrieval import rank_queries, summarise
from capivara_cli.models import checkpoint
from capivara_cli.models.clip import Clip
from capivara_cli.models.cut_texts import CutTexts
from capivara_cli.models.seen import Seen, of_model, trained_on
from capivara_cli.models.spec import ModelSpec, with_baseline
from capivara_cli.runtime import Runtime


def retrieve_eval(
    data: Sequence[str | Path], options: RetrieveOptions, output: str | Path | None = None
) -> list[dict[str, Any]]:
    """Measure retrieval, show the table, and return the results: those of the model, then those of the baseline.

    Args:
        data: test images with captions: JSONL files, folders, shards or `-`.
        options: see `RetrieveOptions`.
        output: result file. Several languages and the baseline get files of their own; `-` is standard output.

    Returns:
        What the result files hold.

    Raises:
        CapivaraError: data without captions in a language or without readable images, a model or an adapter that
            cannot be loaded, or a file that cannot be written.
    """
    sources = list(map(str, data))
    rows = image_records.read_all(sources)
    captions = records.languages(rows)
    if not options.lang:
        raise CapivaraError(f"--lang LANG is missing; the data has captions in: {records.name_languages(captions)}")
    options = options.replace(lang=records.resolve_languages(captions, options.lang, sources))
    path = Path(output) if output is not None else None
    models = with_baseline(ModelSpec.pick(options.model, options.pretrained, options.adapter), options.baseline)
    others = {"--ranks": (options.ranks, files.QUERIES)}
    check_outputs(sources, options, [role for role, _ in models], path, others)
    interrupts.note("no result was written; embeddings of images are kept: run the same command again")
    runtime = Runtime.start(options.device, options.precision, options.seed)
    known = _known(options, models[0][1])
    results: list[RetrievalResult] = []
    for role, spec in models:
        clip = checkpoint.load(spec, runtime, role=role, verify_cache=options.verify_cache)
        results += _evaluate(clip, role, rows, options.lang, sources, known if role == "model" else None)
    compare_with_baseline(results, options.seed)
    contents = [result.content for result in results]
    if runtime.is_main:
        tables.show(contents)
        write_results(contents, path)
        write_lines(results, options.ranks)
    return contents


def _known(options: RetrieveOptions, model: ModelSpec) -> tuple[str, Seen] | None:
    """Return the name of what the model was trained on, and what it is; None if that is not known."""
    if options.trained_on is not None:
        return options.trained_on, trained_on(options.trained_on)
    folder = options.adapter or model.folder
    seen = of_model(folder) if folder is not None else None
    return (str(folder), seen) if seen is not None else None


def _evaluate(
    clip: Clip,
    role: str,
    rows: Sequence[Record],
    langs: Sequence[str],
    data: Sequence[str],
    known: tuple[str, Seen] | None,
) -> Iterator[RetrievalResult]:
    """Yield the model's result in each language; the images are encoded once.

    Args:
        known: the name of what the model was trained on, and what it is; None if that is not known.
    """
    import numpy as np
    import torch

    table, readable, rejected = embed_images(clip, role, [record.image for record in rows])
    images = [rows[i] for i in readable]
    copies = count_copies([record.image for record in images], table.content, warn=role == "model")
    features = table.take(np.arange(len(images)))  # (I, D)
    for lang in langs:
        queries = records.collect_queries(images, [lang])
        if not queries:
            raise CapivaraError(f"none of the images that can be read has a caption in {lang}")
        texts, text_rows = queries[lang]
        # Images without a caption stay as candidates: without them retrieval would be easier.
        without = len(images) - len(set(text_rows))
        if without and role == "model":
            console.warn(f"{without} images without a caption in {lang} are distractors only")
        ranks = rank_queries(clip.encode_texts(texts), features, torch.tensor(text_rows))
        cut = CutTexts.of(clip, texts)
        if role == "model":
            cut.warn(f"captions in {lang}")
        counts: dict[str, object] = {"n_texts": len(texts), "n_images": len(images), "n_rejected": len(rejected)}
        counts |= {"copies": copies, "cut_texts": cut.content()}
        if known is not None:
            overlap = known[1].overlap(Seen.of([record.image for record in images], table.content, texts))
            overlap.warn(f"{lang} test", known[0])
            counts["overlap"] = overlap.content() | {"trained_on": known[0]}
        settings = {"texts": len(texts), "images": len(images)}
        content = make_content(clip, role, data, lang, "retrieval", summarise(ranks), counts, settings)
        yield RetrievalResult(content, ranks, texts, images)
