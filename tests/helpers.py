"""What tests of several rooms use: records and their files, and tar shards."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    # Not splitlines(): a caption may hold other characters that it takes for the end of a line.
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def write_jsonl(path: Path, records: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def write_tar(path: Path, members: Mapping[str, bytes], format: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def odd_records(*images: str) -> list[dict[str, Any]]:
    """Records of three images, with all that a record may hold."""
    first, second, third = images
    return [
        {"id": "a/1.x", "image": first, "label": "dog", "votes": {"up": 3, "who": ["é", None]}, "captions": []},
        {
            "id": "कुत्ता 2",
            "image": second,
            "label": 7,
            "captions": [
                {"text": 'a "dog",\n\ton; a beach', "lang": "en", "source": "human", "votes": 2},
                {"text": "an art of a dog", "lang": "en", "source": "blip2", "prefix": "an art of", "score": 0.3125},
                {"text": "समुद्र तट पर एक कुत्ता", "lang": "hi", "source": "google", "parent": 0, "score": -0.5},
                {"text": "एक कुत्ता", "lang": "hi", "parent": 1, "rejected": "score below 0.2"},
            ],
        },
        {
            "id": "3",
            "image": third,
            "captions": [{"text": "no, nothing", "lang": "en", "score": 1, "parent": None}],
        },
    ]


def plain_clip(folder: Path) -> tuple[Any, Any, Any]:
    """Load a model's folder with open_clip alone; return the model, in eval mode, its preprocessing and tokenizer."""
    import open_clip

    text_cfg = open_clip.get_model_config(f"local-dir:{folder}")["text_cfg"] | {"hf_model_name": str(folder)}
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}", text_cfg=text_cfg)
    return model.eval(), preprocess, open_clip.get_tokenizer(f"local-dir:{folder}")


def snippets(card: Path) -> list[str]:
    """Return the blocks of Python in a Markdown file."""
    return re.findall("^```python\n(.*?)^```$", card.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
