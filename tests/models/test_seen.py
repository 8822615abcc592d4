"""Test data that were trained on are told, in whatever way they are named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from capivara_cli.errors import CapivaraError
from capivara_cli.evaluation.options import RetrieveOptions
from capivara_cli.evaluation.retrieve_eval import retrieve_eval
from capivara_cli.models import seen
from capivara_cli.training.merge_lora import merge_lora
from capivara_cli.training.options import MergeOptions, train_options
from capivara_cli.training.train import train
from tests.helpers import read_jsonl, write_jsonl


class Data:
    """Forty scenes; each has one caption in Hindi that no other has."""

    def __init__(self, world: Path, folder: Path) -> None:
        self.folder = folder
        self.rows = read_jsonl(world / "train.jsonl")[:40]
        for number, row in enumerate(self.rows):
            row["image"] = str(world / row["image"])
            row["captions"] = [{"text": f"तारा {number}", "lang": "hi"}]

    def write(self, name: str, first: int, last: int, **changes: Any) -> str:
        return str(write_jsonl(self.folder / name, [row | changes for row in self.rows[first:last]]))

    def copied(self, name: str, first: int, last: int) -> str:
        """The same images elsewhere, with other names and other captions."""
        rows = []
        for number, row in enumerate(self.rows[first:last]):
            copy = shutil.copy(row["image"], self.folder / f"{name}-{number}.png")
            rows.append({"image": str(copy), "captions": [{"text": f"नया {number}", "lang": "hi"}]})
        return str(write_jsonl(self.folder / name, rows))


@pytest.fixture
def data(world: Path, tmp_path: Path) -> Data:
    return Data(world, tmp_path)


def trained(data: Data, base: Path, val: str) -> Path:
    sets = ["batch_size=16", "max_steps=1", "optimizer.warmup_steps=0", "replay={}"]
    flags: dict[str, Any] = {"data": [data.write("train.jsonl", 0, 20)], "val": val, "model": f"local-dir:{base}"}
    return train(train_options("lora", lang=["hi"], set=sets, **flags), data.folder / "run")


def test_validation_data_that_are_trained_on_are_told(
    data: Data, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(data, base, data.write("val.jsonl", 15, 35))
    assert json.loads((run / "run.json").read_text())["val_overlap"] == {"images": 5, "captions": 0.25}
    assert "5 of 20 validation images and 25.0% of their captions were trained on too" in capsys.readouterr().err


def test_test_data_that_were_trained_on_are_told(data: Data, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(data, base, data.write("val.jsonl", 20, 40))
    assert json.loads((run / "run.json").read_text())["val_overlap"] == {"images": 0, "captions": 0.0}
    assert "trained on too" not in capsys.readouterr().err

    def overlap(test: str, **flags: Any) -> Any:
        capsys.readouterr()
        [content] = retrieve_eval([test], RetrieveOptions(lang=["hi"], **flags))
        told = "were trained on too" in capsys.readouterr().err
        assert told == bool(content.get("overlap", {}).get("images"))
        return content.get("overlap")

    some, none = data.write("some.jsonl", 18, 22), data.write("none.jsonl", 20, 30)
    model = f"local-dir:{base}"
    assert overlap(some, adapter=run) == {"images": 2, "captions": 0.5, "trained_on": str(run)}
    assert overlap(some, model=model) is None
    merged = merge_lora(run, data.folder / "merged")
    expected = {"images": 2, "captions": 0.5, "trained_on": str(merged)}
    assert overlap(some, model=f"local-dir:{merged}") == expected
    merge_lora(run, merged, MergeOptions(overwrite=True))  # the file counts as one of ours
    for known in (str(run), str(data.folder / "train.jsonl")):
        assert overlap(some, model=model, trained_on=known)["images"] == 2
        assert overlap(none, model=model, trained_on=known) == {"images": 0, "captions": 0.0, "trained_on": known}
        # Copies under other names are known by their content.
        expected = {"images": 3, "captions": 0.0, "trained_on": known}
        assert overlap(data.copied(f"copied-{Path(known).name}", 17, 22), model=model, trained_on=known) == expected


def test_an_image_without_a_known_content_is_not_like_another(data: Data, base: Path) -> None:
    run = trained(data, base, data.write("val.jsonl", 20, 40))
    known = seen.trained_on(str(run))
    unknown = seen.Seen(known.paths + 1, 0 * known.contents, known.captions[:0])
    assert unknown.overlap(unknown) == (20, 20, 0.0)
    assert seen.Seen(known.paths, 0 * known.contents, known.captions).overlap(unknown).images == 0


def test_a_run_that_does_not_say_what_it_was_trained_on(data: Data, base: Path) -> None:
    run = trained(data, base, data.write("val.jsonl", 20, 40))
    path = run / seen.FILE
    tensors = load_file(path)
    save_file({"paths": tensors["paths"]}, path)
    with pytest.raises(CapivaraError, match="does not hold paths, contents, captions"):
        seen.trained_on(str(run))
    path.unlink()
    with pytest.raises(CapivaraError, match="is a run without seen.safetensors"):
        seen.trained_on(str(run))
    assert seen.of_model(run) is None
