"""Read class sets and templates from files.

Forms of a class file, in JSON or YAML:

    {"labels": [...], "names": {"hi": {label: name}}, "templates": {"hi": ["… {c}"]},
     "prompts": {"hi": {label: [...]}}, "metric": "acc1"}      ours; only `names` is required
    {"cifar10": ["airplane", …]}                               CLIP_benchmark: names in the order of the classes
    {"HI": [[0, 2, 7], ["…", "…", "…"]]}                       Babel-ImageNet: class indices and their names
    {"hi": {"dog": "कुत्ता"}}                                    names by language and label
    {"dog": "कुत्ता"} or ["कुत्ता", …] or one name per line      names in the language of `--lang`

Forms of a template file: `["a photo of a {c}."]`; the same by set or by language; and prompts by class, as CuPL's
(Pratt et al. 2023): `{"dog": [...]}`, or that by set. `{}` stands for the name as `{c}` does. Wherever a name may
stand, a list of names may stand too.
"""

from __future__ import annotations

import importlib.resources
import re
import reprlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from capivara_cli import console
from capivara_cli.data.class_files import OUR_FORM, is_ours, loose_parts, read_content
from capivara_cli.data.class_sets import (
    METRIC_KEYS,
    ClassSet,
    Names,
    first_ten,
    in_language,
    known_name,
    known_sets,
    normalise,
    simple_name,
)
from capivara_cli.data.languages import find
from capivara_cli.errors import CapivaraError, explained, nearest
from capivara_cli.yaml_files import parse_yaml

FORMS = "docs/classification.md shows the forms"
IMAGENET_CLASSES = 1000


def load(source: str) -> ClassSet:
    """Load the class set of `--classes`: a file, `FILE#KEY` for one set of several, or the name of an included set.

    Raises CapivaraError for a file in an unknown form, and for a set that is unknown or not included.
    """
    file, _, key = source.partition("#")
    # A name with a suffix means a file even if there is none: the error then names the missing file, not a set.
    if Path(file).is_file() or Path(file).suffix:
        return replace(_read(Path(file), key or None), file=file)
    name = known_name(source)
    if name is None:
        raise CapivaraError(
            f"no class set {source}, and no such file{nearest(source, list(known_sets()))}",
            "capivara classify-eval --list shows the sets; --classes FILE takes your own",
        )
    if not known_sets()[name]["langs"]:
        raise CapivaraError(
            f"{name} is known, but its names are not included in capivara",
            f"--classes FILE: {known_sets()[name]['source']}",
        )
    path = importlib.resources.files("capivara_cli.configs") / "classes" / f"{name}.yaml"
    return replace(_ours(parse_yaml(path.read_text(encoding="utf-8"), str(path), "texts"), name), file=str(path))


def _read(path: Path, key: str | None) -> ClassSet:
    value = read_content(path)
    name = key or path.name.removesuffix(".json").removesuffix(".yaml")
    if key is None and (parts := loose_parts(value)):
        raise CapivaraError(f"{path}: `{parts[0]}` is not the name of a class set", OUR_FORM)
    with explained(f"{path}: not a class file", TypeError, hint=FORMS):
        if is_ours(value):
            return _ours(value, name)
        if isinstance(value, dict) and value and all(map(_is_babel, value.values())):
            return _babel(value, name)
        names = _names(_one_set(value, key, path))
    labels = tuple(dict.fromkeys(label for of_language in names.values() for label in of_language))
    if not labels:
        raise CapivaraError(f"{path} has no names of classes", FORMS)
    return ClassSet(name, labels, names, source=str(path))


