"""Texts that are longer than a model's context: they are cut, as open_clip does, and that is told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from capivara_cli import console
from capivara_cli.models.clip import Clip

SHOWN = 80  # characters of an example


@dataclass
class CutTexts:
    """The count of texts, and of those that were cut.

    Attributes:
        context: tokens that the model takes; 0 before any text was counted.
        example: the first text that was cut.
    """

    context: int = 0
    total: int = 0
    cut: int = 0
    example: str | None = None

    @classmethod
    def of(cls, clip: Clip, texts: Iterable[str]) -> CutTexts:
        """Count texts that were encoded or tokenised by this model."""
        counts = cls()
        counts.add(clip, texts)
        return counts

    def add(self, clip: Clip, texts: Iterable[str]) -> None:
        """Count more texts."""
        self.context = clip.tokenizer.context_length
        for text in texts:
            self.total += 1
            if text in clip.cut:
                self.cut += 1
                self.example = self.example or text

    def warn(self, what: str) -> None:
        """Warn if any was cut.

        Args:
            what: the texts are: `captions in hi`.
        """
        if self.cut:
            example = self.example or ""
            shown = example if len(example) <= SHOWN else f"{example[:SHOWN]}…"
            console.warn(
                f"{self.cut:,} of {self.total:,} {what} ({self.cut / self.total:.1%}) are longer than the model's"
                f" {self.context} tokens and were cut; the first: {shown}"
            )

    def content(self) -> dict[str, Any]:
        """Return what a result file says of them."""
        share = self.cut / self.total if self.total else 0.0
        return {"count": self.cut, "share": round(share, 6)} | ({"example": self.example} if self.cut else {})
