"""Model cards: what a folder holds, what it was made from, and how to use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from capivara_cli import __version__
from capivara_cli.options import Recipe, to_yaml


def front_matter(langs: list[str], base: str, **more: Any) -> str:
    """The YAML head that the Hugging Face hub reads."""
    head = {"language": langs, "library_name": "open_clip", "tags": ["clip", "capivara"], "base_model": base, **more}
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n"


def run_card(recipe: Recipe, summary: dict[str, Any], path: Path) -> str:
    """The card of a run folder.

    Args:
        summary: what run.json holds.
    """
    langs = ", ".join(recipe.lang)
    what = "LoRA adapter for the text tower" if recipe.method == "lora" else "Fine-tuned model"
    files = {"lora": "`adapter/` (PEFT)", "full": "`model/` (OpenCLIP)"}[recipe.method]
    return f"""{front_matter([*recipe.lang, *recipe.keep], recipe.model.name)}
# {path.name}

{what} of `{recipe.model.name}` for {langs}, made with capivara {__version__}. The weights are in {files}.

## Results

{score_table(summary["before"], summary["after"])}
Mean of recall@1, @5 and @10 in both directions on {summary["held_out"]} held-out images, in percent; the weights
are those of step {summary["best_step"]} of {summary["steps"]}. For figures to publish, use
`capivara retrieve-eval` on a test set.

![curves](curves.png)

## Use

    capivara merge-lora {path} -o clip-{recipe.lang[0]}
    capivara retrieve-eval --data TEST.jsonl --lang {recipe.lang[0]} --model local-dir:clip-{recipe.lang[0]}

## Training

{summary["images"]:,} images with {_counts(summary["captions"])} captions; {summary["parameters"]:,} parameters
trained in {summary["seconds"]:.0f} s on {summary["arithmetic"]}. `capivara train --recipe config.yaml` trains it again:

```yaml
{to_yaml(recipe)}```
"""


def merged_card(name: str, base: str, langs: list[str], summary: dict[str, Any], licence: str) -> str:
    """The card of a merged model."""
    scores = score_table(summary.get("before", {}), summary.get("after", {}))
    return f"""{front_matter(langs, base, license=licence)}
# {name}

`{base}` adapted to {", ".join(langs)} with capivara {__version__}: the whole model, adapter merged.
The weights are derived from the base model's: its licence ({licence}) holds for them too.

{scores}
## Use

```python
import open_clip

model, _, preprocess = open_clip.create_model_and_transforms("local-dir:{name}")
tokenizer = open_clip.get_tokenizer("local-dir:{name}")
```

If the folder was moved since it was written, plain open_clip must be told where the text tower's
configuration is; capivara finds it by itself:

```python
import json, open_clip

folder = "{name}"
text_cfg = json.load(open(f"{{folder}}/open_clip_config.json"))["model_cfg"]["text_cfg"]
text_cfg["hf_model_name"] = folder
model, _, preprocess = open_clip.create_model_and_transforms("local-dir:" + folder, text_cfg=text_cfg)
```
"""


def score_table(before: dict[str, float], after: dict[str, float]) -> str:
    """A Markdown table of mean recalls, or a line that says that there are none."""
    if not after:
        return "No validation was done.\n"
    rows = [
        f"| {lang} | {100 * before.get(lang, float('nan')):.1f} | {100 * value:.1f} |" for lang, value in after.items()
    ]
    return "\n".join(["| language | before | after |", "|---|---|---|", *rows]) + "\n"


def _counts(captions: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {lang}" for lang, count in captions.items())
