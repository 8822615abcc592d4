"""Hugging Face's ImageFolder: images, and `metadata.jsonl` with all that the records have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capivara_cli import artifacts
from capivara_cli.data.records import METADATA, to_json

if TYPE_CHECKING:
    from capivara_cli.exporting.export import Export

FOLDER_SIZE = 10_000  # files in a folder: more make some file systems slow
OWN = r"metadata\.jsonl|\d{{5,}}(/{prefix}\d{{9}}\.[a-z0-9]+)?"


def write(job: Export) -> None:
    """Write the folder, which appears whole. Raises CapivaraError when nothing is left."""
    artifacts.remove_dead(job.output)
    with artifacts.writing(job.output) as temporary:
        temporary.mkdir()
        with (temporary / METADATA).open("w", encoding="utf-8", errors="backslashreplace") as file:
            for record in job.records():
                content = job.content(record)
                if content is None:
                    continue
                folder = f"{job.images // FOLDER_SIZE:05d}"
                name = f"{folder}/{job.prefix}{job.images:09d}{content[1]}"
                (temporary / folder).mkdir(exist_ok=True)
                (temporary / name).write_bytes(content[0])
                data = {key: value for key, value in record.data.items() if key not in ("image", "file_name", "id")}
                text = job.text(record)
                head = {"file_name": name, "id": record.id} | ({"text": text} if text is not None else {})
                file.write(to_json(head | {"captions": []} | data) + "\n")
                job.images += 1
                job.captions += len(record.captions)
        job.check_written(job.images)
