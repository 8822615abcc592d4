"""One export: its records, their images, and the count of what was written and rejected."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from capivara_cli.data import images, pipeline
from capivara_cli.data.captions import REJECTED
from capivara_cli.data.images import ImageRejected
from capivara_cli.data.output import RecordResult, Tally
from capivara_cli.data.records import Record
from capivara_cli.errors import CapivaraError
from capivara_cli.exporting.options import ExportOptions
from capivara_cli.progress import progress


@dataclass
class ExportJob:
    """One export.

    Attributes:
        total: number of records, if known.
        tally: counts the records that were written and rejected.
        captions: number of captions that were written to a table or a text.
    """

    source: str
    output: Path
    options: ExportOptions
    total: int | None
    tally: Tally = field(default_factory=Tally)
    captions: int = 0

    def records(self) -> Iterator[Record]:
        """Yield the records, with a progress bar."""
        inside_output = f"{self.output.absolute()}{os.sep}"
        with progress() as bar:
            task = bar.add_task("exporting", total=self.total)
            for record in pipeline.read([self.source], self.total):
                if record.image.path.startswith(inside_output):
                    raise CapivaraError(
                        f"{record.where}: its image is in {self.output}, which is the output", "-o another folder"
                    )
                yield record
                bar.update(task, advance=1)

    def with_images(self, records: Iterable[Record]) -> Iterator[tuple[Record, bytes, str]]:
        """Yield the records that have a readable image, its bytes as they are, and the extension that fits them."""
        for record in records:
            try:
                content = images.content(record.image)
                extension = images.extension_of(content)
                reason = "not an image that can be read"
            except ImageRejected as error:
                extension, reason = None, error.message
            if extension is not None:
                self.tally.kept += 1
                yield record, content, extension
                continue
            result = RecordResult.rejected(record, Path.cwd(), reason, strict=self.options.strict)
            for mark, line in result.lines():
                self.tally.add(mark, line)

    def first_text(self, record: Record) -> str | None:
        """Return the text of the first caption, in the language of `--lang` if that is given."""
        for caption in record.captions:
            if REJECTED not in caption and self.options.lang in (None, caption["lang"]):
                return caption["text"]
        return None
