"""Model cards: what a folder holds, what it was made from, and how to use it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from capivara_cli import __version__
from capivara_cli.models import hub
from capivara_cli.models.checkpoint import MERGED
from capivara_cli.models.clip import Clip
from capivara_cli.models.spec import ModelSpec
from capivara_cli.training.licences import licence_of
from capivara_cli.training.options import MergeOptions, TrainOptions, to_yaml

LIBRARIES = {"lora": "peft", "full": "open_clip"}
RELATIONS = {"peft": "adapter", "open_clip": "finetune"}  # the hub's words for what was made of the base model


def run_card(options: TrainOptions, summary: dict[str, Any], path: Path) -> str:
    """Return the card of a run folder.

    Args:
        summary: the contents of run.json.
    """
    langs = ", ".join(options.lang)
    what, files = {
        "lora": ("LoRA adapter for the text tower", "`adapter/` (PEFT)"),
        "full": ("Fine-tuned model", "`model/` (OpenCLIP)"),
    }[options.method]
    base = ModelSpec.parse(options.model.name, options.model.pretrained)
    results = _results(path.name, summary)
    head = _head(base, summary["captions"], LIBRARIES[options.method], licence_of(base) | results)
    counts = ", ".join(f"{count:,} {lang}" for lang, count in summary["captions"].items())
    return f"""{head}
# {path.name}

{what} of `{base}` for {langs}, made with capivara {__version__}. The weights are in {files}.

## Results

{_score_table(summary["before"], summary["after"])}
Mean of recall@1, @5 and @10 in both directions on {summary["held_out"]} held-out images, in percent; the weights
are those of step {summary["best_step"]} of {summary["steps"]}. For figures to publish, use
`capivara retrieve-eval` on a test set.

![curves](curves.png)

## Use

    capivara merge-lora {path} -o clip-{options.lang[0]}
    capivara retrieve-eval --data TEST.jsonl --lang {options.lang[0]} --model local-dir:clip-{options.lang[0]}

## Training

{summary["images"]:,} images with {counts} captions; {summary["parameters"]:,} parameters
trained in {summary["seconds"]:.0f} s on {summary["arithmetic"]}.
`capivara train --recipe {path}/config.yaml -o again` trains it again:

```yaml
{to_yaml(options)}```
"""


def adapter_card(base: ModelSpec, langs: list[str], folder: Path) -> str:
    """Return the card of an adapter. Its lines work in the folder where `train` was typed.

    Args:
        folder: the adapter's folder, as it is named from there.
    """
    return f"""{_head(base, langs, "peft", licence_of(base))}
# {folder.parent.name}

LoRA adapter of `{base.public_name}` for {", ".join(langs)}, made with capivara {__version__}: a PEFT adapter of the
whole CLIP model. `capivara.json` has the logit scale, for which PEFT has no place; retrieval and classification do not
depend on it.

## Use

With capivara, `--adapter {folder.parent}`. With open_clip and PEFT:

```python
import open_clip
from peft import PeftModel

{plain_lines(base)}
model = PeftModel.from_pretrained(model, {_quoted(folder)}).eval()
```
"""


def merged_card(name: str, base: Clip, langs: list[str], summary: dict[str, Any], options: MergeOptions) -> str:
    """Return the card of a merged model.

    Args:
        name: of its folder.
        base: the base model; whether it still is one, or the adapter was merged into it, does not matter.
        summary: the contents of run.json; empty for a bare adapter.
    """
    spec = base.spec
    more = licence_of(spec) | _results(name, summary, options.dataset) | {"datasets": list(options.dataset) or None}
    licence = more.get("license_name", more.get("license"))
    named = f" ({licence})" if licence is not None else ""
    scores = _score_table(summary.get("before", {}), summary.get("after", {}))
    from_hub = _code(plain_lines(ModelSpec(f"hf-hub:{options.hub_name}"))) if options.hub_name else ""
    lines = plain_lines(ModelSpec(f"local-dir:{name}"), base.has_hf_text)
    return f"""{_head(spec, langs, "open_clip", more)}
