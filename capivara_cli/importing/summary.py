"""What was imported: images, captions by language, sizes."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import Any

from capivara_cli import console
from capivara_cli.data.image_records import ENOUGH_IMAGES, MAX_SHARE

MAX_LABELS = 10_000  # distinct labels that are counted
SHOWN_LABELS = 8


class Summary:
    """Count what an output is shown, in constant memory."""

    def __init__(self) -> None:
        self.images = 0
        self.without_captions = 0  # images
        self.labels: Counter[str] = Counter()
        self.captions: Counter[str] = Counter()  # by language, as the next two
        self.captioned: Counter[str] = Counter()  # images
        self.most: Counter[str] = Counter()  # captions of one image
        self.sides: Counter[int] = Counter()  # shorter sides of the images, in pixels

    def add_size(self, size: tuple[int, int] | None) -> None:
        """Count the width and height of an image, in pixels."""
        if size is not None:
            self.sides[min(size)] += 1

    def add_record(self, data: dict[str, Any], reason: str | None) -> None:
        """Count a record that was not rejected."""
        if reason is not None:
            return
        self.images += 1
        captions = Counter(caption["lang"] for caption in data.get("captions", []))
        self.without_captions += not captions
        for lang, count in captions.items():
            self.captions[lang] += count
            self.captioned[lang] += 1
            self.most[lang] = max(self.most[lang], count)
        label = data.get("label")
        if isinstance(label, str) and (label in self.labels or len(self.labels) < MAX_LABELS):
            self.labels[label] += 1

    def add_part(self, data: dict[str, Any]) -> None:
        """See `Observer`: no part of a record is rejected here."""

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        languages = {
            lang: {"captions": count, "images": self.captioned[lang], "most_of_an_image": self.most[lang]}
            for lang, count in self.captions.most_common()
        }
        return {
            "languages": languages,
            "without_captions": self.without_captions,
            "labels": dict(self.labels.most_common()),
            "shorter_sides": [min(self.sides), max(self.sides)] if self.sides else None,
        }

    def show(self, output: Path | None, *, verified: bool) -> None:
        """Show a table by language, and what else is worth knowing."""
        if not self.images:
            return
        console.say(console.counted(self.images, "image") + (f" in {output}" if output is not None else ""))
        if self.captions:
            table = console.table("language", "captions", "images", "captions per image")
            for lang, count in self.captions.most_common():
                mean, most = count / self.captioned[lang], self.most[lang]
                per_image = f"{mean:.1f}, at most {most:,}" if most > mean else f"{mean:.0f}"
                table.add_row(console.clean(lang), f"{count:,}", f"{self.captioned[lang]:,}", per_image)
            console.show(table)
        for lang, most in self.most.items():
            if self.images >= ENOUGH_IMAGES and most > MAX_SHARE * self.captions[lang]:
                console.warn(
                    f"one image has {most:,} of {self.captions[lang]:,} captions in {lang}: is that image correct?"
                )
        if self.without_captions:
            line = f"capivara caption {shlex.quote(str(output or '-'))} -o FILE.jsonl"
            hint = "" if self.captions else f": {line} describes them"
            console.say(f"{console.counted(self.without_captions, 'image')} without a caption{hint}")
        if self.labels:
            names = ", ".join(f"{name} ({count:,})" for name, count in self.labels.most_common(SHOWN_LABELS))
            more = " …" if len(self.labels) > SHOWN_LABELS else ""
            console.say(f"{console.counted(len(self.labels), 'label')}: {names}{more}")
        if verified and self.sides:
            larger = 0
            for side in sorted(self.sides, reverse=True):
                larger += self.sides[side]
                if larger >= self.sides.total() / 2:
                    break
            low, high = min(self.sides), max(self.sides)
            console.say(f"shorter sides: {low:,} to {high:,} pixels, half of them at least {side:,}")
