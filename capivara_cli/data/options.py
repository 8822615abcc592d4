"""The flags that choose captions: which are judged, and how."""

from __future__ import annotations

from collections.abc import Sequence

from capivara_cli.data.languages import LangOrNone, Langs
from capivara_cli.errors import BadOption
from capivara_cli.options import Options, flag

MIN_CAPTIONS = 3  # k_min of the recipe


class SelectionOptions(Options):
    """Which captions to keep. The strategies apply in this order; one that is None is not used."""

    lang: Langs = flag("Languages whose captions are judged.", default=(), metavar="LANG", shown="all")
    by: LangOrNone = flag(
        "Judge captions by their LANG original; a rejected one takes its translations with it.",
        default=None,
        metavar="LANG",
    )
    pair_score: float | None = flag(
        "Drop images whose human captions all score less; the recipe's filter of CC3M.", default=None, min=-1, max=1
    )
    first: int | None = flag("Keep only the first K generated captions per image.", default=None, min=0, metavar="K")
    min_score: float | None = flag("Drop captions that score less; the recipe's is 0.2.", default=None, min=-1, max=1)
    top_k: int | None = flag("Keep only the K captions with the best scores.", default=None, min=1, metavar="K")
    diverse: float | None = flag(
        "Drop similar captions until no two have a TF-IDF cosine above this; the recipe's is 0.3.",
        default=None,
        min=0,
        max=1,
    )
    min_captions: int | None = flag(
        "Never cut an image below N captions (with --diverse).",
        default=None,
        min=1,
        metavar="N",
        shown=str(MIN_CAPTIONS),
    )
    human: Sequence[str] = flag(
        "Another `source` value that marks human captions (`human` and captions without a source always count).",
        default=(),
        metavar="SOURCE",
    )
    keep_all: bool = flag("Drop nothing; mark captions with the reason under `rejected` instead.", default=False)

    def check(self) -> None:
        """Raise BadOption for values that do not go together."""
        if self.by is not None and not self.by.strip():
            raise BadOption(f"--by '{self.by}': not a language", "--by en")
        if tuple(self.lang) == (self.by,):
            raise BadOption(
                f"--by {self.by} is the same as --lang {self.by}", "leave --by out: each caption is judged by itself"
            )
        if self.min_captions is not None and self.diverse is None:
            raise BadOption(f"--min-captions {self.min_captions} needs --diverse", "--diverse 0.3")

    def covers(self, lang: str) -> bool:
        """Return whether `--lang` includes this language."""
        return not self.lang or lang in self.lang

    def judges(self, lang: str) -> bool:
        """Return whether captions in this language need a score."""
        return lang == self.by if self.by else self.covers(lang)

    def required_langs(self) -> list[str]:
        """Return the languages that the data must have."""
        return list(dict.fromkeys([*([self.by] if self.by else []), *self.lang]))
