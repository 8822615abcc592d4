"""`train`: from images, captions and a model to a run folder with an adapter, or a model, that knows the language."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from capivara_cli import __version__, artifacts, console
from capivara_cli.errors import CapivaraError
from capivara_cli.models import checkpoint
from capivara_cli.models import lora as adapters
from capivara_cli.models.clip import Clip
from capivara_cli.models.spec import ModelSpec
from capivara_cli.options import PROJECT_FILE, Recipe, resolve
from capivara_cli.runtime import Runtime
from capivara_cli.training import curves
from capivara_cli.training import data as examples
from capivara_cli.training.data import Examples
from capivara_cli.training.model_card import run_card
from capivara_cli.training.run_folder import Position, RunFolder
from capivara_cli.training.sampler import Captions, Sampler, collect
from capivara_cli.training.trainer import Trainer

DEFAULT_DATA = "data/train.jsonl"


def train(
    lang: Sequence[str] = (),
    *,
    lora: bool = False,
    full: bool = False,
    data: Sequence[str] = (),
    val: str | None = None,
    model: str | None = None,
    pretrained: str | None = None,
    recipe: str | None = None,
    set: Sequence[str] = (),
    output: Path | None = None,
    batch_size: int | None = None,
    micro_batch: str | None = None,
    max_steps: int | None = None,
    lr: float | None = None,
    views: int | None = None,
    keep: Sequence[str] = (),
    tokens: bool | None = None,
    unlock_image: bool | None = None,
    from_scratch: bool | None = None,
    overwrite: bool = False,
    device: str | None = None,
    precision: str | None = None,
    seed: int | None = None,
) -> Path:
    """Train, and return the run folder. The arguments are the flags of `capivara train`, see there.

    Raises:
        CapivaraError: for every bad input, before any training; and when the loss is no number any more.
        trainer.Interrupted: on Ctrl-C, after the state was saved.
    """
    if lora and full:
        raise CapivaraError(
            "both --lora and --full", "choose one: --lora trains an adapter, --full the whole text tower"
        )
    flags = {
        "lang": list(lang) or None,
        "data.train": list(data) or None,
        "data.val": val,
        "model.name": model,
        "model.pretrained": pretrained,
        "model.unlock_image": unlock_image,
        "model.from_scratch": from_scratch,
        "batch_size": batch_size,
        "micro_batch": _micro_batch(micro_batch),
        "max_steps": max_steps,
        "optimizer.lr": lr,
        "views": views,
        "keep": _shares(keep) if keep else None,
        "lora.tokens": tokens,
        "device": device,
        "precision": precision,
        "seed": seed,
    }
    given = {key: value for key, value in flags.items() if value is not None}
    settings = resolve("lora" if lora else "full" if full else None, recipe, list(set), given)
    if not settings.data.train:
        settings.data.train = [_default_data()]
    _check(settings)
    return _run(settings, output or default_output(settings), overwrite=overwrite, must_keep=bool(keep))


def default_output(recipe: Recipe) -> Path:
    """`runs/hi-lora`."""
    return Path("runs") / f"{'+'.join(recipe.lang)}-{recipe.method}"


def _micro_batch(text: str | None) -> str | int | None:
    return int(text) if text is not None and text.lstrip("-").isdigit() else text


def _shares(keep: Sequence[str]) -> dict[str, float]:
    """`["en:0.25", "pt"]` -> shares; a quarter unless it is said (small models lose English without, not with it)."""
    shares = {}
    for text in keep:
        lang, colon, share = text.partition(":")
        try:
            shares[lang] = float(share) if colon else 0.25
        except ValueError as error:
            raise CapivaraError(f"--keep {text}: {share!r} is not a number", "for example --keep en:0.25") from error
    return shares


def _check(recipe: Recipe) -> None:
    """What pydantic cannot see: settings that contradict each other. All problems are reported together."""
    problems = []
    if recipe.model.from_scratch and not recipe.model.unlock_image:
        problems.append("--from-scratch without --unlock-image would train against a random image tower")
    if recipe.model.unlock_image and recipe.method == "lora":
        problems.append("--unlock-image goes with --full, not with --lora: the adapter is the text tower's")
    if recipe.micro_batch != "auto" and recipe.micro_batch < 1:
        problems.append(f"--micro-batch {recipe.micro_batch}: auto, or at least 1")
    if any(not 0 < share < 1 for share in recipe.keep.values()) or sum(recipe.keep.values()) >= 1:
        shares = ", ".join(f"{lang}:{share:g}" for lang, share in recipe.keep.items())
        problems.append(f"--keep {shares}: shares are above 0 and below 1 in all")
    if recipe.optimizer.min_lr > recipe.optimizer.lr:
        problems.append(f"optimizer.min_lr {recipe.optimizer.min_lr:g} is above --lr {recipe.optimizer.lr:g}")
    if recipe.optimizer.warmup_steps >= recipe.max_steps:
        problems.append(
            f"optimizer.warmup_steps {recipe.optimizer.warmup_steps} is not below --max-steps {recipe.max_steps}:"
            f" --set optimizer.warmup_steps={recipe.max_steps // 10}"
        )
    if problems:
        raise CapivaraError("\n       ".join(problems))


def _default_data() -> str:
    if not Path(DEFAULT_DATA).is_file():
        raise CapivaraError(
            f"no data: neither --data, nor data.train in {PROJECT_FILE}, nor {DEFAULT_DATA} here",
            "--data FILE.jsonl names your images and captions; `capivara demo DIR` makes a folder to try things in",
        )
    return DEFAULT_DATA


def _run(recipe: Recipe, output: Path, *, overwrite: bool, must_keep: bool) -> Path:
    started = time.time()
    found, keep = examples.read(recipe, must_keep)
    if RunFolder(output).is_complete and not overwrite:
        RunFolder(output).check(recipe)
        console.say(f"{output} is complete already; --overwrite trains it anew")
        return output
    runtime = Runtime.start(recipe.device, recipe.precision, recipe.seed)
    if recipe.batch_size % runtime.world_size:
        raise CapivaraError(f"--batch-size {recipe.batch_size} cannot be shared by {runtime.world_size} ranks")
    spec = ModelSpec.parse(recipe.model.name, recipe.model.pretrained)
    clip = checkpoint.load(spec, runtime, weights=not recipe.model.from_scratch)
    console.say(f"{clip.spec} on {clip.runtime.describe()}")
    run = RunFolder(output, writes=runtime.is_main, save_seconds=recipe.save_seconds)
    if runtime.is_main:
        run.open(recipe, overwrite=overwrite)
    runtime.barrier()
    chosen = examples.prepare(recipe, clip, found, keep)
    run.reject(chosen.rejected)
    captions = collect(chosen.train, [*recipe.lang, *keep], clip)
    _unfreeze(recipe, clip, captions)
    trainer = Trainer(
        recipe=recipe,
        clip=clip,
        run=run,
        sampler=Sampler(captions, recipe.lang, keep, recipe.batch_size, recipe.views, recipe.seed),
        images=chosen.images,
        validate=chosen.validation,
        save=lambda: _save(recipe, clip, run),
        position=_position(run, clip, chosen, captions),
    )
    _announce(recipe, chosen, captions, keep, trainer)
    trainer.fit()
    if runtime.is_main:
        _finish(recipe, run, trainer, chosen, captions, time.time() - started)
    runtime.barrier()
    return output


def _unfreeze(recipe: Recipe, clip: Clip, captions: Captions) -> None:
    """Let exactly that train which the recipe says: never the image tower, unless it is unlocked."""
    import torch

    # Anew: how many numbers were drawn since the start depends on what was found in the cache.
    torch.manual_seed(recipe.seed)
    if recipe.method == "lora":
        adapters.add(clip, recipe.lora, captions.vocabulary(recipe.lang, clip) if recipe.lora.tokens else [])
    else:
        for name, parameter in clip.model.named_parameters():
            parameter.requires_grad_(recipe.model.unlock_image or not name.startswith("visual."))
        if getattr(clip.model, "logit_bias", None) is not None:
            clip.model.logit_bias.requires_grad_(False)  # a sigmoid loss's; ours has none
    clip.model.logit_scale.requires_grad_(True)


def _position(run: RunFolder, clip: Clip, chosen: Examples, captions: Captions) -> Position:
    """Where to begin. Raises CapivaraError when the run was begun on other data."""
    position = run.read_position()
    data = chosen.fingerprint(captions)
    runtime = clip.runtime
    arithmetic = f"{runtime.device.split(':')[0]} {runtime.precision}, {runtime.world_size} ranks"
    if position.step == 0:
        run.forget_after(-1)
        return Position(data=data, arithmetic=arithmetic)
    if position.data != data:
        raise CapivaraError(f"{run.path} was begun on other data", "-o FOLDER keeps both, --overwrite replaces it")
    if position.arithmetic != arithmetic:
        console.warn(f"the run began on {position.arithmetic}, it goes on on {arithmetic}: not the same to the bit")
    run.forget_after(position.step)
    console.say(f"going on from step {position.step}")
    return position


def _save(recipe: Recipe, clip: Clip, run: RunFolder) -> None:
    notes = {"model": clip.spec.name, "pretrained": clip.spec.pretrained, "lang": recipe.lang, "capivara": __version__}
    if recipe.method == "lora":
        adapters.save(clip, run.path / "adapter", notes)
    else:
        checkpoint.save(clip, run.path / "model", card=f"Weights of the run described in {run.path.name}/README.md.\n")


def _announce(recipe: Recipe, chosen: Examples, captions: Captions, keep: dict[str, float], trainer: Trainer) -> None:
    count = sum(parameter.numel() for parameter in trainer.parameters.values())
    counts = ", ".join(f"{len(captions.texts[lang]):,} {lang}" for lang in [*recipe.lang, *keep])
    console.say(f"{len(chosen.train):,} images, captions: {counts}; {count:,} parameters train")
    if chosen.rejected:
        first = chosen.rejected[0]
        console.warn(
            f"{len(chosen.rejected)} images left out, named in {trainer.run.path / 'rejected.jsonl'};"
            f" the first: {first.image}: {first.reason}"
        )


def _finish(
    recipe: Recipe, run: RunFolder, trainer: Trainer, chosen: Examples, captions: Captions, seconds: float
) -> None:
    """Card, curves and, last of all, the marker that the run is complete."""
    metrics = run.metrics()
    summary: dict[str, Any] = {
        "capivara": __version__,
        "model": recipe.model.name,
        "pretrained": recipe.model.pretrained,
        "method": recipe.method,
        "from_scratch": recipe.model.from_scratch,
        "lang": recipe.lang,
        "images": len(chosen.train),
        "captions": {lang: len(texts) for lang, texts in captions.texts.items()},
        "held_out": len(chosen.val),
        "rejected": len(chosen.rejected),
        "parameters": sum(parameter.numel() for parameter in trainer.parameters.values()),
        "steps": trainer.position.step,
        "best_step": trainer.position.best_step or trainer.position.step,
        "before": _scores(metrics, 0),
        "after": _scores(metrics, trainer.position.best_step),
        "seconds": round(seconds, 1),
        "arithmetic": trainer.position.arithmetic,
    }
    curves.plot(metrics, run.path / "curves.png")
    artifacts.write_text(run.path / "README.md", run_card(recipe, summary, run.path))
    run.complete(summary)
    best = f"the best weights are those of step {summary['best_step']}"
    console.say(f"wrote {run.path}: {trainer.position.step} steps, {seconds:.0f} s in all; {best}")


def _scores(metrics: list[dict[str, Any]], step: int | None) -> dict[str, float]:
    return {
        key.removeprefix("val/"): value
        for line in metrics
        if line["step"] == step
        for key, value in line.items()
        if key.startswith("val/")
    }
