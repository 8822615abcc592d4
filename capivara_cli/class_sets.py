"""Class sets: the names of classes and the prompts that they are asked with, by language.

What is read, and found out by itself:

    {"labels": [...], "names": {"hi": {label: name}}, "templates": {"hi": ["… {c}"]},
     "prompts": {"hi": {label: [...]}}, "metric": "acc1"}                              ours, YAML; names alone will do
    {"cifar10": ["airplane", …]}                     CLIP_benchmark: names in the order of the classes
    {"HI": [[0, 2, 7], ["…", "…", "…"]]}             Babel-ImageNet: numbers of classes, and their names
    {"hi": {"dog": "कुत्ता"}} or {"dog": "कुत्ता"}        plain
    ["airplane", …], or a text file with a name a line

and of templates `["a photo of a {c}."]`, `{"cifar10": [...]}`, `{"HI": [...]}`, and per class, as CuPL's,
`{"cifar10": {"dog": [...]}}`. `{}` stands for the name as `{c}` does. A class may have several names: a list.
"""

from __future__ import annotations

import importlib.resources
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from capivara_cli.errors import CapivaraError, nearest
from capivara_cli.languages import find

METRICS = {
    "acc1": "acc1",
    "acc5": "acc5",
    "mean_per_class_recall": "mean_per_class_recall",
    "map": "mean_average_precision",
    "map11": "mean_average_precision_11_points",
    "roc_auc": "roc_auc",
}
"""What a class file or --metric calls it -> its key in a result file."""

Names = dict[str, tuple[str, ...]]
"""Label -> the class's names, the commonest first."""


@dataclass(frozen=True)
class ClassSet:
    """Classes, their names and prompts.

    Attributes:
        name: of the set, for the result.
        labels: of the classes, in the order of their numbers in the data.
        names: language -> names; `""` is the language of a file that does not say its own.
        templates: language -> sentences with `{c}`.
        prompts: language -> label -> whole sentences, for sets that have them by class.
        metric: key of METRICS; None when the set does not say.
        source: where the names come from.
    """

    name: str
    labels: tuple[str, ...]
    names: dict[str, Names]
    templates: dict[str, tuple[str, ...]] = field(default_factory=dict)
    prompts: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)
    metric: str | None = None
    source: str = ""

    def names_in(self, lang: str) -> Names:
        """The names in a language. Raises CapivaraError, naming the languages there are, when it has none."""
        found = _by_language(self.names, lang)
        if found is None:
            there = ", ".join(sorted(self.names)) or "none"
            raise CapivaraError(
                f"{self.name} has no names in {lang}: there are {there}",
                f"capivara translate FILE --to {lang} makes them, --classes FILE takes them",
            )
        return found

    def templates_in(self, lang: str) -> tuple[str, ...]:
        """The templates in a language; `{c}` alone where there are none."""
        found: tuple[str, ...] | None = _by_language(self.templates, lang)
        return found or ("{c}",)

    def ask(self, lang: str, label: str) -> list[str]:
        """The prompts of a class: each name in each template."""
        own = (_by_language(self.prompts, lang) or {}).get(label)
        if own:
            return list(own)
        return [fill(template, name) for name in self.names_in(lang)[label] for template in self.templates_in(lang)]


def fill(template: str, name: str) -> str:
    """The template with the name in it; whatever else stands in braces stays."""
    return re.sub(r"\{c?\}", lambda _: name, template)


def _by_language(found: Mapping[str, Any], lang: str) -> Any:
    """What there is for a language: `pt-BR` takes that of `pt`; a file without languages is of the one asked for."""
    language = find(lang)
    codes = [lang.lower(), lang.lower().partition("-")[0], *([language.code.lower()] if language else []), ""]
    lower = {code.lower(): value for code, value in found.items()}
    return next((lower[code] for code in codes if code in lower), None)


