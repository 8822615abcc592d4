"""`demo`: do the whole job in a small world, by the very commands that a user would type."""

from __future__ import annotations

import contextlib
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

from capivara_cli import artifacts, console
from capivara_cli.data import records
from capivara_cli.data.resumable import is_begun
from capivara_cli.demo import MODELS, TEST_IMAGES, TRAIN_IMAGES
from capivara_cli.demo.options import DemoOptions
from capivara_cli.errors import CapivaraError
from capivara_cli.folders import FolderKind, check_replaceable, mark
from capivara_cli.options import fields

MIN_SCORE = 0.88
"""The base model gives most of the captioner's mistakes, which are in English, less than this."""

PREFIXES = """# The first words of each caption. The captioner was trained with them.
- a picture of
- there is
- the image shows
"""

DATA_FOLDER = FolderKind(
    "demo's data",
    r"images/[\w-]+\.png|(shapes|colours)\.yaml"
    r"|(scenes|test|shapes|colours|captions|clean|train)\.jsonl(\.rejected\.jsonl|\.partial.*)?",
    ("scenes.jsonl", "test.jsonl"),
)
MODELS_FOLDER = FolderKind("demo's models", r"(base|captioner|translator)/[\w.-]+", ("base/open_clip_config.json",))

MARK = "# The settings of a capivara demo"  # capivara.yaml starts with it, so that `demo` knows its own folders
SETTINGS = f"""{MARK}: commands that run in this folder read this file.
# `optimizer` and the lines below it suit this small model. Remove them for a pretrained one.
model:
  name: local-dir:models/base
optimizer:
  lr: 5.0e-3
  min_lr: 0.0
  warmup_steps: 15
batch_size: 256
max_steps: 150
eval_every: 50
"""


def demo(folder: Path, options: DemoOptions, run: Callable[[list[str]], None]) -> None:
    """Make the folder, caption, filter, translate, train, merge, and evaluate before and after.

    Files of an earlier demo in this folder are used again: another language needs no new captions and no new image
    embeddings, and the translations into the first language are cached.

    Args:
        folder: where to make the world, and the working folder of all commands.
        options: see DemoOptions.
        run: runs `capivara` with these arguments; raises if that fails.

    Raises:
        CapivaraError: the folder exists and is not a demo, or --overwrite would remove files that are not the demo's.
    """
    options.check()
    _prepare(folder, options)
    _print_line(f"cd {shlex.quote(str(folder))}")
    with contextlib.chdir(folder):
        for line in command_lines(options):
            _print_line(line)
            run(shlex.split(line)[1:])
    _print_next(folder, options.lang)


def _prepare(folder: Path, options: DemoOptions) -> None:
    """Write the settings, the images without captions, and the models, unless they already exist."""
    from capivara_cli.demo.world import write_classes, write_world

    settings, data, models = folder / "capivara.yaml", folder / "data", folder / "models"
    if not (settings.is_file() and settings.read_text(encoding="utf-8").startswith(MARK)):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise CapivaraError(f"{folder} exists and is not a demo", "choose a new folder: capivara demo FOLDER")
        artifacts.write_text(settings, SETTINGS)  # first, so that an interrupted demo is known as one
    if options.overwrite:
        for path, kind in ((data, DATA_FOLDER), (models, MODELS_FOLDER)):
            try:
                check_replaceable(path, kind)
            except CapivaraError as error:
                raise CapivaraError(error.message, "choose a new folder: capivara demo FOLDER") from error
    if options.overwrite or not data.is_dir():
        console.say(f"drawing {TRAIN_IMAGES + TEST_IMAGES:,} scenes")
        with artifacts.writing(data) as temporary:
            write_world(temporary, train=TRAIN_IMAGES, test=TEST_IMAGES, seed=options.seed, captions=0)
            write_classes(temporary, seed=options.seed)
            mark(temporary, DATA_FOLDER)
    artifacts.write_text(folder / "prefixes.yaml", PREFIXES)
    if options.overwrite or not models.is_dir():
        with artifacts.writing(models) as temporary:
            shutil.copytree(MODELS, temporary)
            mark(temporary, MODELS_FOLDER)


def command_lines(options: DemoOptions) -> list[str]:
    """Return the command lines that are still to be run in the working folder."""
    lang, machine = options.lang, _machine_flags(options)
    captions, clean, train_data = (Path(f"data/{name}.jsonl") for name in ("captions", "clean", "train"))
    run, merged, plot = Path(f"runs/{lang}-lora"), Path(f"clip-{lang}"), Path("scores.png")
    models = f"--model local-dir:{merged} --baseline local-dir:models/base"
    lines = []
    if not _is_done(captions):
        lines.append(
            "capivara caption data/scenes.jsonl --model models/captioner --prefixes prefixes.yaml"
            f" -o {captions}{machine}"
        )
    if not _is_done(clean):
        replace = "" if is_begun(clean) else _replace(plot)  # a run that was killed has left its plot, and replaces it
        lines.append(f"capivara score {captions} --min-score {MIN_SCORE} --plot {plot} -o {clean}{machine}{replace}")
    translated = _languages(train_data) if train_data.is_file() else []
    if lang not in translated:
        lines.append(
            f"capivara translate {clean} --to {','.join([*translated, lang])} --backend nllb --model models/translator"
            f" -o {train_data}{machine}{_replace(train_data)}"
        )
    lines.append(f"capivara train --lang {lang} --lora{machine}{_replace(run) if options.overwrite else ''}")
    lines.append(f"capivara merge-lora {run} -o {merged}{_replace(merged)}")
    lines.append(
        f"capivara retrieve-eval --data data/test.jsonl --lang {lang} --lang en {models}"
        f" -o results/{lang}.json{machine}{_replace_results(lang)}"
    )
    for kind in ("shapes", "colours"):
        lines.append(
            f"capivara classify-eval --data data/{kind}.jsonl --classes data/{kind}.yaml --lang {lang},en {models}"
            f" -o results/{lang}-{kind}.json{machine}{_replace_results(f'{lang}-{kind}')}"
        )
    return lines


def _is_done(path: Path) -> bool:
    return path.is_file() and not is_begun(path)


def _machine_flags(options: DemoOptions) -> str:
    flags = ""
    for name in ("device", "precision", "seed"):
        value = getattr(options, name)
        if value != fields(DemoOptions)[name].default:
            flags += f" --{name} {shlex.quote(str(value))}"
    return flags


def _replace_results(name: str) -> str:
    return " --overwrite" if any(Path("results").glob(f"{name}.*")) else ""  # one file per language and model


def _replace(path: Path) -> str:
    return " --overwrite" if path.exists() else ""


def _languages(path: Path) -> list[str]:
    """Return the languages, other than English, of the captions in a JSONL file."""
    return [lang for lang in sorted(records.languages(records.read(path))) if lang != "en"]


def _print_line(line: str) -> None:
    console.say("")
    console.say(f"$ {line}", style="bold")


def _print_next(folder: Path, lang: str) -> None:
    path, other = shlex.quote(str(folder)), "xh" if lang != "xh" else "hi"
    hints = [
        (f"capivara demo {path} --lang {other}", "another language; captions and images are not made again"),
        (f"cd {path}", ""),
        (f"capivara train --lang {lang} --lora --set 'replay={{}}' -o runs/{lang}-alone", ""),
        ("", "without English in the batches: what is forgotten?"),
        ("capivara caption --help", "your own images; then translate, train …"),
        ("capivara retrieve-eval --help", "your own test set"),
    ]
    console.say("")
    console.say("Next:\n" + "\n".join(f"  {line:42}{what}".rstrip() for line, what in hints))
