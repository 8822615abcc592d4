"""What `score` shows: the histogram of the scores, and what was dropped by reason and source."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capivara_cli import artifacts, console
from capivara_cli.data.captions import REJECTED, Caption
from capivara_cli.data.options import SelectionOptions
from capivara_cli.data.output import SHOWN, Tally
from capivara_cli.data.selection import JUDGED, decided_by, is_verdict

if TYPE_CHECKING:
    from rich.table import Table

FINE_BIN = 50  # width of a counted bin, in ten-thousandths of a score; a bar that is shown covers one or more of them
ROWS, PLOT_BARS = 16, 60  # bars in the table and in the plot, at most
WIDTH = 40  # characters of the longest bar
SHOWN_CAPTION_SOURCES = 20  # in the table, at most
MAX_CAPTION_SOURCES = 1000  # that are counted separately; all others are counted together
OTHERS = "others"
SOFTWARE = "capivara score"  # in the plot's PNG: `files.PLOT` recognises it


class Report:
    """An observer (`output.Observer`) that counts images and captions in constant memory.

    Attributes:
        images: reason -> number of images rejected for it; None -> number of images kept.
        kept, dropped: fine bin -> number of captions.
        caption_sources: `source` and language of captions -> reason -> number of captions; None -> number kept.
        image_tally: `kept` counts the images that could be loaded, `rejected` those that could not.
        unjudged: number of captions that have no original in the language of `--by`.
    """

    def __init__(self, options: SelectionOptions) -> None:
        self.options = options
        self.images: Counter[str | None] = Counter()
        self.kept: Counter[int] = Counter()
        self.dropped: Counter[int] = Counter()
        self.caption_sources: dict[str, Counter[str | None]] = {}
        self.image_tally = Tally()
        self.unjudged = 0
        self._parts: list[dict[str, Any]] = []  # dropped captions of the record that comes next

    def add_part(self, data: dict[str, Any]) -> None:
        """Take a dropped caption."""
        self._parts.append(data)

    def add_record(self, data: dict[str, Any], reason: str | None) -> None:
        """Count a record and its captions, the dropped ones included."""
        parts, self._parts = self._parts, []
        self.images[reason] += 1
        if reason is not None and not is_verdict(reason):
            self.image_tally.rejected += 1
            if len(self.image_tally.first) < SHOWN:
                self.image_tally.first.append(f"{data['id']}: {reason}")
            return  # it was not judged: scores and `rejected` marks on its captions come from the input
        self.image_tally.kept += 1
        captions: list[Caption] = data.get("captions", [])
        # Texts of the originals that failed. Such an original may have stayed, because a caption in another language
        # needs it. By text, because dropping captions has changed the indices of the others.
        failed = {part[JUDGED]["text"] for part in parts if JUDGED in part}
        for i, caption in enumerate(captions):
            if not self.options.covers(caption["lang"]):
                continue
            index = decided_by(captions, i, self.options)
            if index is None:
                self.unjudged += reason is None  # in a dropped image no caption was kept unjudged
            elif REJECTED in caption:
                failed.add(captions[index]["text"])
        for caption_or_part in [*parts, *captions]:
            self._count(caption_or_part, failed)

    def _count(self, caption: Mapping[str, Any], failed: set[str]) -> None:
        lang, reason = caption["lang"], caption.get(REJECTED)
        if self.options.judges(lang):
            counts = self.dropped if reason or caption["text"] in failed else self.kept
            # Scores have four digits. As integers they fall into the right bin; 0.29 / 0.005 would be 57.99….
            counts[round(caption["score"] * 10_000) // FINE_BIN] += 1
        if self.options.judges(lang) or self.options.covers(lang):
            name = f"{caption.get('source') or 'no source'} ({lang})"
            known = name in self.caption_sources or len(self.caption_sources) < MAX_CAPTION_SOURCES
            self.caption_sources.setdefault(name if known else OTHERS, Counter())[reason] += 1

    def show(self, output: Path | None) -> None:
        """Show the histogram, the table of reasons, and a line of totals."""
        captions = _sum(self.caption_sources.values())
        kept, total = captions[None], captions.total()
        if not self.images:
            return
        if not total:
            console.warn("no caption was judged: the records have no captions")
        if self.kept or self.dropped:
            console.show(self._histogram())
        if kept < total:
            console.show(self._reason_table())
        marked = "; the other captions are marked" if self.options.keep_all and kept < total else ""
        where = f" in {output}" if output is not None and self.images[None] else ""
        share = f" ({kept / total:.0%})" if total else ""
        images = f"{self.images[None]:,} of {self.images.total():,} images"
        console.say(f"kept {images} and {kept:,} of {total:,} captions{share}{where}{marked}")
        if self.unjudged:
            console.say(
                f"{console.counted(self.unjudged, 'caption')} without an original in {self.options.by}: kept unjudged"
            )

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints: images and captions by reason, `kept` for those that are kept, and the bars."""
        captions = {
            name: {reason or "kept": count for reason, count in counts.items()}
            for name, counts in self.caption_sources.items()
        }
        width, starts, kept, dropped = self._bars(PLOT_BARS) if self.kept or self.dropped else (None, [], [], [])
        return {
            "images": {reason or "kept": count for reason, count in self.images.items()},
            "captions": captions,
            "unjudged": self.unjudged,
            "scores": {"width": width, "from": starts, "kept": kept, "dropped": dropped},
        }

    def _bars(self, max_bars: int) -> tuple[float, list[float], list[int], list[int]]:
        """Return bars from the lowest score to the highest: their width, lower edges, kept and dropped captions.

        Args:
            max_bars: maximum number of bars.
        """
        numbers = self.kept.keys() | self.dropped.keys()
        first, last = min(numbers), max(numbers)
        # In fine bins: bars are 0.005, 0.01, 0.02, 0.05, 0.1, 0.2 or 0.4 wide, so 16 of them cover the range -1 to 1.
        width = next(w for w in (1, 2, 4, 10, 20, 40, 80) if last // w - first // w < max_bars)
        starts = range(first // width * width, last + 1, width)
        kept, dropped = (
            [sum(counts[i] for i in range(start, start + width)) for start in starts]
            for counts in (self.kept, self.dropped)
        )
        return width * FINE_BIN / 10_000, [start * FINE_BIN / 10_000 for start in starts], kept, dropped

    def _histogram(self) -> Table:
        from rich.text import Text

        _, *columns = self._bars(ROWS)
        rows = list(zip(*columns, strict=True))
        longest = max(kept + dropped for _, kept, dropped in rows)
        table = console.table(title="score: █ kept ░ dropped" if self.dropped else "score")
        for low, kept, dropped in rows:
            length = math.ceil((kept + dropped) / longest * WIDTH)
            solid = min(round(kept / longest * WIDTH), length) if dropped else length
            bar = Text("█" * solid, style="cyan") + Text("░" * (length - solid), style="dim")
            table.add_row(f"{low:6.3f}", bar, f"{kept + dropped:{len(f'{longest:,}')},}")
        return table

    def _reason_table(self) -> Table:
        largest = sorted(self.caption_sources.items(), key=lambda item: -item[1].total())
        rows, rest = largest[:SHOWN_CAPTION_SOURCES], largest[SHOWN_CAPTION_SOURCES:]
        if rest:
            rows.append((f"{len(rest):,} {OTHERS}", _sum(counts for _, counts in rest)))
        totals = _sum(self.caption_sources.values())
        if len(rows) > 1:
            rows.append(("all", totals))
        reasons = [None, *(reason for reason, _ in totals.most_common() if reason is not None)]
        table = console.table("caption source", *(reason or "kept" for reason in reasons))
        for name, counts in rows:
            table.add_row(console.clean(name), *(f"{counts[reason]:,}" for reason in reasons))
        return table

    def plot(self, path: Path) -> None:
        """Write the histogram as a PNG."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 3.6), dpi=120, layout="constrained")
        axes = figure.subplots()
        if self.kept or self.dropped:
            width, lows, kept, dropped = self._bars(PLOT_BARS)
            axes.bar(lows, kept, width, align="edge", color="#2a7f9e", label=f"kept: {sum(kept):,}")
            if self.dropped:
                label = f"dropped: {sum(dropped):,}"
                axes.bar(lows, dropped, width, kept, align="edge", color="#c9c9c9", label=label)
            if self.options.min_score is not None:
                axes.axvline(self.options.min_score, color="#444444", linewidth=1, linestyle="--")
            axes.legend(frameon=False)
        axes.set(title="CLIP score of captions and their images", xlabel="score", ylabel="captions")
        axes.spines[["top", "right"]].set_visible(False)
        with artifacts.writing(path) as temporary:
            figure.savefig(temporary, format="png", metadata={"Software": SOFTWARE})
        console.say(f"wrote {path}")


def _sum(counts: Iterable[Counter[str | None]]) -> Counter[str | None]:
    return sum(counts, Counter[str | None]())
