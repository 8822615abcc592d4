"""Text files whose lines belong together: XTD, Flickr30k-200. Line i of the captions is of line i of the names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from capivara_cli.data.captions import Caption
from capivara_cli.data.languages import table
from capivara_cli.data.readers import text_files
from capivara_cli.data.readers.options import ReaderOptions
from capivara_cli.data.readers.rows import Row
from capivara_cli.data.readers.source_start import SourceStart
from capivara_cli.errors import CapivaraError

_XTD_NAMES, _FLICKR_NAMES = "test_image_names.txt", "filenames.txt"
_CAPTIONS = re.compile(r"(?:test_1kcaptions_|)([A-Za-z]{2,3}(?:[_-][A-Za-z]+)?)\.txt")
_COUNTRIES = {"jp": "ja", "cn": "zh", "kr": "ko"}  # XTD names some languages by their country


def is_xtd(source: SourceStart) -> bool:
    """Return whether a folder has XTD's file of names."""
    return _XTD_NAMES in source.names


def is_flickr30k_200(source: SourceStart) -> bool:
    """Return whether a folder has Flickr30k-200's file of names."""
    return _FLICKR_NAMES in source.names


def xtd(path: Path, options: ReaderOptions) -> Iterator[Row]:
    """Read `test_image_names.txt`, and `test_1kcaptions_LANG.txt` (XTD-10) or `FLORES_code.txt` (XTD-200)."""
    return _aligned(path, _XTD_NAMES, options)


def flickr30k_200(path: Path, options: ReaderOptions) -> Iterator[Row]:
    """Read `filenames.txt` and `FLORES_code.txt` (`hin_Deva.txt`)."""
    return _aligned(path, _FLICKR_NAMES, options)


def _aligned(path: Path, names: str, options: ReaderOptions) -> Iterator[Row]:
    folder = path if path.is_dir() else path.parent
    if not (folder / names).is_file():
        raise CapivaraError(f"{folder}: no {names} in it", "docs/importing.md shows the formats")
    files: dict[str, Path] = {}
    for file in sorted(folder.glob("*.txt")):
        lang = _language(file.name)
        if lang is not None:
            files[lang] = file
    if not files:
        raise CapivaraError(f"{folder}: no captions beside {names}", "hin_Deva.txt, or test_1kcaptions_es.txt")
    image_folder = options.images or (folder / "images" if (folder / "images").is_dir() else folder)
    texts = {lang: list(text_files.lines(file, options.encoding)) for lang, file in files.items()}  # some 1,000 lines
    images = list(text_files.lines(folder / names, options.encoding))
    for lang, column in texts.items():
        if len(column) != len(images):
            raise CapivaraError(
                f"{files[lang]} has {len(column):,} lines, {names} has {len(images):,}",
                "line N of one file must belong to line N of the other",
            )
    for i, name in enumerate(map(str.strip, images)):
        captions: list[Caption] = []
        for lang, column in texts.items():
            if column[i].strip():
                captions.append({"text": column[i].strip(), "lang": lang})
        if name:
            yield Row(f"{folder / names}:{i + 1}", name, str(image_folder / name), tuple(captions))


def _language(name: str) -> str | None:
    """`test_1kcaptions_es.txt` -> es, `hin_Deva.txt` -> hi; None for other files."""
    match = _CAPTIONS.fullmatch(name)
    if match is None:
        return None
    code = _COUNTRIES.get(match[1].lower(), match[1].lower())
    if code in table():
        return table()[code].code
    for language in table().values():
        if language.codes.get("nllb", "").lower() == code:  # FLORES names languages as NLLB does
            return language.code
    return None
