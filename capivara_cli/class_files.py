"""Class files: names and templates of classes, as CLIP_benchmark and others have them, in JSON or YAML.

    {"set": ["name", …]}   {"set": ["a photo of a {c}."]}   {"set": {"class": [prompts]}}   {"XH": [[numbers], [names]]}

What is nested in what does not matter here: texts are values, and keys and numbers stay as they are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from capivara_cli.errors import CapivaraError

YAML = (".yaml", ".yml")


def is_one(source: str | Path) -> bool:
    """Whether the name is that of a class file: records end in `.jsonl`."""
    return Path(source).suffix.lower() in (".json", *YAML)


def read(path: Path) -> Any:
    """What the file holds. Raises CapivaraError when it cannot be read or has no names or templates."""
    import yaml

    try:
        content = path.read_text(encoding="utf-8-sig")
        value = yaml.safe_load(content) if path.suffix.lower() in YAML else json.loads(content)
    except OSError as error:
        raise CapivaraError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise CapivaraError(f"{path} is neither JSON nor YAML: {' '.join(str(error).split())}") from error
    if _has_objects(value):
        raise CapivaraError(f"{path} has lists of objects: no class file", "records are JSONL: docs/data.md")
    if not isinstance(value, dict | list) or not any(texts(value)):
        raise CapivaraError(f"{path}: no names or templates in it", 'a class file is {"set": ["name", …]}')
    return value


def _has_objects(value: Any) -> bool:
    """Whether a list in it holds objects, as annotations of images do and names of classes do not."""
    if isinstance(value, list):
        return any(isinstance(inner, dict) or _has_objects(inner) for inner in value)
    return isinstance(value, dict) and any(map(_has_objects, value.values()))


def texts(value: Any) -> Iterator[str]:
    """All texts that are not blank, in their order."""
    if isinstance(value, str) and value.strip():
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from texts(inner)


def replaced(value: Any, replace: Callable[[str], str]) -> Any:
    """The same with each of these texts replaced."""
    if isinstance(value, str):
        return str(replace(value)) if value.strip() else value
    if isinstance(value, dict):
        return {key: replaced(inner, replace) for key, inner in value.items()}
    return [replaced(inner, replace) for inner in value] if isinstance(value, list) else value


def dump(value: Any, path: Path) -> str:
    """The file's content, in the form that its name says."""
    import yaml

    if path.suffix.lower() in YAML:
        return yaml.safe_dump(value, allow_unicode=True, sort_keys=False)
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"
