"""The flags of `train`, and the recipe: everything that decides a training run."""

from __future__ import annotations

import importlib.resources
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from capivara_cli.config import (
    FLAGS,
    PROJECT_FILE,
    SET,
    Layer,
    by_path,
    combine,
    has,
    parse_set,
    project_layers,
    read_settings,
)
from capivara_cli.data import image_records, records
from capivara_cli.data.languages import Langs, read_lang
from capivara_cli.errors import BadOption, CapivaraError, nearest
from capivara_cli.models.options import MODEL_HELP, CacheOptions, LoraOptions, WeightsOptions
from capivara_cli.options import Machine, Options, Overwritable, below_each_other, flag, key, plain
from capivara_cli.values import AutoOrCount, Syntax

DEFAULT_DATA = "data/train.jsonl"
NO_LANGUAGE = "no language: --lang LANG is missing"

FITTED = ("batch_size", "max_steps", "optimizer.warmup_steps")
"""Paths of the values that `training.fit` may change."""

BUILT_IN = {"lora": "capivara-plus", "full": "capivara"}
"""Method -> the recipe of `configs/` that lies below all others."""


def _parse_shares(value: Any) -> dict[str, float]:
    """`["en:0.25", "pt"]` -> shares; a quarter where none is typed (small models forget English with less)."""
    if isinstance(value, Mapping):
        return {read_lang(str(lang)): share for lang, share in value.items()}
    shares = {}
    for text in [value] if isinstance(value, str) else value or ():
        lang, colon, share = str(text).partition(":")
        try:
            shares[read_lang(lang)] = float(share) if colon else 0.25
        except ValueError as error:
            raise ValueError(f"{share!r} is not a number, for example en:0.25") from error
    return shares


def _parse_repo(value: Any) -> str | None:
    """Return a repository's name. Raises ValueError when the hub has no such names."""
    from capivara_cli.models import hub

    if value is not None and (str(value).count("/") != 1 or not hub.is_name(str(value))):
        raise ValueError("not ORG/REPO, the name of a repository of the hub")
    return value


def _parse_repos(value: Any) -> list[Any]:
    """Return names of data sets on the hub."""
    return [_parse_repo(name) for name in ([value] if isinstance(value, str) else value or ())]


class ModelSection(WeightsOptions):
    """The model to start from."""

    name: str = flag(MODEL_HELP, default="xlm-roberta-base-ViT-B-32", name="--model", shown="the recipe's")
    unlock_image: bool = flag("Also train the image tower, on pixels.", default=False)
    from_scratch: bool = flag("Start from random weights.", default=False)


class DataSection(Options):
    """What to learn from."""

    train: Sequence[str] = flag(
        "Images and captions: JSONL, folder or tar shards.",
        default=(),
        name="--data",
        metavar="SOURCE",
        shown=DEFAULT_DATA,
    )
    val: str | None = flag(
        "Records to validate on.", default=None, metavar="SOURCE", shown="5 % of the images, held out"
    )
    val_share: float = key(
        "Share of the images to hold out, at most 1,000 of them; 0 for none.", default=0.05, min=0, below=1
    )


class OptimizerSection(Options):
    """Adam."""

    name: Literal["adam", "adamw"] = key(
        "`adam` couples the weight decay to the gradient (the paper's); `adamw` does not, and spares biases and norms.",
        default="adamw",
    )
    lr: float = flag("Highest learning rate.", default=1e-5, shown="the recipe's", above=0)
    min_lr: float = key("Where the warm-up starts and the cosine ends.", default=1e-6, min=0)
    betas: tuple[float, float] = key("Decay of the moments.", default=(0.9, 0.98))
    eps: float = key("Adam's epsilon.", default=1e-6, above=0)
    weight_decay: float = key("Weight decay.", default=0.2, min=0)
    warmup_steps: int = key("Steps from `min_lr` to `lr`.", default=250, min=0)


