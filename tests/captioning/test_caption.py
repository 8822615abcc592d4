"""`capivara caption` as it is typed."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from capivara_cli.captioning.blip2 import Blip2
from capivara_cli.captioning.caption import caption
from capivara_cli.captioning.options import CaptionOptions
from capivara_cli.console import clean
from capivara_cli.errors import CapivaraError
from tests import kills, small_models
from tests.conftest import Process, Refused, peak_memory
from tests.forks import Forks
from tests.helpers import read_jsonl, write_jsonl

Capivara = Callable[..., Process]
Run = Callable[..., Path]


@pytest.fixture(scope="session")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BLIP-2 with random weights that says different things."""
    return small_models.blip2(tmp_path_factory.mktemp("captioners") / "talker")


@pytest.fixture
def run(talker: Path, tmp_path: Path) -> Run:
    """Caption with four new tokens, unless the options say otherwise; return the output's path."""
    fixed: dict[str, Any] = {"model": str(talker), "max_new_tokens": 4}

    def call(source: str | Path, output: str = "out.jsonl", **others: Any) -> Path:
        caption([source], tmp_path / output, CaptionOptions(**fixed | others))
        return tmp_path / output

    return call


@pytest.fixture(scope="session")
def photos(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 images in two folders."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(24):
        path = folder / ("a" if number % 2 else "b") / f"{number:02d}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((world / "images" / f"train-{number:05d}.png").read_bytes())
    return folder


@pytest.fixture(scope="session")
def captioned(talker: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photos' records with captions of four new tokens."""
    path = tmp_path_factory.mktemp("captioned") / "out.jsonl"
    caption([photos], path, CaptionOptions(model=str(talker), max_new_tokens=4))
    return path


def records_of(photos: Path, count: int) -> list[dict[str, str]]:
    paths = sorted(photos.rglob("*.png"))[:count]
    return [{"id": str(number), "image": str(path)} for number, path in enumerate(paths)]


def test_a_folder_becomes_records_with_a_caption_for_each_prefix(
    capivara: Capivara, talker: Path, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "photos").symlink_to(photos)
    result = capivara("caption", "photos", "-o", "out/photos.jsonl", "--model", talker, "--max-new-tokens", 5)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    records = read_jsonl(tmp_path / "out" / "photos.jsonl")
    assert [record["id"] for record in records] == [
        *(f"photos/a/{number:02d}.png" for number in range(1, 24, 2)),
        *(f"photos/b/{number:02d}.png" for number in range(0, 24, 2)),
    ]
    assert records[0]["image"] == "../photos/a/01.png"
    assert len(records[0]["captions"]) == 10
    for new in records[0]["captions"]:
        assert new["text"].startswith(new["prefix"])
        assert new["text"] != new["prefix"]
        assert (new["lang"], new["source"]) == ("en", str(talker))
        assert "  " not in new["text"]
        assert "</s>" not in new["text"]
    assert "24 images in out/photos.jsonl, 10.0 captions per image" in result.stderr
    assert clean(records[0]["captions"][-1]["text"])[:20] in result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["photos.jsonl"]


def test_records_keep_all_that_they_have_and_a_pipe_gets_the_same(
    capivara: Capivara, talker: Path, photos: Path, tmp_path: Path
) -> None:
    human = {"text": "a human said so", "lang": "en", "source": "human", "votes": 3}
    record = {"file_name": "b/00.png", "taken": {"year": 1999}, "captions": [human]}
    (photos / "metadata.jsonl").write_text(json.dumps(record) + "\n")
    flags = ["--model", str(talker), "--max-new-tokens", "4", "--prefixes", "none"]
    try:
        result = capivara("caption", photos, *flags)
    finally:
        (photos / "metadata.jsonl").unlink()
    piped = capivara("caption", "-", *flags, cwd=photos, stdin=json.dumps(record))
    got, from_pipe = json.loads(result.stdout), json.loads(piped.stdout)
    assert got["taken"] == {"year": 1999}
    assert got["captions"][0] == human
    assert len(got["captions"]) == 2
    assert "prefix" not in got["captions"][1]
    assert (tmp_path / got["file_name"]).samefile(photos / "b" / "00.png")
    assert from_pipe["captions"] == got["captions"]
    assert from_pipe["file_name"] == "b/00.png"


def test_a_caption_that_already_exists_is_not_added_again(run: Run, captioned: Path) -> None:
    assert read_jsonl(run(captioned)) == read_jsonl(captioned)


def test_a_caption_that_was_rejected_is_not_added_again(run: Run, captioned: Path) -> None:
    records = read_jsonl(captioned)
    for record in records:
        record["captions"][0]["rejected"] = "score below 0.2"
    again = read_jsonl(run(write_jsonl(captioned.with_name("marked.jsonl"), records)))
    assert [record["captions"] for record in again] == [record["captions"] for record in records]


def test_shards_and_a_brace_pattern(run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for shard in range(2):
        with tarfile.open(tmp_path / f"{shard:02d}.tar", "w") as archive:
            for number in range(shard, 6, 2):
                archive.add(photos / "b" / f"{2 * number:02d}.png", f"key{number}.png")
    monkeypatch.chdir(tmp_path)
    records = read_jsonl(run("{00..01}.tar"))
    assert [record["id"] for record in records] == ["key0", "key2", "key4", "key1", "key3", "key5"]
    assert records[0]["image"] == "00.tar#key0.png"
    assert len(read_jsonl(run("out.jsonl", "again.jsonl"))) == 6  # it can be read again


def write_mixed_images(folder: Path) -> None:
    """Write images of all kinds, and three files that are not images."""
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    image = Image.fromarray(noise)
    image.save(folder / "photo.jpg")
    image.convert("RGBA").save(folder / "alpha.png")
    image.convert("P").save(folder / "palette.png")
    Image.fromarray(noise[..., 0].astype(np.uint16) * 257).save(folder / "16bit.png")
    image.convert("CMYK").save(folder / "cmyk.jpg")
    image.save(folder / "web.webp")
    image.save(folder / "moving.gif", save_all=True, append_images=[image.rotate(90)])
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(folder / "turned.jpg", exif=exif)
    image.convert("L").save(folder / "grey.tif")
    Image.fromarray(noise[:1]).save(folder / "line.png")
    content = (folder / "photo.jpg").read_bytes()
    (folder / "torn.jpg").write_bytes(content[: len(content) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("no image at all")


def test_every_kind_of_image_is_described_or_rejected_by_name(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_mixed_images(tmp_path / "mixed")
    monkeypatch.chdir(tmp_path)
    assert len(read_jsonl(run("mixed"))) == 10
    reasons = {record["id"]: record["rejected"] for record in read_jsonl(tmp_path / "out.jsonl.rejected.jsonl")}
    assert set(reasons) == {"mixed/empty.png", "mixed/text.jpg", "mixed/torn.jpg"}
    assert "truncated" in reasons["mixed/torn.jpg"]
    said = capsys.readouterr().err
    assert "3 of 13 records rejected" in said
    assert "mixed/text.jpg: not an image" in said
    # Rejected records are a source again once the images are repaired.
    (tmp_path / "mixed" / "torn.jpg").write_bytes((tmp_path / "mixed" / "photo.jpg").read_bytes())
    (repaired,) = read_jsonl(run("out.jsonl.rejected.jsonl", "more.jsonl"))
    assert repaired["id"] == "mixed/torn.jpg"
    assert "rejected" not in repaired


def test_strict_stops_at_the_first_and_the_run_is_resumed(
    run: Run, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = records_of(photos, 7)
    records[4] = {"id": "bad", "image": "missing.png"}
    source = write_jsonl(tmp_path / "in.jsonl", records)
    with pytest.raises(CapivaraError, match=r"in\.jsonl:5: .*missing\.png: no such file"):
        run(source, batch_size=2, strict=True)
    assert not (tmp_path / "out.jsonl").exists()
    assert len((tmp_path / "out.jsonl.partial").read_text().splitlines()) == 4
    (tmp_path / "missing.png").write_bytes(Path(records[0]["image"]).read_bytes())
    assert len(read_jsonl(run(source, batch_size=2, strict=True))) == 7
    assert "resuming after 4 records" in capsys.readouterr().err


SETUP = """
from capivara_cli import CaptionOptions, caption

def run(output, overwrite=False):
    options = CaptionOptions(model=sys.argv[2], max_new_tokens=4, batch_size=3, overwrite=overwrite)
    caption([sys.argv[3]], output, options)
"""


def test_after_any_number_of_kills_the_bytes_are_those_of_an_undisturbed_run(
    forks: Forks, talker: Path, photos: Path, tmp_path: Path
) -> None:
    records = [record | {"id": f"{turn}-{record['id']}"} for turn in range(2) for record in records_of(photos, 24)]
    for number in (5, 20, 21, 45):
        records[number]["image"] = "missing.png"
    source = write_jsonl(tmp_path / "in.jsonl", records)
    kills.survive(forks, SETUP, tmp_path / "out", talker, source)
    assert len(read_jsonl(tmp_path / "out" / "whole.jsonl.rejected.jsonl")) == 4


def test_other_settings_and_other_records_are_refused_by_name(run: Run, photos: Path, tmp_path: Path) -> None:
    records = [*records_of(photos, 4), {"id": "bad", "image": "missing.png"}]
    source = write_jsonl(tmp_path / "in.jsonl", records)
    strict = partial(run, source, batch_size=2, strict=True)
    with pytest.raises(CapivaraError, match="no such file"):
        strict()
    with pytest.raises(CapivaraError, match="--max-new-tokens 4, now 5; --num-beams 1, now 2"):
        strict(max_new_tokens=5, num_beams=2)
    write_jsonl(source, records[1:])
    with pytest.raises(CapivaraError, match="record 1 was 0, now 1"):
        strict()


def test_two_ranks_write_what_one_writes(forks: Forks, run: Run, talker: Path, photos: Path, tmp_path: Path) -> None:
    records = records_of(photos, 23)
    records[7]["image"] = "missing.png"
    source = write_jsonl(tmp_path / "in.jsonl", records)
    flags = ["caption", "in.jsonl", "--model", str(talker), "--max-new-tokens", "4", "--batch-size", "3"]
    result = forks.run_ranks([*flags, "-o", "two.jsonl"], tmp_path)
    assert result.returncode == 0, result.stderr
    run(source, "one.jsonl", batch_size=3)
    for end in ("", ".rejected.jsonl"):
        assert (tmp_path / f"two.jsonl{end}").read_bytes() == (tmp_path / f"one.jsonl{end}").read_bytes()
    assert not list(tmp_path.glob("*partial*"))


MEMORY = """
import sys
from capivara_cli import CaptionOptions, caption
options = CaptionOptions(model=sys.argv[3], prefixes="none", max_new_tokens=1, batch_size=20)
caption([sys.argv[1]], sys.argv[2], options)
"""


def test_memory_does_not_grow_with_the_number_of_records(
    forks: Forks, talker: Path, photos: Path, tmp_path: Path
) -> None:
    """Each record carries 100 kB: to hold 600 of them would take 60 MB."""
    peaks = []
    record = {"image": str(photos / "b" / "00.png"), "note": "x" * 100_000}
    for count in (60, 600):
        source = write_jsonl(tmp_path / f"{count}.jsonl", ({"id": str(i), **record} for i in range(count)))
        peaks.append(peak_memory(forks, MEMORY, source, tmp_path / f"{count}.out", talker))
        assert len(read_jsonl(tmp_path / f"{count}.out")) == count
    assert peaks[1] - peaks[0] < 20, f"{peaks} MB"


def test_out_of_memory_halves_the_batch_and_changes_nothing(
    run: Run, photos: Path, captioned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe = Blip2.captions

    def with_little_memory(self: Blip2, images: Any) -> list[list[str]]:
        if len(images) > 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        return describe(self, images)

    monkeypatch.setattr(Blip2, "captions", with_little_memory)
    assert run(photos, batch_size=8).read_bytes() == captioned.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["empty", "-o", "out.jsonl"], "empty: no images in it", ".jpg"),
        (["nowhere", "-o", "out.jsonl"], "nowhere: no such file", ""),
        (["a.png", "gone.png"], "gone.png: no such file", ""),
        (["a.png", "a.png"], "the id a.png is also that of a.png", "needs its own id"),
        (["a.png", "-o", "old.jsonl"], "old.jsonl already exists", "--overwrite"),
        (["old.jsonl", "-o", "old.jsonl", "--overwrite"], "old.jsonl is both input and output", "-o"),
        (["a.png", "-o", "empty"], "empty is a folder", "-o empty/FILE"),
        (["a.png", "--batch-size", "many"], "--batch-size many", ""),
        (["a.png", "--prefixes", "gone.yaml"], "cannot read gone.yaml", "none"),
        (["a.png", "--lang", "hi"], "no prefixes for hi", "--prefixes FILE"),
        (["a.png", "--model", "nowhere"], "nowhere: no such folder", "--model FOLDER"),
        (["bad.jsonl"], "bad.jsonl:2: no `image`", "docs/data.md"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: list[str], message: str, hint: str, refused: Refused, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "old.jsonl").write_text('{"id": "a", "image": "a.png"}\n')
    (tmp_path / "bad.jsonl").write_text('{"image": "a.png"}\n{"id": 7}\n')
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    said = refused("caption", *arguments)
    assert message in said
    assert hint in said


def test_if_no_image_can_be_used_it_is_an_error_and_no_file_is_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_text("no image")
    with pytest.raises(CapivaraError, match="nothing was left: 1 of 1 rejected"):
        run(tmp_path / "bad.jpg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jpg", "out.jsonl.rejected.jsonl"]


def test_batch_size_and_workers_change_nothing(run: Run, photos: Path, captioned: Path) -> None:
    assert run(photos, batch_size=5, workers=2).read_bytes() == captioned.read_bytes()
