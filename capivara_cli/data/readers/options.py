"""What a reader of a foreign format is told: the flags that `import` and `classify-eval` share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from capivara_cli.data.languages import Lang
from capivara_cli.options import Options, flag
from capivara_cli.values import Syntax


def _parse_columns(value: Any) -> dict[str, str]:
    """`["image=path", "hi=hindi"]` -> `{"image": "path", "hi": "hindi"}`; a mapping stays one."""
    if isinstance(value, Mapping):
        return {str(what): str(name) for what, name in value.items()}
    columns = {}
    for text in [value] if isinstance(value, str) else value or []:
        what, _, name = text.partition("=")
        if not what or not name:
            raise ValueError("not WHAT=COLUMN: --column image=path --column hi=caption_hi")
        columns[what] = name
    return columns


Columns = Annotated[Mapping[str, str], Syntax(_parse_columns, many=True)]
"""`image`, `caption`, `id`, `label`, `lang` or a language -> the name or number of its column in a table."""


class ReaderOptions(Options):
    """How to read a foreign format."""

    images: Path | None = flag("Folder of the images.", default=None, metavar="DIR", shown="the annotations' folder")
    split: str | None = flag(
        "Part of the data: train, val, test.", default=None, metavar="NAME", shown="the whole data set"
    )
    lang: Lang = flag("Language of captions that do not say theirs, BCP-47.", default="en", metavar="LANG")
    column: Columns = flag(
        "Column (name or number) of a table for image, caption, id, label, lang or a language; repeatable.",
        default={},
        metavar="WHAT=COLUMN",
    )
    labels: bool | None = flag(
        "Use sub-folder names as labels.",
        default=None,
        name="--labels/--no-labels",
        shown="if every image is one folder deep",
    )
    encoding: str | None = flag(
        "Encoding of text files.", default=None, metavar="NAME", shown="UTF-8, or UTF-16 if a file is marked so"
    )