class TrainOptions(CacheOptions, Machine, Overwritable):
    """A training run. `train_options` makes one from a recipe and flags."""

    section = "train"
    old_names: ClassVar[Mapping[str, str]] = {"keep": "replay"}

    method: Literal["lora", "full"] = key("`lora` trains an adapter, `full` the whole text tower.")
    lang: Langs = flag("Languages to learn, BCP-47: hi or hi,xh.", metavar="LANG")
    model: ModelSection = key("The model to start from.", default={})
    data: DataSection = key("What to learn from.", default={})
    lora: LoraOptions = key("The adapter.", default={})
    optimizer: OptimizerSection = key("The optimiser.", default={})
    replay: Annotated[dict[str, float], Syntax(_parse_shares, many=True)] = flag(
        "Share of each batch for a language that must not be forgotten: en:0.25.",
        default={},
        metavar="LANG[:SHARE]",
        shown="the recipe's",
    )
    replay_missing: Literal["skip", "error"] = key(
        "What to do where the data have no captions in a language of `replay`.", default="skip", changes_result=False
    )
    views: int = flag(
        "Views of each image: the plain one, then augmented ones; one is drawn per step.", default=1, min=1, max=100
    )
    batch_size: int = flag("Images per step (contrastive batch size).", default=1000, shown="the recipe's", min=2)
    micro_batch: AutoOrCount = flag(
        "Texts per forward pass; lower it to save memory, the result does not change.",
        default=None,
        metavar="auto|N",
        changes_result=False,
    )
    max_steps: int = flag("Optimiser steps.", default=1500, shown="the recipe's", above=0)
    eval_every: int = key("Steps between validations.", default=100, above=0)
    fit: Sequence[str] = key(
        "Which of batch_size, max_steps and optimizer.warmup_steps are fitted to few images: those of the built-in"
        " recipe that nothing else sets.",
        default=(),
        changes_result=False,
    )
    save_seconds: float = key(
        "Least seconds between two saves of the state that a killed run resumes from.",
        default=30,
        min=0,
        changes_result=False,
    )


class MergeOptions(Options):
    """How to merge a run into its base model."""

    section = "merge-lora"

    scale: float = flag(
        "How far to go from the base model (0) to the trained one (1), in its weights.", default=1.0, min=0
    )
    dtype: Literal["float32", "float16", "bfloat16"] = flag("Data type of the weights.", default="float32")
    model: str | None = flag(f"Base model. {MODEL_HELP}", default=None, shown="the run's")
    hub_name: Annotated[str | None, Syntax(_parse_repo)] = flag(
        "Repository that the folder will be on the hub: it then loads in open_clip as hf-hub:ORG/REPO.",
        default=None,
        metavar="ORG/REPO",
    )
    dataset: Annotated[Sequence[str], Syntax(_parse_repos, many=True)] = flag(
        "Hub name of a data set that was trained on, for the model card.", default=(), metavar="ORG/NAME"
    )
    overwrite: bool = flag("Replace the output folder if it exists.", default=False, name="--overwrite")


def train_options(
    method: str | None = None, *, recipe: str | None = None, set: Sequence[str] = (), **flags: Any
) -> TrainOptions:
    """Put the layers of a training run together: built-in recipe, ./capivara.yaml, recipe, `--set` and flags.

    Args:
        method: `lora` or `full`; None where the recipe says which.
        recipe: name of a built-in recipe, or a YAML file.
        set: `key.path=value`, the value in YAML.
        flags: by their names (`lang`, `data`, `lr`), or by their paths in the recipe (`optimizer.lr`).

    Raises:
        CapivaraError: with every unknown key and every value that does not fit, and where each was given.
    """
    layers = [*project_layers(TrainOptions)]
    if recipe is not None:
        layers.append(_read_recipe(recipe))
    layers += [Layer(SET, parse_set(text)) for text in set]
    if flags.get("replay"):
        flags = {"replay_missing": "error", **flags}
    layers.append(Layer(FLAGS, by_path(TrainOptions, flags)))
    chosen = method or next((layer.values["method"] for layer in reversed(layers) if "method" in layer.values), None)
    if not isinstance(chosen, str) or chosen not in BUILT_IN:
        problem = "neither --lora nor --full" if chosen is None else f"method = {chosen!r}: neither lora nor full"
        raise BadOption(problem, "capivara train --lang hi --lora")
    layers.append(Layer(FLAGS, {"method": chosen}))
    ours = [layer.source for layer in layers if recipe is not None and layer.source == f"{recipe}.yaml"]
    settings = [layer.values for layer in layers if layer.source not in ours]
    lowest = [_read_recipe(BUILT_IN[chosen]), Layer(BUILT_IN[chosen], {"fit": FITTED})]
    if not any("lang" in layer.values for layer in layers):
        raise _no_language(combine(TrainOptions, [*lowest, *layers, Layer(FLAGS, {"lang": ["en"]})]))
    options = combine(TrainOptions, [*lowest, *layers])
    free = [path for path in options.fit if not any(has(values, path.split(".")) for values in settings)]
    return check_together(options.replace(fit=free))


