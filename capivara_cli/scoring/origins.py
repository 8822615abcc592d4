"""Whether `score --by LANG` can judge the captions: only those that were made from one in LANG."""

from __future__ import annotations

from collections import Counter

from capivara_cli import console
from capivara_cli.data.captions import lineage
from capivara_cli.data.records import Record
from capivara_cli.scoring.options import ScoreOptions


class Origins:
    """Counts captions by their language, and by the languages of what they were translated from."""

    def __init__(self) -> None:
        self.captions: Counter[tuple[str, frozenset[str]]] = Counter()

    def add(self, record: Record) -> None:
        """Count the captions of a record."""
        captions = record.captions
        for i, caption in enumerate(captions):
            self.captions[caption["lang"], frozenset(captions[j]["lang"] for j in lineage(captions, i))] += 1

    def report(self, options: ScoreOptions) -> None:
        """Say how many captions `--by` cannot judge, before hours of scoring."""
        covered = {key: n for key, n in self.captions.items() if options.covers(key[0]) and key[0] != options.by}
        total = sum(covered.values())
        without = sum(number for (_, langs), number in covered.items() if options.by not in langs)
        if options.by is None or not without:
            return
        langs = ", ".join(sorted({lang for lang, _ in covered}))
        if without == total:
            console.warn(
                f"--by {options.by} judges no caption in {langs}: none of the {total:,} has a `parent` in {options.by},"
                " so all are kept. Leave --by out to score them themselves"
            )
        else:
            console.say(f"{without:,} of {total:,} captions in {langs} have no `parent` in {options.by}: they are kept")
