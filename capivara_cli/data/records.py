"""The record: an image and its captions, one JSON object per line.

    {"id": "000123", "image": "images/000123.jpg", "captions": [{"text": "a dog", "lang": "en"}], "label": "dog"}

Keys that capivara does not know are kept.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from capivara_cli import console
from capivara_cli.data import images, shard_samples
from capivara_cli.data.captions import REJECTED, Caption, problem_of
from capivara_cli.data.images import ImageRef
from capivara_cli.data.languages import LIST_HINT, Language, bcp47, find, suggestion, variant
from capivara_cli.data.lines import bounded
from capivara_cli.data.spill import Spill
from capivara_cli.errors import CapivaraError, explained

STDIN = "standard input"
JSON_HINT = "each line is one JSON object: see docs/data.md"
UTF_8_HINT = "iconv -t UTF-8 converts it"
MAX_SHARDS = 1_000_000  # maximum number of shards in one brace pattern
METADATA = "metadata.jsonl"  # the records of a folder, as in Hugging Face's ImageFolder


@dataclass(frozen=True, slots=True)
class Record:
    """A line of a JSONL file, checked.

    Attributes:
        data: the JSON object, including unknown keys; `lang` codes are normalised to BCP-47.
        where: `file.jsonl:17`, for messages.
        image: where the image is.
    """

    data: dict[str, Any]
    where: str
    image: ImageRef

    @property
    def id(self) -> str:
        """The record's `id`, or the image's path if there is no id."""
        values = (self.data.get(key) for key in ("id", "image", "file_name"))
        return str(next(value for value in values if value not in (None, "")))

    @property
    def captions(self) -> list[Caption]:
        """The captions."""
        captions: list[Caption] = self.data.get("captions", [])
        return captions

    def for_folder(self, folder: Path) -> dict[str, Any]:
        """Return the JSON object to write to a file in `folder`.

        The id is added, and a relative image path is rewritten to be relative to `folder`.
        """
        data = {"id": self.id, **self.data}  # `id` becomes the first key, unless the record has it elsewhere
        if data["id"] in (None, ""):  # the record has a null or empty id, which has just replaced ours
            data["id"] = self.id
        key = "image" if self.data.get("image") else "file_name"
        if not os.path.isabs(self.data[key]):
            data[key] = str(self.image._replace(path=Path(os.path.relpath(self.image.path, folder)).as_posix()))
        return data

    def texts(self, lang: str) -> list[str]:
        """Return the texts of the captions in a language, without those that are marked as rejected."""
        return [caption["text"] for caption in self.captions if caption["lang"] == lang and REJECTED not in caption]


def read(source: str | Path) -> Iterator[Record]:
    """Read the records of a JSONL file, `-`, an image, a folder of images, a tar shard or a brace pattern of shards.

    Of a folder with a `metadata.jsonl` (Hugging Face's ImageFolder), the records of that file are read. Raises
    CapivaraError, naming file and line, if a line is not a valid record.
    """
    name = str(source)
    if name == "-":
        yield from parse(sys.stdin, STDIN, Path.cwd())
        return
    for path in expand(name):
        if path.is_dir():
            yield from _read_folder(path)
        elif path.suffix == ".tar":
            yield from read_shard(path)
        elif images.is_image_name(path.name) and path.exists():
            yield _image_file(path)
        else:
            yield from _read_jsonl(path)


def stream(sources: Iterable[str | Path]) -> Iterator[Record]:
    """Read the records of several sources one by one, in constant memory. Unlike `read`, check the ids.

    Raises CapivaraError when an id is repeated: the outputs of the two records could not be told apart.
    """
    with Spill() as seen:
        for record in itertools.chain.from_iterable(map(read, sources)):
            if (first := seen.setdefault(record.id, record.where)) is not None:
                raise repeated_id(record, first)
            yield record


def repeated_id(record: Record, first: str) -> CapivaraError:
    """Return the error for a record whose id came first in `first`."""
    return CapivaraError(f"{record.where}: the id {record.id} is also that of {first}", "each record needs its own id")


def validate(
    sources: Sequence[str | Path], look: Callable[[Record], None] | None = None
) -> tuple[int | None, Counter[str]]:
    """Check all records. Return their number, and the number of captions per language.

    If a source is standard input, nothing is read: return None and an empty counter, which `pipeline.read` fills.

    Args:
        look: called with each record.

    Raises CapivaraError if a record is not valid, and if there are no records.
    """
    if "-" in map(str, sources):
        return None, Counter()
    total = 0
    captions: Counter[str] = Counter()
    for record in stream(sources):
        total += 1
        if look is not None:
            look(record)
        # Unlike in `languages`, rejected captions count: `score` may judge them again.
        captions.update(caption["lang"] for caption in record.captions)
    if not total:
        folders = all(Path(source).is_dir() for source in sources)
        hint = (
            f"images end in {' '.join(sorted(images.EXTENSIONS))}" if folders else "one line is one image: docs/data.md"
        )
        raise CapivaraError(f"{' '.join(map(str, sources))}: no {'images' if folders else 'records'} in it", hint)
    return total, captions


def check_languages(captions: Counter[str], langs: Sequence[str], sources: Sequence[str | Path] = ("-",)) -> None:
    """Raise CapivaraError if there are no captions in one of `langs`. The message lists the languages of the data.

    Args:
        captions: language -> number of captions.
        sources: where the captions come from, for the hint.
    """
    data_has = f"the data has {name_languages(captions)}"
    for lang in langs:
        if captions[lang]:
            continue
        language, other = find(lang), variant(lang, captions)
        if language is None:
            raise CapivaraError(f"no caption in {lang}{suggestion(lang)}: {data_has}", LIST_HINT)
        hint = f"--lang {other}" if other else _translate_command(language, captions, sources)
        raise CapivaraError(f"no caption in {lang}: {data_has}", hint)


def _translate_command(language: Language, captions: Counter[str], sources: Sequence[str | Path]) -> str | None:
    """Return a `capivara translate` command that would make captions in the language.

    None if no backend knows the language, or if there are no captions to translate.
    """
    if not captions or not language.codes:
        return None
    origin = "en" if captions["en"] else captions.most_common(1)[0][0]
    line = f"capivara translate {shlex.join(map(str, sources))} --to {language.code}"
    if origin != "en":
        line += f" --from {origin}"
    if "google" not in language.codes:
        line += f" --backend {next(iter(language.codes))}"
    return f"{line} -o FILE.jsonl makes them"


def resolve_languages(captions: Counter[str], langs: Sequence[str], sources: Sequence[str | Path]) -> list[str]:
    """Replace each language that has no captions by a variant that has some (`pt` by `pt-BR`), and print a message.

    Raises CapivaraError if there is no such variant, as `check_languages` does.
    """
    resolved = []
    for lang in langs:
        other = None if captions[lang] else variant(lang, captions)
        if other is not None:
            console.say(f"no captions in {lang}: using {other} ({captions[other]:,} captions)")
        resolved.append(other or lang)
    check_languages(captions, resolved, sources)
    return resolved


def name_languages(captions: Counter[str]) -> str:
    """Return the 20 most frequent languages with their numbers of captions, as text."""
    return ", ".join(f"{lang} ({number:,})" for lang, number in captions.most_common(20)) or "none"


def expand(pattern: str) -> list[Path]:
    """`{00000..00266}.tar` -> the shards, numbers padded like the first one; any other name -> itself."""
    match = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if not match:
        return [Path(pattern)]
    first, last = match.groups()
    numbers = range(int(first), int(last) + 1)
    if not 0 < len(numbers) <= MAX_SHARDS:
        raise CapivaraError(
            f"{pattern} names {len(numbers):,} shards; a pattern may name 1 to {MAX_SHARDS:,}",
            "write the first and the last number: {00000..00331}",
        )
    return [Path(f"{pattern[: match.start()]}{n:0{len(first)}}{pattern[match.end() :]}") for n in numbers]


def _read_jsonl(path: Path) -> Iterator[Record]:
    if not path.exists():
        raise CapivaraError(f"{path}: no such file")
    with explained(f"cannot read {path}"), path.open(encoding="utf-8") as file:
        yield from parse(file, str(path), path.parent)


def parse(lines: TextIO, name: str, folder: Path) -> Iterator[Record]:
    """Read records from lines of JSON. Image paths are relative to `folder`. Blank lines are skipped."""
    # For a first line that is not JSON: that of a table, probably. Standard input cannot be read again.
    import_hint = f"capivara import {'FILE' if name == STDIN else shlex.quote(name)} -o FILE.jsonl reads tables"
    with explained(f"{name} is not UTF-8 text", UnicodeDecodeError, hint=UTF_8_HINT):
        for number, line in enumerate(bounded(lines, name), start=1):
            text = line.removeprefix("\ufeff") if number == 1 else line  # a byte order mark, which some editors write
            if text.strip():
                yield _parse_line(text, f"{name}:{number}", folder, import_hint if number == 1 else JSON_HINT)


def _parse_line(line: str, where: str, folder: Path, hint: str) -> Record:
    with explained(f"{where}: not JSON", (ValueError, RecursionError), hint=hint):
        data = json.loads(line)
    if not isinstance(data, dict):
        raise CapivaraError(f"{where}: a {type(data).__name__}, not an object with `image` and `captions`")
    return make_record(data, where, folder)


def make_record(data: dict[str, Any], where: str, folder: Path) -> Record:
    """Check a JSON object and return its record. Language codes of captions are normalised **in place**.

    Raises CapivaraError if `image` or `captions` is missing or malformed.
    """
    image = data.get("image") or data.get("file_name")
    if not isinstance(image, str) or not image or "\0" in image:
        keys = ", ".join(map(str, data)) or "none"
        raise CapivaraError(f"{where}: no `image` (its keys: {keys})", "see docs/data.md")
    captions = data.get("captions", [])
    if (problem := problem_of(captions)) is not None:
        raise CapivaraError(f"{where}: {problem}", "see docs/data.md")
    for caption in captions:
        caption["lang"] = bcp47(caption["lang"])
    return Record(data, where, ImageRef.parse(image, folder))


def _read_folder(folder: Path) -> Iterator[Record]:
    metadata = folder / METADATA
    if metadata.is_file():
        yield from _read_jsonl(metadata)
        return
    for path in images.find(folder):
        yield _image_file(path)


def _image_file(path: Path) -> Record:
    """Return the record of an image file. Its id is its path as it was typed."""
    name = path.as_posix()
    return Record({"id": name, "image": name}, name, ImageRef.parse(name, Path.cwd()))


def read_shard(path: Path, lang: str = "en") -> Iterator[Record]:
    """Read the samples of a WebDataset shard: the image, and the files beside it.

    Args:
        lang: language of captions that do not name one.

    Raises:
        CapivaraError: not a tar file, or a sample whose `.json` is not JSON.
    """
    for where, _, data in shard_samples.read(path, lang):
        if isinstance(data, CapivaraError):
            raise data
        yield make_record(data, where, Path.cwd())


def to_json(value: object) -> str:
    """Write one line of JSON. NaN and infinity become null: JSON does not have them, and other readers would fail."""
    try:
        return _encode(value)
    except ValueError:
        return _encode(_finite(value))


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def languages(records: Iterable[Record]) -> Counter[str]:
    """Count the captions in each language, without those that are marked as rejected."""
    return Counter(caption["lang"] for record in records for caption in record.captions if REJECTED not in caption)


def collect_queries(records: Sequence[Record], langs: Sequence[str]) -> dict[str, tuple[list[str], list[int]]]:
    """Return language -> (texts, index of each text's record), for the languages in `langs` that have captions."""
    queries: dict[str, tuple[list[str], list[int]]] = {}
    for lang in langs:
        pairs = [(text, row) for row, record in enumerate(records) for text in record.texts(lang)]
        if pairs:
            queries[lang] = [text for text, _ in pairs], [row for _, row in pairs]
    return queries