def _no_language(options: TrainOptions) -> BadOption:
    """Return the error that --lang is missing. It lists the languages of the data, and has the line to type.

    Args:
        options: all others that were typed.
    """
    sources = list(options.data.train) or [default_data()]
    flags = f"--{options.method}" + "".join(f" --data {shlex.quote(source)}" for source in options.data.train)
    if "-" in sources:  # it can be read only once
        return BadOption(NO_LANGUAGE, f"capivara train --lang hi {flags}")
    counts = records.languages(image_records.read_all(sources))
    # English is what nearly every base model knows already.
    lang = next((lang for lang, _ in counts.most_common() if lang != "en"), "en")
    records.check_languages(counts, [lang], sources)  # raises when there is no caption at all
    has = records.name_languages(counts)
    return BadOption(f"{NO_LANGUAGE}; the data has captions in: {has}", f"capivara train --lang {lang} {flags}")


def default_data() -> str:
    """Return the data to train on where none are named. Raises CapivaraError when they do not exist."""
    if not Path(DEFAULT_DATA).is_file():
        raise CapivaraError(
            f"no data: neither --data, nor data.train in {PROJECT_FILE}, nor {DEFAULT_DATA} here",
            "--data FILE.jsonl names your images and captions; `capivara demo DIR` makes a folder to try things in",
        )
    return DEFAULT_DATA


def built_in(method: str) -> TrainOptions:
    """Return the options of the built-in recipe for `lora` or `full`, without those of ./capivara.yaml."""
    return combine(TrainOptions, [_read_recipe(BUILT_IN[method]), Layer(FLAGS, {"method": method, "lang": ["en"]})])


def read_options(path: Path) -> TrainOptions:
    """Read the resolved options of a run: its config.yaml. Raises CapivaraError when it is none."""
    return combine(TrainOptions, [Layer(str(path), read_settings(path))])


def result_values(options: TrainOptions) -> dict[str, Any]:
    """Return what decides the result of a run: it can be resumed only with the same."""
    return options.settings() | {"seed": options.seed}  # other commands compute the same with any seed


def to_yaml(options: TrainOptions) -> str:
    """Write resolved options as YAML, which `--recipe` reads again."""
    import yaml

    values: dict[str, Any] = plain(options)
    for name in ("replay_missing", "verify_cache", "overwrite", "fit"):  # how a run starts, not what it learns
        del values[name]
    values["micro_batch"] = options.micro_batch or "auto"
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _read_recipe(recipe: str) -> Layer:
    """Return a recipe file, or the built-in recipe of that name."""
    if Path(recipe).is_file():
        return Layer(recipe, read_settings(Path(recipe)))
    with importlib.resources.as_file(importlib.resources.files("capivara_cli.configs")) as folder:
        names = sorted(path.stem for path in folder.glob("*.yaml"))
        if recipe in names:
            return Layer(f"{recipe}.yaml", read_settings(folder / f"{recipe}.yaml"))
    raise BadOption(
        f"--recipe {recipe}: no such file, and no built-in recipe{nearest(recipe, names)}",
        f"built-in: {', '.join(names)}",
    )


def check_together(options: TrainOptions) -> TrainOptions:
    """Return the options. Raises CapivaraError with all settings that contradict each other."""
    problems = []
    optimizer, replay = options.optimizer, options.replay
    if options.model.from_scratch and not options.model.unlock_image:
        problems.append("--from-scratch without --unlock-image would train against a random image tower")
    if options.model.unlock_image and options.method == "lora":
        problems.append("--unlock-image goes with --full, not with --lora: the adapter is the text tower's")
    if any(not 0 < share < 1 for share in replay.values()) or sum(replay.values()) >= 1:
        shares = ", ".join(f"{lang}:{share:g}" for lang, share in replay.items())
        problems.append(f"--replay {shares}: each share must be above 0, and all together below 1")
    if optimizer.min_lr > optimizer.lr:
        problems.append(f"optimizer.min_lr {optimizer.min_lr:g} is above --lr {optimizer.lr:g}")
    if not all(0 <= beta < 1 for beta in optimizer.betas):
        problems.append(f"optimizer.betas {list(optimizer.betas)}: each must be at least 0 and below 1")
    if optimizer.warmup_steps >= options.max_steps:
        problems.append(
            f"optimizer.warmup_steps {optimizer.warmup_steps} is not below --max-steps {options.max_steps}:"
            f" --set optimizer.warmup_steps={options.max_steps // 10}"
        )
    if problems:
        raise CapivaraError(below_each_other(problems))
    return options
