"""Hugging Face's ImageFolder: images, and `metadata.jsonl` with everything that the records have."""

from __future__ import annotations

import re

from capivara_cli import artifacts
from capivara_cli.data.output import raise_if_empty
from capivara_cli.data.records import METADATA, to_json
from capivara_cli.exporting.job import ExportJob
from capivara_cli.folders import MARKER, FolderKind, marker_text

FOLDER_SIZE = 10_000  # files per folder: more make some file systems slow


def kind(prefix: str) -> FolderKind:
    """Return the kind of the folder, for images of this prefix."""
    files = rf"{re.escape(METADATA)}|\d{{5,}}/{re.escape(prefix)}\d{{9}}\.[a-z0-9]+"
    return FolderKind("Hugging Face ImageFolder", files, required=(METADATA,))


def write(job: ExportJob) -> None:
    """Write the folder, which appears whole. Raises CapivaraError when nothing is left."""
    with artifacts.writing(job.output) as temporary:
        temporary.mkdir()
        artifacts.write_text(temporary / MARKER, marker_text(kind(job.options.prefix)))
        with (temporary / METADATA).open("w", encoding="utf-8", errors="backslashreplace") as file:
            for number, (record, content, extension) in enumerate(job.with_images(job.records())):
                folder = f"{number // FOLDER_SIZE:05d}"
                name = f"{folder}/{job.options.prefix}{number:09d}{extension}"
                (temporary / folder).mkdir(exist_ok=True)
                (temporary / name).write_bytes(content)
                text = job.first_text(record)
                head = {"file_name": name, "id": record.id} | ({} if text is None else {"text": text})
                data = {key: value for key, value in record.data.items() if key not in ("image", "file_name", "id")}
                file.write(to_json(head | {"captions": []} | data) + "\n")
        raise_if_empty(job.tally, None)
