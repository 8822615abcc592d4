"""Shards of `capivara export webdataset`, read by the tools that own the format; interrupted and resumed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from capivara_cli.errors import CapivaraError
from tests import kills
from tests.exporting.conftest import answer, run, write
from tests.forks import Forks
from tests.helpers import read_jsonl

READS_SHARDS = """
import json, sys
import open_clip, webdataset
from open_clip_train.data import get_dataset_size, get_wds_dataset

pattern = "shards/train-{00000..00001}.tar"
samples = list(webdataset.WebDataset(pattern, shardshuffle=False).decode("pil"))
assert samples[2]["webp"].size == (9, 8)

class Arguments:
    val_data, val_num_samples = pattern, None  # sizes.json says it
    dataset_resampled = distributed = False
    batch_size, workers, world_size, seed = 17, 1, 1, 0

tokenizer = open_clip.get_tokenizer("ViT-B-32")
info = get_wds_dataset(Arguments(), open_clip.image_transform(32, is_train=False), is_train=False, tokenizer=tokenizer)
batches = list(info.dataloader)
print(json.dumps({
    "ids": [sample["json"]["id"] for sample in samples],
    "text": samples[1]["txt"],
    "labels": [sample.get("cls") for sample in samples[:4]],
    "images": sum(len(images) for images, _ in batches),
    "size": get_dataset_size(pattern)[0],
    "shape": list(batches[0][0].shape),
}))
"""


def test_webdataset_and_open_clips_loader_read_the_shards(source: str) -> None:
    run("webdataset", source, "shards", lang="en", shard_size=60, prefix="train-")
    names = ["sizes.json", "train-00000.tar", "train-00001.tar"]
    assert sorted(path.name for path in Path("shards").glob("[!.]*")) == names
    assert answer(READS_SHARDS) == {
        "ids": [record["id"] for record in read_jsonl(Path(source))],
        "text": 'a "dog",\n\ton; a beach',
        "labels": [None, 7, None, 0],
        "images": 102,  # open_clip leaves the one without a caption out
        "size": 103,
        "shape": [17, 3, 32, 32],
    }


def test_shards_are_not_resumed_when_the_records_or_the_settings_have_changed(source: str) -> None:
    records = [*read_jsonl(Path(source))[:30], {"id": "gone", "image": "gone.png"}]
    write("some.jsonl", records)
    with pytest.raises(CapivaraError, match="no such file"):
        run("webdataset", "some.jsonl", "out", shard_size=10, strict=True)
    shards = ["00000.tar", "00001.tar", "00002.tar"]
    assert sorted(path.name for path in Path("out.partial").iterdir()) == shards
    assert not Path("out").exists()
    with pytest.raises(CapivaraError, match="out was begun with other settings"):
        run("webdataset", "some.jsonl", "out", shard_size=11)
    write("some.jsonl", records[1:30])
    with pytest.raises(CapivaraError, match="out was begun with other records"):
        run("webdataset", "some.jsonl", "out", shard_size=10)
    write("some.jsonl", [*records[:30], records[0] | {"id": "new"}])
    before = {path.name: path.stat().st_mtime_ns for path in Path("out.partial").iterdir()}
    run("webdataset", "some.jsonl", "out", shard_size=10)
    assert json.loads(Path("out/sizes.json").read_text()) == dict.fromkeys(shards, 10) | {"00003.tar": 1}
    assert {name: (Path("out") / name).stat().st_mtime_ns for name in shards} == before
    assert not list(Path.cwd().glob("out.*"))


def test_overwrite_starts_over(source: str) -> None:
    Path("images/3.webp").rename("hidden")
    with pytest.raises(CapivaraError, match="no such file"):
        run("webdataset", source, "out", shard_size=1, strict=True)
    run("webdataset", source, "out", shard_size=50, overwrite=True)
    assert json.loads(Path("out/sizes.json").read_text()) == {"00000.tar": 50, "00001.tar": 50, "00002.tar": 2}
    assert sorted(path.name for path in Path("out").glob("[!.]*")) == [f"0000{n}.tar" for n in range(3)] + [
        "sizes.json"
    ]


def test_an_export_is_replaced_by_one_of_its_kind_only(source: str) -> None:
    run("webdataset", source, "out")
    before = sorted(path.name for path in Path("out").iterdir())
    with pytest.raises(CapivaraError, match="out is a WebDataset export, not a Hugging Face ImageFolder"):
        run("imagefolder", source, "out", overwrite=True)
    assert sorted(path.name for path in Path("out").iterdir()) == before


SETUP = """
from capivara_cli.exporting.export import export
from capivara_cli.exporting.options import ExportOptions

def run(output):
    shards = folder / f"{output.stem}-shards"
    if not shards.exists():
        export("webdataset", sys.argv[2], shards, ExportOptions(shard_size=9))
    # The bytes of all shards, for the comparison.
    temporary = folder / f"{output.stem}.part"
    temporary.write_bytes(b"".join(path.read_bytes() for path in sorted(shards.iterdir())))
    temporary.rename(output)
"""


def test_after_any_number_of_kills_the_shards_are_those_of_an_undisturbed_run(
    source: str, forks: Forks, tmp_path: Path
) -> None:
    kills.survive(forks, SETUP, tmp_path / "out", tmp_path / source, overwriting=0)
    assert len(list((tmp_path / "out" / "whole-shards").glob("[!.]*"))) == 13
