"""A class set: classes with their names and prompts by language, and how labels of the data match them."""

from __future__ import annotations

import importlib.resources
import re
import shlex
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

from capivara_cli.data.languages import bcp47, find, variant
from capivara_cli.errors import CapivaraError
from capivara_cli.yaml_files import parse_yaml

METRIC_KEYS = {
    "acc1": "acc1",
    "acc5": "acc5",
    "mean_per_class_recall": "mean_per_class_recall",
    "map": "mean_average_precision",
    "map11": "mean_average_precision_11_points",
    "roc_auc": "roc_auc",
}
"""Name of a metric in a class file or in `--metric` -> its key in a result file."""

Names = dict[str, tuple[str, ...]]
"""Label -> the names of the class, the most common first."""

T = TypeVar("T")


@dataclass(frozen=True)
class ClassSet:
    """Classes with their names and prompts.

    Attributes:
        name: of the set, for the result.
        labels: of the classes, in the order of their indices in the data.
        names: language -> names. The language is `""` if the file does not say it.
        templates: language -> sentences with `{c}`.
        prompts: language -> label -> whole sentences, for sets that have prompts by class.
        metric: key of METRIC_KEYS; None if the set does not say.
        source: where the names come from.
        file: the file that holds them.
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
        """Return the names in a language. Raises CapivaraError, naming the languages of the set, if it has none."""
        names = in_language(self.names, lang)
        if names is None:
            origin = "" if "en" in self.names or not self.names else f" --from {next(iter(self.names))}"
            line = f"capivara translate {shlex.quote(self.file or 'FILE')} --to {lang}{origin} -o FILE.yaml"
            raise CapivaraError(
                f"{self.name} has no names in {lang}: it has {', '.join(sorted(self.names)) or 'none'}",
                f"{line} makes them, --classes FILE.yaml",
            )
        return names

    def templates_in(self, lang: str) -> tuple[str, ...]:
        """Return the templates in a language; the bare name if there are none."""
        return in_language(self.templates, lang) or ("{c}",)

    def has_prompts(self, lang: str) -> bool:
        """Whether the set has prompts by class in a language."""
        return bool(in_language(self.prompts, lang))

    def has_templates(self, lang: str) -> bool:
        """Whether the set has templates in a language, or prompts by class."""
        return self.has_prompts(lang) or in_language(self.templates, lang) is not None

    def prompts_of(self, label: str, lang: str) -> list[str]:
        """Return the prompts of a class: its own, or each of its names in each template."""
        if prompts := (in_language(self.prompts, lang) or {}).get(label):
            return list(prompts)
        return [fill(template, name) for name in self.names_in(lang)[label] for template in self.templates_in(lang)]


def fill(template: str, name: str) -> str:
    """Put the name into the template. Other braces stay as they are, which str.format would not allow."""
    return re.sub(r"\{c?\}", lambda _: name, template)


def in_language(by_language: Mapping[str, T], lang: str) -> T | None:
    """Return the value for a language: `pt-BR` falls back to `pt`, `pt` to any `pt-…`, and every language to `""`."""
    language = find(lang)
    codes = [lang.lower(), lang.lower().partition("-")[0], *([language.code.lower()] if language else []), ""]
    lower = {bcp47(code).lower(): value for code, value in by_language.items()}
    codes.insert(-1, (variant(lang, dict.fromkeys(filter(None, map(bcp47, by_language)), 1)) or "").lower())
    return next((lower[code] for code in codes if code in lower), None)


@cache
def known_sets() -> dict[str, dict[str, Any]]:
    """Return all known sets: name -> title, classes, metric, source, langs. A set without `langs` has no names here."""
    folder = importlib.resources.files("capivara_cli.configs")
    sets: dict[str, dict[str, Any]] = {}
    for path in sorted((folder / "classes").iterdir(), key=lambda path: path.name):
        if path.name.endswith(".yaml"):
            value = parse_yaml(path.read_text(encoding="utf-8"), path.name, "texts")
            entry = {key: value[key] for key in ("title", "metric", "source")}
            entry |= {"classes": len(value["labels"]), "langs": sorted(value["names"])}
            sets[path.name.removesuffix(".yaml")] = entry
    head, *rows = (line.split("\t") for line in (folder / "class_sets.tsv").read_text(encoding="utf-8").splitlines())
    for row in rows:
        entry = dict(zip(head, row, strict=True))
        sets.setdefault(entry.pop("name"), {**entry, "classes": int(entry["classes"]), "langs": []})
    return sets


def known_name(text: str) -> str | None:
    """Return the name of a known set, given in any spelling or as CLIP_benchmark has it; None if it is not known."""
    names = {name: name for name in known_sets()} | _ALIASES  # spelling -> name
    known = {simple_name(spelling): name for spelling, name in names.items()}
    # CLIP_benchmark marks where it loads a set from: `wds/vtab/pets`.
    return known.get(simple_name(text.removeprefix("wds/").removeprefix("vtab/")))


# CLIP_benchmark's names, where they differ from ELEVATER's.
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


def simple_name(name: str) -> str:
    """Return the letters and digits of a set's name, to compare spellings."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def normalise(text: str) -> str:
    """Return the form in which names are compared: NFC, lower case, `_` and `-` as spaces. A number keeps its minus."""
    if re.fullmatch(r"\s*-\d+\s*", text):
        return text.strip()
    return " ".join(re.sub(r"[_-]", " ", unicodedata.normalize("NFC", text)).casefold().split())


def shared_names(classes: ClassSet, lang: str) -> list[tuple[str, str, str]]:
    """Return the names that two classes share in a language, each with the two labels."""
    first: dict[str, str] = {}
    shared = []
    for label, names in classes.names_in(lang).items():
        for name in dict.fromkeys(map(normalise, names)):
            if first.setdefault(name, label) != label:
                shared.append((name, first[name], label))
    return shared


def class_indices(classes: ClassSet, labels: Iterable[str]) -> dict[str, int | None]:
    """Map labels of the data to class indices; None for a label of no class.

    A label of the data is a class's label, its index, its label in another spelling, or its English name. If the
    classes' labels are themselves numbers, a number is a label and never an index: they may count from 1.
    """
    by_label = {label: index for index, label in enumerate(classes.labels)}
    # In the order of precedence: labels, their other spellings, English names.
    by_text = dict(by_label)
    for label, index in by_label.items():
        by_text.setdefault(normalise(label), index)
    for lang in ("en", ""):
        for label, names in classes.names.get(lang, {}).items():
            for name in map(normalise, names):
                if label in by_label:
                    by_text.setdefault(name, by_label[label])
    numeric = all(map(str.isdecimal, classes.labels))

    def index_of(label: str) -> int | None:
        if label not in by_text and re.fullmatch(r"\d{1,9}(\.0)?", label):  # 1.0: a 1 in a table with gaps
            number = int(label.partition(".")[0])
            if str(number) in by_text:
                return by_text[str(number)]
            if number < len(classes.labels) and not numeric:
                return number
        return by_text.get(label, by_text.get(normalise(label)))

    return {label: index_of(label) for label in labels}


def first_ten(names: Iterable[str]) -> str:
    """Return the first ten names, and how many more there are. Quote a name whose end a reader would not see."""
    every = [name if name == name.strip(" :,") and name else f'"{name}"' for name in names]
    return ", ".join(every[:10]) + (f" and {len(every) - 10:,} more" if len(every) > 10 else "")
