"""Class files as JSON or YAML: read, translate and write the texts in them, whatever their form.

    {"set": ["name", …]}   {"set": ["a photo of a {c}."]}   {"set": {"class": [prompts]}}   {"XH": [[indices], [names]]}

Texts are values; keys and numbers stay as they are. `class_forms` reads what the forms mean.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from capivara_cli.data.languages import bcp47, find
from capivara_cli.errors import CapivaraError, explained
from capivara_cli.yaml_files import read_yaml

MAX_BYTES = 256 << 20  # of a file of JSON or lines
YAML = (".yaml", ".yml")


def is_class_file(source: str | Path) -> bool:
    """Whether the name ends as a class file's does: `.json`, `.yaml` or `.yml`. Records end in `.jsonl`."""
    return Path(source).suffix.lower() in (".json", *YAML)


def read_content(path: Path, *, numbers: bool = False) -> Any:
    """Read a file of JSON, YAML, or text with one name per line (`.txt`).

    Args:
        numbers: read numbers of YAML as numbers. By default all scalars of YAML are text: `no` is a language and 0 a
            label.

    Raises:
        CapivaraError: the file cannot be read, a key is repeated, or `read_yaml` refuses it.
    """
    if path.suffix.lower() in YAML:
        return read_yaml(path, "numbers" if numbers else "texts")
    with explained(f"cannot read {path}"), explained(f"{path} is not UTF-8 text", UnicodeDecodeError):
        if path.stat().st_size > MAX_BYTES:
            raise CapivaraError(f"{path} is larger than {MAX_BYTES >> 20} MiB", "a class file holds names and prompts")
        text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() == ".txt":
        return [line.strip() for line in text.splitlines() if line.strip()]
    with explained(f"{path} is not JSON", (ValueError, RecursionError)):
        return json.loads(text, object_pairs_hook=_unique_keys)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {key} is repeated")
        result[key] = value
    return result


def is_ours(value: Any) -> bool:
    """Whether it has our own form: names by language, and whatever else is known of the set."""
    return isinstance(value, dict) and isinstance(value.get("names"), dict)


_PARTS = ("labels", "names", "templates", "prompts")
OUR_FORM = '{"labels": ["dog"], "names": {"en": {"dog": "dog"}}, "templates": {"en": ["a photo of a {c}."]}}'


def loose_parts(value: Any) -> list[str]:
    """Return the keys of our own form in a file that has another one: they would be taken for names of sets."""
    if not isinstance(value, dict) or is_ours(value):
        return []
    return [key for key in _PARTS if isinstance(value.get(key), list | dict)]


def is_by_language(value: Any) -> bool:
    """Whether its keys are languages: `{"en": {label: name}}`, `{"en": [templates]}`, Babel-ImageNet's `{"EN": …}`."""
    return isinstance(value, dict) and bool(value) and all(find(bcp47(str(key))) is not None for key in value)


_BY_LANGUAGE = ("names", "templates", "prompts")


def select_language(value: dict[str, Any], lang: str, path: Path) -> dict[str, Any]:
    """Return what a file of our own form, or one by language, has in a language: `{"names": …}`, or `{"": …}`.

    Raises CapivaraError when it has no names in that language.
    """
    parts = {"": value}
    if is_ours(value):
        parts = {key: value[key] for key in _BY_LANGUAGE if isinstance(value.get(key), dict)}
    langs = list(next(iter(parts.values())))
    if lang not in map(bcp47, langs):
        raise CapivaraError(f"{path} has no names in {lang}: it has {', '.join(langs)}", f"--from {bcp47(langs[0])}")
    return {name: texts for name, part in parts.items() for key, texts in part.items() if bcp47(key) == lang}


def with_language(value: dict[str, Any], added: dict[str, Any], lang: str) -> dict[str, Any]:
    """Return the file with what was selected, translated, as another language in it."""
    if "" in added:
        return {**value, lang: added[""]}
    return value | {name: {**value[name], lang: texts} for name, texts in added.items()}


def read(path: Path) -> Any:
    """Read a file to translate. Raises CapivaraError when it cannot be read or has no names or templates."""
    value = read_content(path, numbers=True)
    if _has_objects(value):
        raise CapivaraError(f"{path} has lists of objects: it is not a class file", "records are JSONL: docs/data.md")
    if (parts := loose_parts(value)) and parts != ["templates"]:  # templates alone are a file for --templates
        raise CapivaraError(f"{path}: `{parts[0]}` is not the name of a class set", OUR_FORM)
    if not isinstance(value, dict | list) or not any(texts(value)):
        raise CapivaraError(f"{path}: no names or templates in it", 'a class file is {"set": ["name", …]}')
    return value


def _has_objects(value: Any) -> bool:
    """Whether a list in it holds objects, as in annotations of images. Class files have none."""
    if isinstance(value, list):
        return any(isinstance(inner, dict) or _has_objects(inner) for inner in value)
    return isinstance(value, dict) and any(map(_has_objects, value.values()))


def texts(value: Any) -> Iterator[str]:
    """Return all texts that are not blank, in order."""
    if isinstance(value, str) and value.strip():
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from texts(inner)


def replaced(value: Any, replace: Callable[[str], str]) -> Any:
    """Return the same value with each of these texts replaced."""
    if isinstance(value, str):
        return str(replace(value)) if value.strip() else value
    if isinstance(value, dict):
        return {key: replaced(inner, replace) for key, inner in value.items()}
    return [replaced(inner, replace) for inner in value] if isinstance(value, list) else value


def dump(value: Any, path: Path) -> str:
    """Return the content of a file: YAML or JSON, as its name says."""
    import yaml

    if path.suffix.lower() in YAML:
        return yaml.safe_dump(value, allow_unicode=True, sort_keys=False)
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"
