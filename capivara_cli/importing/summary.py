"""What came in: images, captions by language, sizes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from capivara_cli import console

MOST_LABELS = 10_000  # that are counted


class Sizes:
    """The smallest, the largest and the middle of many images' shorter sides."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()

    def add(self, size: tuple[int, int] | None) -> None:
        """Width and height of an image, in pixels."""
        if size is not None:
            self.counts[min(size)] += 1

    def line(self) -> str:
        """`64 to 4,000 pixels, half of them at least 480`."""
        seen, half = 0, self.counts.total() / 2
        for side in sorted(self.counts, reverse=True):
            seen += self.counts[side]
            if seen >= half:
                break
        return f"shorter sides: {min(self.counts):,} to {max(self.counts):,} pixels, half of them at least {side:,}"


class Summary:
    """Counts what an output is shown, in constant memory."""

    def __init__(self) -> None:
        self.sizes = Sizes()
        self.images = 0
        self.labels: Counter[str] = Counter()
        self.captions: Counter[str] = Counter()
        self.with_lang: Counter[str] = Counter()  # images that have a caption in it
        self.most: Counter[str] = Counter()  # captions in it that an image has at most
        self.bare = 0  # images without a caption

    def record(self, data: dict[str, Any], reason: str | None) -> None:
        """A record, and why it was rejected if it was."""
        if reason is not None:
            return
        self.images += 1
        own = Counter(caption["lang"] for caption in data.get("captions", []))
        self.bare += not own
        self.captions.update(own)
        self.with_lang.update(own.keys())
        for lang, count in own.items():
            self.most[lang] = max(self.most[lang], count)
        label = data.get("label")
        if isinstance(label, str) and (label in self.labels or len(self.labels) < MOST_LABELS):
            self.labels[label] += 1

    def part(self, data: dict[str, Any]) -> None:
        """Records are rejected whole here."""

    def show(self, output: Path | None, *, verified: bool) -> None:
        """A table by language, and what else is worth knowing."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        if not self.images:
            return
        where = f" in {output}" if output is not None else ""
        console.say(f"{self.images:,} images{where}")
        if self.captions:
            table = Table("language", "captions", "images", "captions an image", box=box.SIMPLE_HEAD)
            for column in table.columns[1:]:
                column.justify = "right"
            for lang, count in self.captions.most_common():
                mean = count / self.with_lang[lang]
                each = f"{mean:.1f}, at most {self.most[lang]:,}" if self.most[lang] > mean else f"{mean:.0f}"
                table.add_row(Text(console.clean(lang)), f"{count:,}", f"{self.with_lang[lang]:,}", each)
            console.show(table)
        if self.bare:
            console.say(f"{self.bare:,} images without a caption" + ("" if self.captions else ": capivara caption"))
        if self.labels:
            names = ", ".join(f"{name} ({count:,})" for name, count in self.labels.most_common(8))
            console.say(f"{len(self.labels):,} labels: {names}" + (" …" if len(self.labels) > 8 else ""))
        if verified and self.sizes.counts:
            console.say(self.sizes.line())