def _ours(value: dict[str, Any], name: str) -> ClassSet:
    names = {lang: _labelled_names(by_label) for lang, by_label in _part(value, "names", dict).items()}
    if not names:
        raise TypeError("`names` has no language")
    # Without `labels` the classes are those of the first language, in its order.
    listed = value.get("labels") or list(next(iter(names.values())))
    labels = tuple(str(label).strip() for label in listed) if isinstance(listed, list) else ()
    templates = {lang: tuple(sentences) for lang, sentences in _part(value, "templates", list).items()}
    prompts = {
        lang: {str(label): _texts(sentences) for label, sentences in by_label.items()}
        for lang, by_label in _part(value, "prompts", dict).items()
    }
    if not labels:
        raise CapivaraError(f"{name}: `labels` is not a list", "labels: [airplane, automobile]")
    if repeated := sorted(label for label, count in Counter(labels).items() if count > 1):
        raise CapivaraError(f"{name}: repeated labels: {first_ten(repeated)}", "give each class its own label")
    named = dict.fromkeys(label for by_label in (*names.values(), *prompts.values()) for label in by_label)
    if unknown := [label for label in named if label not in set(labels)]:
        raise CapivaraError(f"{name}: names of classes that are not in `labels`: {first_ten(unknown)}")
    metric = value.get("metric")
    if metric is not None and (not isinstance(metric, str) or metric not in METRIC_KEYS):
        raise CapivaraError(f"{name}: metric {metric} is not known", f"one of {', '.join(METRIC_KEYS)}")
    for sentences in templates.values():
        check_templates(sentences, name)
    return ClassSet(name, labels, names, templates, prompts, metric, str(value.get("source", "")))


def _part(value: dict[str, Any], key: str, kind: type) -> dict[str, Any]:
    """Return a part of our own form by language; empty if there is none. Raises TypeError for another form."""
    part = value.get(key) or {}
    if not isinstance(part, dict) or not all(isinstance(of_language, kind) for of_language in part.values()):
        raise TypeError(f"`{key}` has another form than {OUR_FORM}")
    return part


def _is_babel(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(part, list) for part in value):
        return False
    indices, names = value
    return len(indices) == len(names) and all(isinstance(index, int) for index in indices)


def _babel(value: dict[str, Any], name: str) -> ClassSet:
    names = {
        lang.lower(): _labelled_names(dict(zip(indices, texts, strict=True)))
        for lang, (indices, texts) in value.items()
    }
    # Most languages lack names. The classes without one keep their index, so the set has at least ImageNet's 1,000.
    last = max((int(label) for by_label in names.values() for label in by_label), default=-1)
    labels = tuple(str(index) for index in range(max(last + 1, IMAGENET_CLASSES)))
    return ClassSet(name, labels, names, source="Babel-ImageNet")


def _one_set(value: Any, key: str | None, path: Path) -> Any:
    """Return the set of `FILE#KEY`, or the only one of a file in CLIP_benchmark's form; other forms as they are."""
    if key is not None:
        return _by_key(value, key, path, "--classes")
    if isinstance(value, dict) and value and all(isinstance(names, list) for names in value.values()):
        if len(value) > 1:
            raise CapivaraError(f"{path} has several sets: {first_ten(value)}", f"--classes {path}#{next(iter(value))}")
        (value,) = value.values()
    return value


def _by_key(value: Any, key: str, path: Path, flag: str) -> Any:
    if not isinstance(value, dict) or key not in value:
        keys = (first_ten(value) if isinstance(value, dict) else "") or "none"
        raise CapivaraError(f"{path} has no {key} (its keys: {keys})", f"{flag} {path}#KEY")
    return value[key]


def _names(value: Any) -> dict[str, Names]:
    """Return the names by language: `""` where the file has no languages. Raises TypeError for anything else."""
    if isinstance(value, list):
        by_label: Names = {}
        for index, (first, *others) in enumerate(map(_class_names, value)):
            # A list may name two classes alike: "crane" the bird and "crane" the machine.
            label = first if first not in by_label else f"{first} ({index})"
            by_label[label] = (first, *others)
        return {"": by_label}
    if not isinstance(value, dict):
        raise TypeError(f"{reprlib.repr(value)} is neither an object nor a list")
    if all(isinstance(by_label, dict) for by_label in value.values()):
        return {lang: _labelled_names(by_label) for lang, by_label in value.items()}
    return {"": _labelled_names(value)}


