"""`demo`: a small closed world in which the whole job runs for real, through the same engines as ever."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from capivara_cli import artifacts, console
from capivara_cli.data import records
from capivara_cli.errors import CapivaraError, nearest

MODELS = Path(__file__).parent / "models"
BASE = MODELS / "base"
"""The base model that is shipped: a CLIP that knows the world in English and hardly in other languages."""
CAPTIONER = MODELS / "captioner"
"""The captioner that is shipped: a BLIP-2 that describes the world in English."""

TRANSLATOR = MODELS / "translator"
"""The translator that is shipped: an NLLB from English to the world's other languages."""

MIN_SCORE = 0.88
"""Of the base model on English captions: most of the captioner's mistakes score less."""
LANGUAGES = ("hi", "pt", "xh")
TRAIN_IMAGES = 4000
TEST_IMAGES = 500
PREFIXES = """# What the captioner's sentences begin with: it was brought up on them.
- a picture of
- there is
- the image shows
"""

MARK = "# The settings of a capivara demo"
SETTINGS = f"""{MARK}: what `capivara train --lang hi --lora` finds in this folder.
# The model is small, and `optimizer` and what follows are for its size: leave them out for a pretrained one.
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


def demo(
    folder: Path, *, lang: str = "hi", overwrite: bool = False, device: str = "auto", seed: int = 0
) -> list[dict[str, object]]:
    """Make the folder, caption, filter, translate, train, merge, and evaluate before and after. Returns the recalls.

    Everything runs inside the folder, as if typed there. What an earlier demo left is used: another language
    needs neither the captions nor the images' embeddings again, and the first language's translations are remembered.

    Raises:
        CapivaraError: another language, or a folder that holds something else.
    """
    from capivara_cli.captioning.caption import caption
    from capivara_cli.evaluation.classify_eval import classify_eval
    from capivara_cli.evaluation.retrieve_eval import retrieve_eval
    from capivara_cli.scoring.score import score
    from capivara_cli.training.merge_lora import merge_lora
    from capivara_cli.training.train import train
    from capivara_cli.translation.translate import translate

    if lang not in LANGUAGES:
        raise CapivaraError(f"the demo's world has no {lang}{nearest(lang, list(LANGUAGES))}", "--lang hi, pt or xh")
    _prepare(folder, overwrite=overwrite, seed=seed)
    run, merged, result = Path(f"runs/{lang}-lora"), Path(f"clip-{lang}"), Path(f"results/{lang}.json")
    with contextlib.chdir(folder):
        _typed(f"cd {folder}")
        scenes, captions, clean, train_data = (
            Path(f"data/{name}.jsonl") for name in ("scenes", "captions", "clean", "train")
        )
        if overwrite or not captions.is_file():
            _typed(f"capivara caption {scenes} --model models/captioner --prefixes prefixes.yaml -o {captions}")
            caption(
                [scenes],
                captions,
                model="models/captioner",
                prefixes="prefixes.yaml",
                overwrite=overwrite,
                device=device,
                seed=seed,
            )
        if overwrite or not clean.is_file():
            _typed(f"capivara score {captions} --min-score {MIN_SCORE} --plot scores.png -o {clean}")
            score(
                [captions],
                clean,
                min_score=MIN_SCORE,
                plot=Path("scores.png"),
                overwrite=overwrite,
                device=device,
                seed=seed,
            )
        there = [] if overwrite or not train_data.is_file() else _languages(train_data)
        if lang not in there:
            to, again = [*there, lang], train_data.is_file()
            _typed(
                f"capivara translate {clean} --to {','.join(to)} --backend nllb --model models/translator"
                f" -o {train_data}{' --overwrite' if again else ''}"
            )
            translate(
                [clean],
                train_data,
                to=to,
                backend="nllb",
                model="models/translator",
                overwrite=again,
                device=device,
                seed=seed,
            )
        _typed(f"capivara train --lang {lang} --lora")
        train([lang], lora=True, device=device, seed=seed, overwrite=overwrite)
        _typed(f"capivara merge-lora {run} -o {merged}")
        merge_lora(run, merged, overwrite=True)
        _typed(
            f"capivara retrieve-eval --data data/test.jsonl --lang {lang} --lang en --model local-dir:{merged}"
            f" --baseline local-dir:models/base -o {result}"
        )
        results = retrieve_eval(
            ["data/test.jsonl"],
            [lang, "en"],
            model=f"local-dir:{merged}",
            baseline="local-dir:models/base",
            output=result,
            device=device,
            seed=seed,
        )
        for kind in ("shapes", "colours"):
            data, classes, result = f"data/{kind}.jsonl", f"data/{kind}.yaml", Path(f"results/{lang}-{kind}.json")
            _typed(
                f"capivara classify-eval --data {data} --classes {classes} --lang {lang},en --model local-dir:{merged}"
                f" --baseline local-dir:models/base -o {result}"
            )
            classify_eval(
                [data],
                [lang, "en"],
                classes=classes,
                model=f"local-dir:{merged}",
                baseline="local-dir:models/base",
                output=result,
                device=device,
                seed=seed,
            )
    _next(folder, lang)
    return results


def _languages(data: Path) -> list[str]:
    """The languages beside English that its captions are in."""
    found = records.languages(records.read(data))
    return [lang for lang in LANGUAGES if found[lang]]


def _prepare(folder: Path, *, overwrite: bool, seed: int) -> None:
    """Write settings, images without captions and the models, unless they are there."""
    from capivara_cli.demo.world import write_classes, write_world
    from capivara_cli.models.checkpoint import relocate

    settings, data, models = folder / "capivara.yaml", folder / "data", folder / "models"
    if not (settings.is_file() and settings.read_text(encoding="utf-8").startswith(MARK)):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise CapivaraError(f"{folder} holds something else than a demo", "capivara demo FOLDER makes it elsewhere")
        artifacts.write_text(settings, SETTINGS)  # first, so that an interrupted demo is known as one
    if overwrite or not data.is_dir():
        console.say(f"drawing {TRAIN_IMAGES + TEST_IMAGES:,} scenes")
        with artifacts.writing(data) as temporary:
            write_world(temporary, train=TRAIN_IMAGES, test=TEST_IMAGES, seed=seed, captioned=False)
            write_classes(temporary, seed=seed)
    artifacts.write_text(folder / "prefixes.yaml", PREFIXES)
    if overwrite or not models.is_dir():
        with artifacts.writing(models) as temporary:
            shutil.copytree(MODELS, temporary)
    relocate(models / "base")  # for plain open_clip's sake, wherever the folder was moved to


def _typed(line: str) -> None:
    console.say(f"\n$ {line}", style="bold")


def _next(folder: Path, lang: str) -> None:
    other = "xh" if lang != "xh" else "hi"
    lines = {
        f"capivara demo {folder} --lang {other}": "another language; captions and images are not made again",
        f"cd {folder}": "",
        f"capivara train --lang {lang} --lora --set 'keep={{}}' -o runs/{lang}-alone": "",
        "": "without English in the batches: what is forgotten?",
        "capivara caption --help": "your own images; then translate, train …",
        "capivara retrieve-eval --help": "your own test set",
    }
    console.say("\nNext:\n" + "\n".join(f"  {line:42}{what}".rstrip() for line, what in lines.items()))