def shipped() -> dict[str, dict[str, Any]]:
    """The sets that come with capivara, and those that are only known: name -> title, classes, metric, source."""
    import yaml

    folder = importlib.resources.files("capivara_cli.configs")
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((folder / "classes").iterdir(), key=lambda path: path.name):
        if path.name.endswith(".yaml"):
            value = yaml.safe_load(path.read_text(encoding="utf-8"))
            langs = sorted(value["names"])
            entry = {
                "classes": len(value["labels"]),
                "metric": value["metric"],
                "source": value["source"],
                "langs": langs,
            }
            found[path.name.removesuffix(".yaml")] = {"title": value["title"], **entry}
    head, *rows = (line.split("\t") for line in (folder / "class_sets.tsv").read_text(encoding="utf-8").splitlines())
    for row in rows:
        entry = dict(zip(head, row, strict=True))
        found.setdefault(entry.pop("name"), {**entry, "classes": int(entry["classes"]), "langs": []})
    return found


def load(given: str | None, langs: Sequence[str], data: str = "") -> ClassSet | None:
    """The set of `--classes`: a file, `FILE#key`, or a name; None looks for one that is called as the data.

    Raises CapivaraError for a file in no known form, or a name that is not known or not shipped.
    """
    name = _simple(given if given is not None else data)
    known = {_simple(key): key for key in shipped()}
    file, _, key = (given or "").partition("#")
    if given is not None and (Path(file).is_file() or Path(file).suffix):
        return _read(Path(file), key or None, langs)
    if name not in known:
        if given is None:
            return None
        raise CapivaraError(
            f"no class set {given}, and no such file{nearest(given, list(known.values()))}",
            "capivara classify-eval --list shows them; --classes FILE",
        )
    entry = shipped()[known[name]]
    if not entry["langs"]:
        if given is None:
            return None
        raise CapivaraError(
            f"{known[name]} is known, but its names do not come with capivara", f"--classes FILE: {entry['source']}"
        )
    folder = importlib.resources.files("capivara_cli.configs") / "classes"
    import yaml

    return _ours(yaml.safe_load((folder / f"{known[name]}.yaml").read_text(encoding="utf-8")), known[name])


