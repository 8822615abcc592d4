"""Model cards: what a folder holds, what it was made from, and how to use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from capivara_cli import __version__
from capivara_cli.models.checkpoint import MERGED
from capivara_cli.training.options import TrainOptions, to_yaml


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
    counts = ", ".join(f"{count:,} {lang}" for lang, count in summary["captions"].items())
    return f"""{_front_matter(list(summary["captions"]), options.model.name)}
# {path.name}

{what} of `{options.model.name}` for {langs}, made with capivara {__version__}. The weights are in {files}.

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


def merged_card(name: str, base: str, langs: list[str], summary: dict[str, Any], licence: str | None) -> str:
    """Return the card of a merged model.

    Args:
        summary: the contents of run.json; empty for a bare adapter.
        licence: as the base model's card names it; None if it is not known.
    """
    known = {"license": licence} if licence is not None else {}
    named = f" ({licence})" if licence is not None else ""
    scores = _score_table(summary.get("before", {}), summary.get("after", {}))
    return f"""{_front_matter(langs, base, **known)}
# {name}

`{base}` adapted to {", ".join(langs)} with capivara {__version__}: {MERGED}
The weights are derived from the base model, so its licence{named} holds for them too.

{scores}
## Use

```python
import open_clip

model, _, preprocess = open_clip.create_model_and_transforms("local-dir:{name}")
tokenizer = open_clip.get_tokenizer("local-dir:{name}")
```

If the folder was moved since it was written, plain open_clip must be told where the text tower's
configuration is; capivara finds it automatically:

```python
import json, open_clip

folder = "{name}"
text_cfg = json.load(open(f"{{folder}}/open_clip_config.json"))["model_cfg"]["text_cfg"]
text_cfg["hf_model_name"] = folder
model, _, preprocess = open_clip.create_model_and_transforms("local-dir:" + folder, text_cfg=text_cfg)
```
"""


def _front_matter(langs: list[str], base: str, **more: Any) -> str:
    """Return the YAML head that the Hugging Face hub reads."""
    head = {"language": langs, "library_name": "open_clip", "tags": ["clip", "capivara"], "base_model": base, **more}
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n"


def _score_table(before: dict[str, float], after: dict[str, float]) -> str:
    """Return a Markdown table of mean recalls in percent, or a line where nothing was validated."""
    if not after:
        return "No validation was done.\n"
    lines = ["| language | before | after |", "|---|---|---|"]
    for lang, value in after.items():
        lines.append(f"| {lang} | {100 * before.get(lang, float('nan')):.1f} | {100 * value:.1f} |")
    return "\n".join(lines) + "\n"
