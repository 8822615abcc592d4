"""The flags of `export`."""

from __future__ import annotations

from typing import Literal

from capivara_cli.data.languages import LangOrNone
from capivara_cli.options import Resumable, flag

Format = Literal["webdataset", "imagefolder", "csv", "captions.txt"]


class ExportOptions(Resumable):
    """What to write."""

    section = "export"

    lang: LangOrNone = flag(
        "Language of the captions in a table or a text, and of the one caption that some readers take per image.",
        default=None,
        metavar="LANG",
        shown="any",
    )
    # 10,000 as in the shards of img2dataset and of the recipe.
    shard_size: int = flag("Images per shard.", default=10_000, min=1, metavar="N")
    prefix: str = flag("Start of the names of shards and images, such as train-.", default="")
