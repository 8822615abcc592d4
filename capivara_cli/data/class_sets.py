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
import re
import reprlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from capivara_cli import console
from capivara_cli.data.class_files import content, is_ours, load_yaml
from capivara_cli.data.languages import find
from capivara_cli.errors import CapivaraError, nearest

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
        file: that holds them.
    """

    name: str
    labels: tuple[str, ...]
    names: dict[str, Names]
    templates: dict[str, tuple[str, ...]] = field(default_factory=dict)
    prompts: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)
    metric: str | None = None
    source: str = ""
    file: str = ""

    def names_in(self, lang: str) -> Names:
        """The names in a language. Raises CapivaraError, naming the languages there are, when it has none."""
        found = _by_language(self.names, lang)
        if found is None:
            there = ", ".join(sorted(self.names)) or "none"
            raise CapivaraError(
                f"{self.name} has no names in {lang}: there are {there}",
                f"capivara translate {self.file or 'FILE'} --to {lang} -o FILE.yaml makes them, --classes FILE.yaml",
            )
        return found

    def templates_in(self, lang: str) -> tuple[str, ...]:
        """The templates in a language; `{c}` alone where there are none."""
        found: tuple[str, ...] | None = _by_language(self.templates, lang)
        return found or ("{c}",)

    def has_prompts(self, lang: str) -> bool:
        """Whether there are prompts by class in a language."""
        return bool(_by_language(self.prompts, lang))

    def is_asked(self, lang: str) -> bool:
        """Whether there are templates or prompts in a language."""
        return self.has_prompts(lang) or _by_language(self.templates, lang) is not None

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
    folder = importlib.resources.files("capivara_cli.configs")
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((folder / "classes").iterdir(), key=lambda path: path.name):
        if path.name.endswith(".yaml"):
            value = load_yaml(path.read_text(encoding="utf-8"))
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


def load(given: str | None, langs: Sequence[str], data: Sequence[str] = ()) -> ClassSet | None:
    """The set of `--classes`: a file, `FILE#key`, or a name; None looks for one that is called as the data.

    Raises CapivaraError for a file in no known form, or a name that is not known or not shipped.
    """
    file, _, key = (given or "").partition("#")
    if given is not None and (Path(file).is_file() or Path(file).suffix):
        return _read(Path(file), key or None, langs)
    if given is None:
        name = next((found for source in data for each in _called(source) if (found := known_name(each))), None)
    else:
        name = known_name(given)
        if name is None:
            raise CapivaraError(
                f"no class set {given}, and no such file{nearest(given, list(shipped()))}",
                "capivara classify-eval --list shows them; --classes FILE",
            )
    if name is None:
        return None
    entry = shipped()[name]
    if not entry["langs"]:
        if given is None:
            return None
        raise CapivaraError(
            f"{name} is known, but its names do not come with capivara", f"--classes FILE: {entry['source']}"
        )
    path = importlib.resources.files("capivara_cli.configs") / "classes" / f"{name}.yaml"
    return replace(_ours(load_yaml(path.read_text(encoding="utf-8")), name), file=str(path))


def known_name(text: str) -> str | None:
    """The set that is called so, in any spelling, and as CLIP_benchmark calls it; None when none is."""
    known = {_simple(key): key for key in shipped()} | {_simple(key): name for key, name in _ALIASES.items()}
    return known.get(_simple(text.removeprefix("wds/").removeprefix("vtab/")))


# What CLIP_benchmark calls them, where that is not what ELEVATER does.
_ALIASES = {
    "pcam": "patchcamelyon",
    "renderedsst2": "rendered-sst2",
    "sst2": "rendered-sst2",
    "kitti_closest_vehicle_distance": "kitti-distance",
    "flowers": "oxford-flowers-102",
    "pets": "oxford-iiit-pets",
    "cars": "stanford-cars",
    "imagenet1k": "imagenet-1k",
    "caltech101": "caltech-101",
    "resisc45": "resisc-45",
    "fgvc_aircraft": "fgvc-aircraft",
}
_PARTS = {"train", "val", "valid", "validation", "dev", "test", "images", "data", "wds"}


def _called(source: str) -> Iterator[str]:
    """What data are called: their file or folder, or where that is a part of them, the folder above."""
    path = Path(source).absolute() if source != "-" else Path("stdin")
    name = path.resolve().stem if path.exists() else path.stem
    yield name
    above = path.resolve().parent if path.exists() else path.parent
    while name.lower() in _PARTS or re.fullmatch(r"[\d{}.]+", name):
        name, above = above.name, above.parent
        yield name
        if not name:
            return


def _simple(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _read(path: Path, key: str | None, langs: Sequence[str]) -> ClassSet:
    value = content(path)
    name = key or path.name.removesuffix(".json").removesuffix(".yaml")
    if is_ours(value):
        return replace(_ours(value, name), file=str(path))
    if isinstance(value, dict) and value and all(map(_is_babel, value.values())):
        return _babel(value, name)
    value = _chosen(value, key, path)
    names = _names(value, path, langs)
    labels = tuple(dict.fromkeys(label for own in names.values() for label in own))
    return ClassSet(name, labels, names, source=str(path), file=str(path))


def _ours(value: dict[str, Any], name: str) -> ClassSet:
    try:
        given = value.get("labels") or list(next(iter(value["names"].values())))
        labels = tuple(str(label).strip() for label in given) if isinstance(given, list) else ()
        names = {
            lang: {str(label): _several(each) for label, each in own.items()} for lang, own in value["names"].items()
        }
        templates = {lang: tuple(own) for lang, own in (value.get("templates") or {}).items()}
        prompts = {
            lang: {str(label): _texts(each) for label, each in own.items()}
            for lang, own in (value.get("prompts") or {}).items()
        }
    except (AttributeError, TypeError, StopIteration) as error:
        raise CapivaraError(f"{name}: not a class file: {error}", "docs/classification.md shows the forms") from error
    if not labels:
        raise CapivaraError(f"{name}: `labels` is no list", "labels: [airplane, automobile]")
    if twice := sorted(label for label, count in Counter(labels).items() if count > 1):
        raise CapivaraError(f"{name}: labels that come twice: {first_ten(twice)}", "each class has its own")
    if strange := [label for own in (*names.values(), *prompts.values()) for label in own if label not in set(labels)]:
        raise CapivaraError(f"{name}: names of what is not in `labels`: {first_ten(dict.fromkeys(strange))}")
    metric = value.get("metric")
    if metric is not None and (not isinstance(metric, str) or metric not in METRICS):
        raise CapivaraError(f"{name}: metric {metric} is not known", f"one of {', '.join(METRICS)}")
    for own in templates.values():
        check_templates(own, name)
    return ClassSet(name, labels, names, templates, prompts, metric, str(value.get("source", "")))


def _several(value: Any) -> tuple[str, ...]:
    """One name or several. Raises TypeError for what is none."""
    return tuple(each.strip() for each in _texts(value))


def _texts(value: Any) -> tuple[str, ...]:
    found = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else ()
    if not found or not all(isinstance(each, str) and each.strip() for each in found):
        raise TypeError(f"{reprlib.repr(value)} is no name")
    return found


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
            known = [each for each in sets if known_name(each)]
            if not known and all(len(value[each]) <= 8 for each in sets):  # a class's names, not a set's classes
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
    value = content(path)
    if isinstance(value, dict) and key:
        if key not in value:
            raise CapivaraError(
                f"{path} has no {key}: there are {', '.join(list(value)[:10])}", f"--templates {path}#KEY"
            )
        value = value[key]
    elif isinstance(value, dict):
        own = _simple(classes.name)
        chosen = [each for each in value if _simple(each) == own or known_name(each) == classes.name]
        if chosen:
            value = value[chosen[0]]
        elif len(value) == 1 and not _is_language(next(iter(value))):
            ((only, value),) = value.items()
            console.say(f"templates of {only}, the only ones in {path}")
    if isinstance(value, list):
        check_templates(value, given)
        return _replaced(classes, templates={lang: tuple(value) for lang in langs})
    if not isinstance(value, dict) or not value or not all(isinstance(own, list) for own in value.values()):
        raise CapivaraError(f"{given} has no templates", 'a list: ["a photo of a {c}."]')
    if all(map(_is_language, value)):
        for each in value.values():
            check_templates(each, given)
        templates = {lang: tuple(each) for lang, each in value.items()}
        for lang in langs:
            if _by_language(templates, lang) is None:
                raise CapivaraError(f"{given} has no templates in {lang}: there are {', '.join(value)}")
        return _replaced(classes, templates=templates)
    return _replaced(classes, prompts={lang: _by_class(classes, value, lang, given) for lang in langs})


def _replaced(classes: ClassSet, **changes: Any) -> ClassSet:
    return replace(classes, **{"templates": {}, "prompts": {}, **changes})


def _by_class(classes: ClassSet, value: dict[str, list[str]], lang: str, given: str) -> dict[str, tuple[str, ...]]:
    """Prompts of each class, found by its label or one of its names."""
    there = {normal(key): own for key, own in value.items()}
    names = classes.names_in(lang)
    if not any(normal(each) in there for label, own in names.items() for each in (label, *own)):
        raise CapivaraError(
            f"{given} has templates of {first_ten(value)}, and none of {classes.name} or its classes", f"{given}#KEY"
        )
    result = {}
    for label, own in names.items():
        found = next((there[normal(each)] for each in (label, *own) if normal(each) in there), None)
        if found is None:
            raise CapivaraError(f"{given} has no prompts for {label}", "its keys are labels or names of classes")
        try:
            result[label] = _texts(found)
        except TypeError as error:
            raise CapivaraError(f"{given}: {label}: no prompts: {reprlib.repr(found)}") from error
    return result


def check_templates(templates: Any, where: str) -> None:
    """Raise CapivaraError for a template without a place for the name."""
    if not isinstance(templates, list | tuple) or not templates:
        raise CapivaraError(f"{where}: no list of templates", 'a list: ["a photo of a {c}."]')
    for template in templates:
        if not isinstance(template, str) or not re.search(r"\{c?\}", template):
            raise CapivaraError(f"{where}: the template {template!r} has no place for the name", "a photo of a {c}.")


def normal(text: str) -> str:
    """For comparison: one normal form, lower case, and `_` and `-` as spaces; -1 is not 1."""
    if re.fullmatch(r"\s*-\d+\s*", text):
        return text.strip()
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
    """The number of a label in the data: a class's own label, its number, or one that reads the same.

    Where the classes' own labels are numbers, a number is a label: classes may count from 1 where the data do from 0.
    """
    if label in known:
        return known[label]
    if re.fullmatch(r"\d{1,9}(\.0)?", label):
        number = int(label.partition(".")[0])
        if str(number) in known:
            return known[str(number)]
        if number < len(classes.labels) and not all(map(str.isdecimal, classes.labels)):
            return number
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