# {name}

`{spec.public_name}` adapted to {", ".join(langs)} with capivara {__version__}: {MERGED}
The weights are derived from the base model, so its licence{named} holds for them too.

{scores}
## Use
{from_hub}
From a copy of this folder, without network:
{_code(lines)}"""


def _code(lines: str) -> str:
    return f"\n```python\nimport open_clip\n\n{lines}\n```\n"


def plain_lines(model: ModelSpec, hf_text: bool = True) -> str:
    """Return the lines of Python that load a model and its tokenizer with open_clip alone.

    Args:
        hf_text: whether its text tower is a Hugging Face module. Then open_clip loads the configuration of the tower
            with transformers, and must be told that it is in the model's folder.
    """
    source = '"local-dir:" + folder' if model.folder is not None else _quoted(model.name)
    arguments = source if model.pretrained is None else f"{source}, {_quoted(model.pretrained)}"
    lines = []
    if model.folder is not None:
        lines.append(f"folder = {_quoted(model.folder)}  # where the model is")
    if model.folder is not None and hf_text:
        lines.append('text_cfg = open_clip.get_model_config("local-dir:" + folder)["text_cfg"]')
        lines.append('text_cfg["hf_model_name"] = folder  # the text tower is described there too')
        arguments += ", text_cfg=text_cfg"
    lines.append(f"model, _, preprocess = open_clip.create_model_and_transforms({arguments})")
    lines.append(f"tokenizer = open_clip.get_tokenizer({source})")
    return "\n".join(lines)


def _quoted(value: str | Path) -> str:
    return json.dumps(str(value), ensure_ascii=False)


def _head(base: ModelSpec, langs: Iterable[str], library: str, more: dict[str, Any] | None = None) -> str:
    """Return the YAML head that the Hugging Face hub reads. It refuses a card with a value of another form."""
    from huggingface_hub import ModelCardData

    langs = list(langs)
    codes = dict.fromkeys(lang.partition("-")[0] for lang in langs)
    repo = base.repo if base.repo is not None and hub.is_name(base.repo) else None  # never a path
    data = ModelCardData(
        language=[code for code in codes if re.fullmatch("[a-z]{2,3}", code)] or None,  # ISO 639
        language_bcp47=[lang for lang in langs if "-" in lang] or None,
        library_name=library,
        pipeline_tag="zero-shot-image-classification",
        tags=["clip", "capivara"],
        base_model=repo,
        base_model_relation=RELATIONS[library] if repo is not None else None,
        **(more or {}),
    )
    return f"---\n{data.to_yaml()}\n---\n"


def _results(name: str, summary: dict[str, Any], datasets: Iterable[str] = ()) -> dict[str, Any]:
    """Return the run's validation as the keys of a card's head that become its `model-index`; none without one."""
    from huggingface_hub import EvalResult

    dataset = next(iter(datasets), "custom")  # the hub wants the name of a data set, and has none for a user's files
    results = [
        EvalResult(
            task_type="image-text-retrieval",
            task_name="Image-text retrieval",
            dataset_type=dataset,
            dataset_name=f"{summary.get('held_out', 0):,} images that were not trained on, {lang}",
            dataset_config=lang,
            dataset_split="validation",
            metric_type="mean_recall",
            metric_name="Mean of recall@1, @5 and @10 in both directions (%)",
            metric_value=round(100 * value, 2),
        )
        for lang, value in summary.get("after", {}).items()
    ]
    return {"model_name": name, "eval_results": results} if results else {}


def _score_table(before: dict[str, float], after: dict[str, float]) -> str:
    """Return a Markdown table of mean recalls in percent, or a line where nothing was validated."""
    if not after:
        return "No validation was done.\n"
    lines = ["| language | before | after |", "|---|---|---|"]
    for lang, value in after.items():
        lines.append(f"| {lang} | {100 * before.get(lang, float('nan')):.1f} | {100 * value:.1f} |")
    return "\n".join(lines) + "\n"
