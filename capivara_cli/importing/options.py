"""The flags of `import`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from capivara_cli.data.languages import LangOrNone
from capivara_cli.data.readers.options import ReaderOptions
from capivara_cli.options import ImageWorkers, Resumable, Summarised, flag

# fmt: off
FormatName = Literal[
    "folder", "csv", "tsv", "parquet", "webdataset", "huggingface", "jsonl",
    "coco", "karpathy", "pracegover", "cc3m", "xm3600", "xtd", "flickr30k-200",
]
# fmt: on


class ImportOptions(ReaderOptions, ImageWorkers, Resumable, Summarised):
    """What to read, and what to check."""

    section = "import"

    format: FormatName | None = flag("Format of the sources; see --formats.", default=None, shown="found automatically")
    translations: Path | None = flag(
        "File with human translations (one per line, or a table).", default=None, metavar="FILE"
    )
    to: LangOrNone = flag("Language of the translations.", default=None, metavar="LANG")
    verify: bool = flag("Decode each image, on all cores.", default=False)
    dedupe: bool = flag("Skip duplicate images.", default=False)
