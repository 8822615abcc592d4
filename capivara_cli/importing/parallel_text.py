"""Text files whose lines belong together: XTD, Flickr30k-200. Line i of the captions is of line i of the names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from capivara_cli.data.languages import table
from capivara_cli.data.readers import text_files as texts
from capivara_cli.data.readers.rows import Options, Row
from capivara_cli.errors import CapivaraError

XTD_NAMES, FLICKR_NAMES = "test_image_names.txt", "filenames.txt"
_XTD = re.compile(r"(?:test_1kcaptions_|)([A-Za-z]{2,3}(?:[_-][A-Za-z]+)?)\.txt")
_ODD = {"jp": "ja", "cn": "zh", "kr": "ko"}  # codes of countries, in XTD's names


def xtd(path: Path, options: Options) -> Iterator[Row]:
    """A folder with `test_image_names.txt`, and `test_1kcaptions_LANG.txt` (XTD-10) or `FLORES_code.txt` (XTD-200)."""
    return _aligned(path, XTD_NAMES, options)


def flickr30k_200(path: Path, options: Options) -> Iterator[Row]:
    """A folder with `filenames.txt` and `FLORES_code.txt` (`hin_Deva.txt`)."""
    return _aligned(path, FLICKR_NAMES, options)


def _aligned(path: Path, names: str, options: Options) -> Iterator[Row]:
    folder = path if path.is_dir() else path.parent
    if not (folder / names).is_file():
        raise CapivaraError(f"{folder}: no {names} in it", "docs/importing.md shows the formats")
    files = {code: file for file in sorted(folder.glob("*.txt")) if (code := _language(file.name)) is not None}
    if not files:
        raise CapivaraError(f"{folder}: no captions beside {names}", "hin_Deva.txt, or test_1kcaptions_es.txt")
    place = options.images or (folder / "images" if (folder / "images").is_dir() else folder)
    columns = {code: list(texts.lines(file, options.encoding)) for code, file in files.items()}  # some thousand lines
    images = list(texts.lines(folder / names, options.encoding))
    for code, column in columns.items():
        if len(column) != len(images):
            raise CapivaraError(
                f"{files[code]} has {len(column):,} lines, {names} has {len(images):,}", "they belong line to line"
            )
    for number, (name, *found) in enumerate(zip(images, *columns.values(), strict=True), start=1):
        captions = tuple(
            {"text": text.strip(), "lang": code} for code, text in zip(columns, found, strict=True) if text.strip()
        )
        if name.strip():
            yield Row(f"{folder / names}:{number}", name.strip(), str(place / name.strip()), captions)


def _language(name: str) -> str | None:
    """`test_1kcaptions_es.txt` -> es, `hin_Deva.txt` -> hi; None for other files."""
    match = _XTD.fullmatch(name)
    if match is None:
        return None
    given = _ODD.get(match[1].lower(), match[1].lower())
    if given in table():
        return table()[given].code
    flores = {
        language.codes["nllb"].lower(): language.code for language in table().values() if "nllb" in language.codes
    }
    return flores.get(given)
