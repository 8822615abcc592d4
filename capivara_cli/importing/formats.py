"""All formats that `import` reads: those with labelled images, and those of captions alone."""

from __future__ import annotations

from capivara_cli.data.readers import formats
from capivara_cli.data.readers.formats import Format
from capivara_cli.importing import annotation_files, conceptual_captions, parallel_text

# As in the table that it extends, special formats stand below general ones.
FORMATS: dict[str, Format] = formats.FORMATS | {
    "coco": Format(
        annotation_files.coco,
        "COCO's captions_….json",
        ("images",),
        scattered=True,
        looks_like=annotation_files.looks_like_coco,
    ),
    "karpathy": Format(
        annotation_files.karpathy,
        "Karpathy's dataset_….json of Flickr8k, Flickr30k, COCO: --split",
        ("images", "split"),
        scattered=False,
        looks_like=annotation_files.looks_like_karpathy,
    ),
    "pracegover": Format(
        annotation_files.pracegover,
        "PraCegoVer's JSON: --split, --lang pt",
        ("images", "split"),
        scattered=False,
        looks_like=annotation_files.looks_like_pracegover,
    ),
    "cc3m": Format(
        conceptual_captions.cc3m,
        "Conceptual Captions' TSV with --images of img2dataset, or img2dataset's output",
        ("images", "encoding"),
        scattered=True,
        looks_like=conceptual_captions.looks_like_cc3m,
    ),
    "xm3600": Format(
        annotation_files.xm3600,
        "Crossmodal-3600: captions.jsonl, images/",
        ("images", "encoding"),
        scattered=False,
        looks_like=annotation_files.looks_like_xm3600,
    ),
    "xtd": Format(
        parallel_text.xtd,
        "XTD-10 and XTD-200: test_image_names.txt and captions line by line",
        ("images", "encoding"),
        scattered=True,
        looks_like=parallel_text.looks_like_xtd,
    ),
    "flickr30k-200": Format(
        parallel_text.flickr30k_200,
        "Flickr30k-200: filenames.txt and hin_Deva.txt …",
        ("images", "encoding"),
        scattered=True,
        looks_like=parallel_text.looks_like_flickr30k_200,
    ),
}
