"""All formats that `import` reads: those with labelled images, and those of captions alone."""

from __future__ import annotations

from capivara_cli.data.readers import formats
from capivara_cli.data.readers.formats import Format
from capivara_cli.importing import annotation_files as json_files
from capivara_cli.importing import conceptual_captions, parallel_text

_FILES = ("images", "encoding")
_CC3M = "Conceptual Captions' TSV with --images of img2dataset, or img2dataset's output"
_FLICKR = "Flickr30k-200: filenames.txt and hin_Deva.txt …"
_KARPATHY = "Karpathy's dataset_….json of Flickr8k, Flickr30k, COCO: --split"
_XTD = "XTD-10 and XTD-200: test_image_names.txt and captions line by line"

# As in the table that it extends, special formats stand below general ones.
FORMATS: dict[str, Format] = formats.FORMATS | {
    "coco": Format(json_files.coco, json_files.is_coco, "COCO's captions_….json", ("images",), scattered=True),
    "karpathy": Format(json_files.karpathy, json_files.is_karpathy, _KARPATHY, ("images", "split")),
    "pracegover": Format(
        json_files.pracegover, json_files.is_pracegover, "PraCegoVer's JSON: --split, --lang pt", ("images", "split")
    ),
    "cc3m": Format(conceptual_captions.cc3m, conceptual_captions.is_cc3m, _CC3M, _FILES, scattered=True),
    "xm3600": Format(json_files.xm3600, json_files.is_xm3600, "Crossmodal-3600: captions.jsonl, images/", _FILES),
    "xtd": Format(parallel_text.xtd, parallel_text.is_xtd, _XTD, _FILES, scattered=True),
    "flickr30k-200": Format(
        parallel_text.flickr30k_200, parallel_text.is_flickr30k_200, _FLICKR, _FILES, scattered=True
    ),
}
