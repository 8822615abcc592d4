"""Foreign formats: each a function that reads a source row by row, and how to tell them apart."""

from __future__ import annotations

import itertools
from pathlib import Path

from capivara_cli.data.readers import formats, text_files
from capivara_cli.data.readers.formats import Format
from capivara_cli.importing import annotation_files, conceptual_captions, parallel_text
from capivara_cli.importing.json_stream import elements

FORMATS: dict[str, Format] = formats.FORMATS | {
    "coco": Format(annotation_files.coco, "COCO's captions_….json", "images", True),
    "karpathy": Format(
        annotation_files.karpathy, "Karpathy's dataset_….json of Flickr8k, Flickr30k, COCO: --split", "images split"
    ),
    "pracegover": Format(annotation_files.pracegover, "PraCegoVer's JSON: --split, --lang pt", "images split"),
    "cc3m": Format(
        conceptual_captions.cc3m,
        "Conceptual Captions' TSV with --images of img2dataset, or img2dataset's output",
        "images encoding",
        True,
    ),
    "xm3600": Format(annotation_files.xm3600, "Crossmodal-3600: captions.jsonl, images/", "images encoding"),
    "xtd": Format(
        parallel_text.xtd, "XTD-10 and XTD-200: test_image_names.txt and captions line by line", "images encoding", True
    ),
    "flickr30k-200": Format(
        parallel_text.flickr30k_200, "Flickr30k-200: filenames.txt and hin_Deva.txt …", "images encoding", True
    ),
}


def guess(path: Path) -> str | None:
    """The format that a source looks like; None when it looks like none."""
    if path.is_dir():
        return _guess_folder(path) or formats.guess(path)
    if path.suffix == ".jsonl" and '"image/key"' in next(text_files.lines(path), ""):
        return "xm3600"
    if path.suffix == ".json":
        return _guess_json(path)
    return formats.guess(path) or _guess_table(path)


def _guess_folder(path: Path) -> str | None:
    names = {entry.name for entry in itertools.islice(path.iterdir(), 10_000)}
    if parallel_text.XTD_NAMES in names:
        return "xtd"
    if parallel_text.FLICKR_NAMES in names:
        return "flickr30k-200"
    if "captions.jsonl" in names and '"image/key"' in next(text_files.lines(path / "captions.jsonl"), ""):
        return "xm3600"
    return None


def _guess_json(path: Path) -> str | None:
    for key, found in itertools.islice(elements(path), 1000):
        if isinstance(found, dict):
            if "sentences" in found:
                return "karpathy"
            if key in ("images", "annotations") and {"file_name", "image_id"} & found.keys():
                return "coco"
            if "filename" in found and "caption" in found:
                return "pracegover"
    return None


def _guess_table(path: Path) -> str | None:
    header = next(text_files.rows(path), (0, []))[1]
    return "cc3m" if len(header) == 2 and header[1].strip().startswith("http") else None