def _simple(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _read(path: Path, key: str | None, langs: Sequence[str]) -> ClassSet:
    value = _content(path)
    name = key or path.name.removesuffix(".json").removesuffix(".yaml")
    if isinstance(value, dict) and "names" in value and isinstance(value["names"], dict):
        return _ours(value, name)
    if isinstance(value, dict) and value and all(map(_is_babel, value.values())):
        return _babel(value, name)
    value = _chosen(value, key, path)
    names = _names(value, path, langs)
    labels = tuple(dict.fromkeys(label for own in names.values() for label in own))
    return ClassSet(name, labels, names, source=str(path))


def _content(path: Path) -> Any:
    """What the file holds. Raises CapivaraError when it cannot be read."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() in (".yaml", ".yml"):
            return yaml.safe_load(text)
        if path.suffix.lower() == ".txt":
            return [line.strip() for line in text.splitlines() if line.strip()]
        return json.loads(text)
    except OSError as error:
        raise CapivaraError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise CapivaraError(f"{path} is neither JSON nor YAML: {' '.join(str(error).split())}") from error


def _ours(value: dict[str, Any], name: str) -> ClassSet:
    try:
        labels = tuple(map(str, value.get("labels") or next(iter(value["names"].values()))))
        names = {
            lang: {str(label): _several(each) for label, each in own.items()} for lang, own in value["names"].items()
        }
        templates = {lang: tuple(own) for lang, own in (value.get("templates") or {}).items()}
        prompts = {
            lang: {str(label): _several(each) for label, each in own.items()}
            for lang, own in (value.get("prompts") or {}).items()
        }
    except (AttributeError, TypeError, StopIteration) as error:
        raise CapivaraError(f"{name}: not a class file: {error}", "docs/classification.md shows the forms") from error
    metric = value.get("metric")
    if metric is not None and metric not in METRICS:
        raise CapivaraError(f"{name}: metric {metric} is not known", f"one of {', '.join(METRICS)}")
    for own in templates.values():
        check_templates(own, name)
    return ClassSet(name, labels, names, templates, prompts, metric, str(value.get("source", "")))


def _several(value: Any) -> tuple[str, ...]:
    found = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else ()
    if not found or not all(isinstance(each, str) and each.strip() for each in found):
        raise TypeError(f"{value!r} is no name")
    return tuple(each.strip() for each in found)


def _is_babel(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(part, list) for part in value)
        and len(value[0]) == len(value[1])
        and all(isinstance(number, int) for number in value[0])
    )


def _babel(value: dict[str, Any], name: str) -> ClassSet:
    names: dict[str, Names] = {
        lang.lower(): {str(number): _several(text) for number, text in zip(*own, strict=True)}
        for lang, own in value.items()
    }
    last = max((int(label) for own in names.values() for label in own), default=-1)
    labels = tuple(str(number) for number in range(max(last + 1, 1000)))
    return ClassSet(name, labels, names, source="Babel-ImageNet")


def _chosen(value: Any, key: str | None, path: Path) -> Any:
    """The part of a file of several sets that is asked for with `FILE#key`."""
    if key is not None:
        if not isinstance(value, dict) or key not in value:
            there = ", ".join(list(value)[:10]) if isinstance(value, dict) else "none"
            raise CapivaraError(f"{path} has no {key}: there are {there}", f"--classes {path}#KEY")
        return value[key]
    if isinstance(value, dict) and value and all(isinstance(each, list | dict) for each in value.values()):
        sets = [each for each in value if not _is_language(each)]
        if len(value) == 1 and sets:
            return value[sets[0]]
        if len(sets) > 1 and all(isinstance(value[each], list) and len(value[each]) > 0 for each in sets):
            if all(len(value[each]) <= 8 for each in sets):  # lists of a class's names, not of a set's classes
                return value
            raise CapivaraError(f"{path} has several sets: {', '.join(sets[:10])}", f"--classes {path}#{sets[0]}")
    return value


def _is_language(code: str) -> bool:
    return len(code) <= 8 and find(code) is not None


def _names(value: Any, path: Path, langs: Sequence[str]) -> dict[str, Names]:
    try:
        if isinstance(value, list):
            if len(langs) > 1:
                raise CapivaraError(f"{path} is of one language", "one --lang at a time, or a file with languages")
            own = list(map(_several, value))
            return {"": dict(zip(_labels(own), own, strict=True))} if own else _no_names(path)
        if isinstance(value, dict) and value:
            if all(isinstance(own, dict) for own in value.values()):
                return {
                    lang: {str(label): _several(each) for label, each in own.items()} for lang, own in value.items()
                }
            if all(_is_language(lang) and isinstance(own, list) for lang, own in value.items()):
                return _lists(value, path)
            return {"": {str(label): _several(each) for label, each in value.items()}}
    except TypeError as error:
        raise CapivaraError(f"{path}: {error}", "docs/classification.md shows the forms") from error
    return _no_names(path)


def _no_names(path: Path) -> NoReturn:
    raise CapivaraError(f"{path} has no names of classes", "docs/classification.md shows the forms")


def _labels(names: Sequence[tuple[str, ...]]) -> list[str]:
    """Labels of classes that are told apart by their place: the name, with its number where it comes again."""
    first: dict[str, int] = {}
    return [
        own[0] if first.setdefault(own[0], number) == number else f"{own[0]} ({number})"
        for number, own in enumerate(names)
    ]


def _lists(value: dict[str, list[Any]], path: Path) -> dict[str, Names]:
    """Lists of names by language, all in the order of the classes: labels are the English ones, or the first's."""
    if len({len(own) for own in value.values()}) > 1:
        counts = ", ".join(f"{lang} {len(own)}" for lang, own in value.items())
        raise CapivaraError(f"{path}: languages have different numbers of classes: {counts}")
    labels = _labels(list(map(_several, value.get("en") or next(iter(value.values())))))
    return {
        lang: {label: _several(each) for label, each in zip(labels, own, strict=True)} for lang, own in value.items()
    }


def with_templates(classes: ClassSet, given: str, langs: Sequence[str]) -> ClassSet:
    """The set with the templates of a file: a list, or lists by set, by language, or by class.

    Raises CapivaraError for a template without a place for the name, or a file in no known form.
    """
    file, _, key = given.partition("#")
    path = Path(file)
    value = _content(path)
    if isinstance(value, dict) and key:
        if key not in value:
            raise CapivaraError(
                f"{path} has no {key}: there are {', '.join(list(value)[:10])}", f"--templates {path}#KEY"
            )
        value = value[key]
    elif isinstance(value, dict):
        by_name = {_simple(each): each for each in value}
        if _simple(classes.name) in by_name:
            value = value[by_name[_simple(classes.name)]]
        elif len(value) == 1 and not _is_language(next(iter(value))):
            value = next(iter(value.values()))
    if isinstance(value, list):
        check_templates(value, given)
        return _replaced(classes, templates={lang: tuple(value) for lang in langs})
    if (
        isinstance(value, dict)
        and value
        and all(map(_is_language, value))
        and all(isinstance(v, list) for v in value.values())
    ):
        for own in value.values():
            check_templates(own, given)
        return _replaced(classes, templates={lang: tuple(own) for lang, own in value.items()})
    if isinstance(value, dict) and value and all(isinstance(own, list) for own in value.values()):
        return _replaced(classes, prompts={lang: _by_class(classes, value, lang, given) for lang in langs})
    raise CapivaraError(f"{given} has no templates", 'a list: ["a photo of a {c}."]')


def _replaced(classes: ClassSet, **changes: Any) -> ClassSet:
    from dataclasses import replace

    return replace(classes, **{"templates": {}, "prompts": {}, **changes})


def _by_class(classes: ClassSet, value: dict[str, list[str]], lang: str, given: str) -> dict[str, tuple[str, ...]]:
    """Prompts of each class, found by its label or one of its names."""
    there = {normal(key): tuple(own) for key, own in value.items()}
    result = {}
    for label, names in classes.names_in(lang).items():
        own = next((there[normal(each)] for each in (label, *names) if normal(each) in there), None)
        if own is None:
            raise CapivaraError(f"{given} has no prompts for {label}", "its keys are labels or names of classes")
        result[label] = own
    return result


def check_templates(templates: Any, where: str) -> None:
    """Raise CapivaraError for a template without a place for the name."""
    if not isinstance(templates, list | tuple) or not templates:
        raise CapivaraError(f"{where}: no list of templates", 'a list: ["a photo of a {c}."]')
    for template in templates:
        if not isinstance(template, str) or not re.search(r"\{c?\}", template):
            raise CapivaraError(f"{where}: the template {template!r} has no place for the name", "a photo of a {c}.")


def normal(text: str) -> str:
    """For comparison: one normal form, lower case, and `_` and `-` as spaces."""
    return " ".join(re.sub(r"[_-]", " ", unicodedata.normalize("NFC", text)).casefold().split())


def same_names(classes: ClassSet, lang: str) -> list[tuple[str, str, str]]:
    """Classes that share a name in a language: the name and the two labels."""
    first: dict[str, str] = {}
    found = []
    for label, names in classes.names_in(lang).items():
        for name in {normal(each): each for each in names}:
            if first.setdefault(name, label) != label:
                found.append((name, first[name], label))
    return found


def place_of(label: str, classes: ClassSet, known: Mapping[str, int]) -> int | None:
    """The number of a label in the data: a class's own label, its number, or one that reads the same."""
    if label in known:
        return known[label]
    if label.isdecimal() and int(label) < len(classes.labels):
        return int(label)
    return known.get(normal(label))


def known_labels(classes: ClassSet) -> dict[str, int]:
    """Label, and what reads the same, -> its number; English names too, where no label reads so."""
    known = {label: number for number, label in enumerate(classes.labels)}
    for number, label in enumerate(classes.labels):
        known.setdefault(normal(label), number)
    for own in (classes.names.get("en", {}), classes.names.get("", {})):
        for label, names in own.items():
            for name in names:
                if label in known:
                    known.setdefault(normal(name), known[label])
    return known


def first_ten(names: Iterable[str]) -> str:
    """The first ten of them, and how many more there are."""
    found = list(names)
    return ", ".join(found[:10]) + (f" and {len(found) - 10:,} more" if len(found) > 10 else "")
