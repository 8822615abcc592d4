"""What `score` shows: the scores' histogram, and what was dropped by reason and source."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capivara_cli.data.output import SHOWN, rejected_file
from capivara_cli.data.captions import REJECTED
from capivara_cli import artifacts, console
from capivara_cli.data.selection import JUDGED, Asked, is_verdict, judge_of

if TYPE_CHECKING:
    from rich.table import Table

BIN = 50  # ten-thousandths: width of a bin that is counted; what is shown are some of them together
ROWS = 16  # of the histogram on the screen, at most
WIDTH = 40  # characters of its longest bar
SOURCES = 20  # of captions, in the table
MOST_SOURCES = 1000  # that are counted apart
OTHERS = "others"


class Report:
    """Counts what an output is shown, in constant memory: however often the run was interrupted, it sees all."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.images: Counter[str | None] = Counter()  # by the reason why they were rejected
        self.kept: Counter[int] = Counter()  # scores by their bin
        self.dropped: Counter[int] = Counter()
        self.sources: dict[str, Counter[str | None]] = {}  # captions of a source by the reason why they were dropped
        self.unusable: list[str] = []  # the first of the images that cannot be used
        self.unjudged = 0  # captions that --by finds no parent of
        self._parts: list[dict[str, Any]] = []  # dropped captions of the record that comes next

    def part(self, data: dict[str, Any]) -> None:
        """A caption that was dropped."""
        self._parts.append(data)

    def record(self, data: dict[str, Any], reason: str | None) -> None:
        """A record, and why it was rejected if it was."""
        parts, self._parts = self._parts, []
        self.images[reason] += 1
        if reason is not None and not is_verdict(reason):
            if len(self.unusable) < SHOWN:
                self.unusable.append(f"{data['id']}: {reason}")
            return  # scores and marks on its captions are not ours
        captions = data.get("captions", [])
        judges = [judge_of(captions, i, self.asked) for i in range(len(captions))]
        # A caption that failed may have stayed, because one in another language stands on it.
        failed = {part[JUDGED]["text"] for part in parts if JUDGED in part}
        for caption, judge in zip(captions, judges, strict=True):
            if judge is not None and REJECTED in caption and self.asked.covers(caption["lang"]):
                failed.add(captions[judge]["text"])
        for caption in (*parts, *captions):
            lang, why = caption["lang"], caption.get(REJECTED)
            if self.asked.judges(lang):
                counts = self.dropped if why or caption["text"] in failed else self.kept
                counts[round(caption["score"] * 10_000) // BIN] += 1
            if self.asked.judges(lang) or self.asked.covers(lang):
                self._of(caption)[why] += 1
        if self.asked.by is not None and reason is None:
            without = (caption for caption, judge in zip(captions, judges, strict=True) if judge is None)
            self.unjudged += sum(self.asked.covers(caption["lang"]) for caption in without)

    def _of(self, caption: dict[str, Any]) -> Counter[str | None]:
        """What is counted of the caption's source."""
        name = f"{caption.get('source') or 'no source'} ({caption['lang']})"
        known = name in self.sources or len(self.sources) < MOST_SOURCES
        return self.sources.setdefault(name if known else OTHERS, Counter())

    def show(self, output: Path | None) -> None:
        """The histogram, the table of reasons, and a line of totals."""
        captions = sum(self.sources.values(), Counter[str | None]())
        kept, total = captions[None], captions.total()
        if not self.images:
            return
        if not total:
            console.warn("no caption was judged: the records have none")
        if self.kept or self.dropped:
            console.show(self._histogram())
        if kept < total:
            console.show(self._reasons())
        marked = ", the others marked" if self.asked.keep_all and kept < total else ""
        where = f" in {output}" if output is not None and self.images[None] else ""
        share = f" ({kept / total:.0%})" if total else ""
        images = f"{self.images[None]:,} of {self.images.total():,} images"
        console.say(f"{images}, {kept:,} of {total:,} captions{share} kept{where}{marked}")
        if self.unjudged:
            console.say(f"{self.unjudged:,} captions come from none in {self.asked.by}: they stay as they are")

    def warn(self, output: Path | None) -> None:
        """Name images that cannot be used. Dropping the others is what was asked for."""
        count = sum(n for reason, n in self.images.items() if reason is not None and not is_verdict(reason))
        if count:
            where = f"; all are in {rejected_file(output)}" if output is not None else ""
            names = "".join(f"\n  {line}" for line in self.unusable)
            names += f"\n  and {count - len(self.unusable):,} more" if count > len(self.unusable) else ""
            console.warn(f"{count:,} of {self.images.total():,} records rejected{where}{names}")

    def _histogram(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        rows = self._bins(ROWS)
        longest = max(kept + dropped for *_, kept, dropped in rows)
        table = Table(box=None, show_header=False, padding=(0, 1, 0, 0))
        table.add_column(justify="right", no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        for low, _, kept, dropped in rows:
            length = math.ceil((kept + dropped) / longest * WIDTH)
            solid = min(round(kept / longest * WIDTH), length) if dropped else length
            bar = Text("█" * solid, style="cyan") + Text("░" * (length - solid), style="dim")
            table.add_row(f"{low:.3f}", bar, f"{kept + dropped:,}")
        legend = "score: █ kept ░ dropped" if self.dropped else "score"
        table.title, table.title_justify, table.title_style = legend, "left", ""
        return table

    def _bins(self, most: int) -> list[tuple[float, float, int, int]]:
        """Bins of one width from the lowest score to the highest, at most so many: edges, kept and dropped captions."""
        numbers = self.kept.keys() | self.dropped.keys()
        first, last = min(numbers), max(numbers)
        width = next(each for each in (1, 2, 4, 10, 20, 40, 80) if last // each - first // each < most)
        result = []
        for start in range(first // width * width, last + 1, width):
            inside = range(start, start + width)
            kept, dropped = (sum(counts[i] for i in inside) for counts in (self.kept, self.dropped))
            result.append((start * BIN / 10_000, (start + width) * BIN / 10_000, kept, dropped))
        return result

    def _reasons(self) -> Table:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        largest = sorted(self.sources.items(), key=lambda item: -item[1].total())
        rows = largest[:SOURCES]
        if rest := largest[SOURCES:]:
            rows.append((f"{len(rest):,} {OTHERS}", sum((counts for _, counts in rest), Counter[str | None]())))
        every = sum((counts for _, counts in rows), Counter[str | None]())
        reasons = [reason for reason, _ in every.most_common() if reason is not None]
        table = Table(box=box.SIMPLE_HEAD)
        table.add_column("captions of", overflow="fold")
        for reason in (None, *reasons):
            table.add_column(Text(reason or "kept"), justify="right", max_width=13)
        for name, counts in (*rows, *([("all", every)] if len(rows) > 1 else [])):
            table.add_row(Text(console.clean(name)), *(f"{counts[reason]:,}" for reason in (None, *reasons)))
        return table

    def plot(self, path: Path) -> None:
        """The histogram as a PNG."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 3.6), dpi=120, layout="constrained")
        axes = figure.subplots()
        if self.kept or self.dropped:
            rows = self._bins(60)
            lows, widths = [row[0] for row in rows], [high - low for low, high, *_ in rows]
            kept, dropped = [row[2] for row in rows], [row[3] for row in rows]
            axes.bar(lows, kept, widths, align="edge", color="#2a7f9e", label=f"kept: {sum(kept):,}")
            if self.dropped:
                label = f"dropped: {sum(dropped):,}"
                axes.bar(lows, dropped, widths, kept, align="edge", color="#c9c9c9", label=label)
            least = self.asked.strategy.min_score
            if least is not None:
                axes.axvline(least, color="#444444", linewidth=1, linestyle="--")
            axes.legend(frameon=False)
        axes.set(title="CLIP score of captions and their images", xlabel="score", ylabel="captions")
        axes.spines[["top", "right"]].set_visible(False)
        with artifacts.writing(path) as temporary:
            figure.savefig(temporary, format="png")
        console.say(f"wrote {path}")
