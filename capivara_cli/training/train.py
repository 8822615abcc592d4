"""`train`: from images, captions and a model to a run folder with an adapter, or a model, that knows the language."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from capivara_cli import __version__, artifacts, console, interrupts
from capivara_cli.data.records import Record
from capivara_cli.errors import CapivaraError
from capivara_cli.models import checkpoint, lora
from capivara_cli.models.clip import Clip
from capivara_cli.models.cut_texts import CutTexts
from capivara_cli.models.seen import Seen
from capivara_cli.models.spec import ModelSpec, base_notes
from capivara_cli.runtime import Runtime
from capivara_cli.training import curves
from capivara_cli.training.data import Table, TrainingData, check_enough, load_training_data, read_records
from capivara_cli.training.fit import fit
from capivara_cli.training.model_card import adapter_card, run_card
from capivara_cli.training.options import TrainOptions, default_data
from capivara_cli.training.run_folder import OTHER_FOLDER, RunFolder, TrainerState
from capivara_cli.training.sampler import CaptionTable, Sampler, tokenise_captions
from capivara_cli.training.trainer import Trainer


def train(options: TrainOptions, output: str | Path | None = None, recipe: Path | None = None) -> Path:
    """Train, and return the run folder. An interrupted run is resumed.

    Args:
        options: see `train_options`, which makes them from a recipe and flags.
        output: run folder; None is `runs/LANG-METHOD`.
        recipe: file that the options were read from. An output folder with it in it is not replaced.

    Raises:
        CapivaraError: for every bad input, before any training; and when the loss is not a number any more.
        trainer.Interrupted: on Ctrl-C, after the state was saved.
    """
    if not options.data.train:
        options = options.replace(data=options.data.replace(train=[default_data()]))
    output = Path(output or f"runs/{'+'.join(options.lang)}-{options.method}")
    artifacts.remove_stale(output)
    with RunFolder(output, options.save_seconds, recipe) as run:
        run.check(options)  # now, before seconds of loading the model
        if run.is_complete and not options.overwrite:
            console.say(f"{output} is already complete; --overwrite starts over")
        else:
            _train(options, run)
    return output


def _train(options: TrainOptions, run: RunFolder) -> None:
    interrupts.note("image embeddings and the last saved state are kept: run the same command again")
    records, langs, replay = read_records(options)
    options = fit(options, len(records))
    check_enough(len(records), options, f"images with captions in {', '.join([*langs, *replay])}")
    clip = _load_model(options)
    runtime = clip.runtime
    weights = clip.weights_fingerprint()
    run.writes = runtime.is_main
    if runtime.is_main:  # a folder that cannot be used is refused here, before hours of encoding images
        run.open(options)
    typed, options = options, options.replace(lang=langs)  # the folder keeps them as typed
    data = load_training_data(options, clip, records, replay)
    if runtime.is_main:  # now that nothing is wrong with the new run, the old one is replaced
        run.begin(typed)
    runtime.barrier()  # no rank reads the folder before the first one has begun
    captions = tokenise_captions(data.train, [*options.lang, *replay], clip)
    state = _start_or_resume(run, runtime, _fingerprint(data, captions), weights)
    state.base = base_notes(clip.spec, run.path)
    notes = _write_notes(data, captions, clip, run)
    _unfreeze(options, clip, captions)
    card = adapter_card(clip.spec, list(options.lang), run.path / "adapter") if options.method == "lora" else ""
    trainer = Trainer(
        options=options,
        clip=clip,
        run=run,
        sampler=Sampler(captions, options.lang, replay, options.batch_size, options.views, options.seed),
        images=data.images,
        validate=data.validation,
        save_weights=lambda: _save_weights(options, clip, run, state, card),
        state=state,
    )
    _announce(data, captions, trainer)
    trainer.fit()
    if runtime.is_main:
        _finish(trainer, data, captions, notes)
    runtime.barrier()  # no rank returns a run that is not complete


def _write_notes(data: TrainingData, captions: CaptionTable, clip: Clip, run: RunFolder) -> dict[str, Any]:
    """Write which images were rejected and what is trained on; tell what is odd about the data.

    Returns:
        what the run's summary says of it.
    """
    langs = [*captions.totals()]

    def seen(records: Sequence[Record], table: Table) -> Seen:
        texts = (text for lang in langs for text in _texts(records, lang))
        return Seen.of([record.image for record in records], table.content, texts)

    run.write_rejected(data.rejected)
    trained = seen(data.train, data.images)
    if run.writes:
        trained.save(run.path)
    notes: dict[str, Any] = {"cut_texts": {}, "val_overlap": None}
    for lang in langs:
        cut = CutTexts.of(clip, _texts(data.train, lang))
        cut.warn(f"captions in {lang}")
        notes["cut_texts"][lang] = cut.content()
    if data.validation is not None and not data.held_out:
        overlap = trained.overlap(seen(data.val, data.validation.images))
        overlap.warn("validation", "the training data")
        notes["val_overlap"] = overlap.content()
    return notes


def _texts(records: Iterable[Record], lang: str) -> Iterator[str]:
    return (text for record in records for text in record.texts(lang))


def _load_model(options: TrainOptions) -> Clip:
    runtime = Runtime.start(options.device, options.precision, options.seed)
    if options.batch_size % runtime.world_size:
        raise CapivaraError(f"--batch-size {options.batch_size} is not divisible by {runtime.world_size} ranks")
    spec = ModelSpec.parse(options.model.name, options.model.pretrained)
    weights = not options.model.from_scratch
    clip = checkpoint.load(spec, runtime, weights=weights, verify_cache=options.verify_cache)
    console.say(f"{clip.spec} on {clip.runtime.describe()}")
    return clip


def _unfreeze(options: TrainOptions, clip: Clip, captions: CaptionTable) -> None:
    """Unfreeze what the recipe trains. The image tower stays frozen unless `unlock_image` is set."""
    import torch

    # LoRA's A is random. Seed again: how many random numbers were used so far depends on the embedding cache.
    torch.manual_seed(options.seed)
    if options.method == "lora":
        lora.add(clip, options.lora, captions.vocabulary(options.lang, clip) if options.lora.tokens else [])
    else:
        for name, parameter in clip.model.named_parameters():
            parameter.requires_grad_(options.model.unlock_image or not name.startswith("visual."))
        if getattr(clip.model, "logit_bias", None) is not None:
            clip.model.logit_bias.requires_grad_(False)  # belongs to SigLIP's sigmoid loss; ours has no bias
    clip.model.logit_scale.requires_grad_(True)


def _fingerprint(data: TrainingData, captions: CaptionTable) -> str:
    """Return 32 hex digits that change with the images, their names, the captions, and their order."""
    digest = hashlib.blake2b(digest_size=16)
    for record in [*data.train, *data.val]:
        digest.update(f"{record.image}\n".encode("utf-8", "surrogateescape"))
    tokens = captions.tokens
    for array in (
        data.images.content,
        tokens.flat,
        tokens.offsets,
        *captions.text_ids.values(),
        *captions.offsets.values(),
    ):
        digest.update(array.tobytes())
    return digest.hexdigest()


def _start_or_resume(run: RunFolder, runtime: Runtime, data: str, model: str) -> TrainerState:
    """Return the state to train from.

    Args:
        data: fingerprint of the data.
        model: fingerprint of the base model's weights.

    Raises:
        CapivaraError: when the run was started on other data, or from another model.
    """
    state = run.read_state()
    numerics = f"{runtime.device.split(':')[0]} {runtime.precision}, {runtime.world_size} ranks"
    if state.step == 0:
        run.forget_after(-1)
        return TrainerState(data=data, model=model, numerics=numerics)
    if state.data != data:
        raise CapivaraError(f"{run.path} was started on other data", OTHER_FOLDER)
    if state.model not in ("", model):
        raise CapivaraError(f"{run.path} was started from other weights: the model's files have changed", OTHER_FOLDER)
    if state.numerics != numerics:
        console.warn(f"resuming on {numerics} a run started on {state.numerics}: results will not be bit-identical")
    run.forget_after(state.step)
    console.say(f"resuming from step {state.step}")
    return state


def _save_weights(options: TrainOptions, clip: Clip, run: RunFolder, state: TrainerState, card: str) -> None:
    """Write the adapter and its card, or the model."""
    if options.method == "lora":
        notes = {"base_weights": state.model or None, "lang": options.lang, "capivara": __version__}
        lora.save(clip, run.path / "adapter", state.base | notes, card)
    else:
        checkpoint.save(clip, run.path / "model", card=f"Weights of the run described in {run.path.name}/README.md.\n")


def _announce(data: TrainingData, captions: CaptionTable, trainer: Trainer) -> None:
    counts = ", ".join(f"{count:,} {lang}" for lang, count in captions.totals().items())
    console.say(
        f"{console.counted(len(data.train), 'image')}, captions: {counts};"
        f" {trainer.count_parameters():,} parameters train"
    )
    if data.rejected:
        first = data.rejected[0]
        console.warn(
            f"{len(data.rejected)} images left out, named in {trainer.run.path / 'rejected.jsonl'};"
            f" the first: {first.image}: {first.reason}"
        )


def _finish(trainer: Trainer, data: TrainingData, captions: CaptionTable, notes: dict[str, Any]) -> None:
    """Write the card, the curves and, last of all, the marker that the run is complete.

    Args:
        notes: what else the summary says of the data.
    """
    options, run, state = trainer.options, trainer.run, trainer.state
    metrics = run.metrics()
    best_step = state.best_step or state.step  # without validation the last weights are saved
    summary: dict[str, Any] = {
        "capivara": __version__,
        **state.base,
        "base_weights": state.model or None,
        "method": options.method,
        "from_scratch": options.model.from_scratch,
        "lang": options.lang,
        "images": len(data.train),
        "captions": captions.totals(),
        **notes,
        "held_out": len(data.val),
        "rejected": len(data.rejected),
        "parameters": trainer.count_parameters(),
        "steps": state.step,
        "best_step": best_step,
        "before": _scores(metrics, 0),
        "after": _scores(metrics, best_step),
        "seconds": round(run.seconds, 1),
        "arithmetic": state.numerics,
    }
    curves.plot(metrics, run.path / "curves.png")
    artifacts.write_text(run.path / "README.md", run_card(options, summary, run.path))
    run.complete(summary)
    console.say(
        f"wrote {run.path}: {state.step} steps, {run.seconds:.0f} s in all;"
        f" the best weights are those of step {best_step}"
    )


def _scores(metrics: list[dict[str, Any]], step: int) -> dict[str, float]:
    """Return language -> mean recall, as it was logged at a step."""
    scores: dict[str, float] = {}
    for line in metrics:
        if line["step"] == step:
            scores |= {key.removeprefix("val/"): value for key, value in line.items() if key.startswith("val/")}
    return scores