def _labelled_names(by_label: Mapping[Any, Any]) -> Names:
    return {str(label): _class_names(names) for label, names in by_label.items()}


def _class_names(value: Any) -> tuple[str, ...]:
    return tuple(name.strip() for name in _texts(value))


def _texts(value: Any) -> tuple[str, ...]:
    """Return one text or several as a tuple. Raises TypeError for anything else."""
    texts = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else ()
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise TypeError(f"{reprlib.repr(value)} is not a text")
    return texts


def with_templates(classes: ClassSet, source: str, langs: Sequence[str]) -> ClassSet:
    """Return the set with the templates or prompts of a file instead of its own. `FILE#KEY` is one set of several.

    Raises CapivaraError for a template without a place for the name, and for a file in an unknown form.
    """
    value = _templates_of(classes, source)
    bare = replace(classes, templates={}, prompts={})
    if isinstance(value, list):
        check_templates(value, source)
        return replace(bare, templates={lang: tuple(value) for lang in langs})
    if not isinstance(value, dict) or not value or not all(isinstance(texts, list) for texts in value.values()):
        raise CapivaraError(f"{source} has no templates", 'a list: ["a photo of a {c}."]')
    if not all(map(find, value)):  # keys are classes, as in CuPL's prompts; otherwise they are languages
        return replace(bare, prompts={lang: _prompts_by_class(classes, value, lang, source) for lang in langs})
    for templates in value.values():
        check_templates(templates, source)
    for lang in langs:
        if in_language(value, lang) is None:
            raise CapivaraError(f"{source} has no templates in {lang}: it has {', '.join(value)}")
    return replace(bare, templates={lang: tuple(templates) for lang, templates in value.items()})


def _templates_of(classes: ClassSet, source: str) -> Any:
    """Return the part of `FILE#KEY`, the part of a file that is for this class set, or the whole content."""
    file, _, key = source.partition("#")
    value = read_content(Path(file))
    if not isinstance(value, dict):
        return value
    if key:
        return _by_key(value, key, Path(file), "--templates")
    spellings = {classes.name, simple_name(classes.name)}
    for name in value:
        if spellings & {known_name(name), simple_name(name)}:
            return value[name]
    if len(value) == 1 and find(next(iter(value))) is None:
        ((only, value),) = value.items()
        console.say(f"templates of {only}, the only ones in {file}")
    return value


def _prompts_by_class(
    classes: ClassSet, value: dict[str, list[str]], lang: str, source: str
) -> dict[str, tuple[str, ...]]:
    """Return label -> prompts. A class is found in the file by its label or by one of its names."""
    by_name = {normalise(key): prompts for key, prompts in value.items()}
    result = {}
    missing = []
    for label, names in classes.names_in(lang).items():
        key = next((key for key in map(normalise, (label, *names)) if key in by_name), None)
        if key is None:
            missing.append(label)
            continue
        with explained(f"{source}: the prompts of {label}", TypeError):
            result[label] = _texts(by_name[key])
    if not result:
        raise CapivaraError(
            f"{source} has templates of {first_ten(value)}, and none of {classes.name} or its classes", f"{source}#KEY"
        )
    if missing:
        raise CapivaraError(f"{source} has no prompts for {first_ten(missing)}", "its keys are labels or class names")
    return result


def check_templates(templates: Any, where: str) -> None:
    """Raise CapivaraError for a template without a place for the name."""
    if not isinstance(templates, list | tuple) or not templates:
        raise CapivaraError(f"{where}: not a list of templates", 'a list: ["a photo of a {c}."]')
    for template in templates:
        if not isinstance(template, str) or not re.search(r"\{c?\}", template):
            raise CapivaraError(f"{where}: the template {template!r} has no place for the name", "a photo of a {c}.")
