"""`capivara export`: what it writes is read back by the tools that own the format, and by `capivara import`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from capivara_cli.data import images
from capivara_cli.data.images import ImageRef
from capivara_cli.errors import CapivaraError
from capivara_cli.exporting.export import export
from capivara_cli.exporting.options import ExportOptions, Format
from capivara_cli.importing.import_data import import_data
from capivara_cli.importing.options import ImportOptions
from tests import kills
from tests.conftest import Refused
from tests.helpers import read_jsonl, write_jsonl

FOLDERS: tuple[Format, ...] = ("webdataset", "imagefolder")

ODD: list[dict[str, Any]] = [
    {"id": "a/1.x", "image": "images/1.png", "label": "dog", "votes": {"up": 3, "who": ["é", None]}, "captions": []},
    {
        "id": "कुत्ता 2",
        "image": "images/2.jpg",
        "label": 7,
        "captions": [
            {"text": 'a "dog",\n\ton; a beach', "lang": "en", "source": "human", "votes": 2},
            {"text": "an art of a dog", "lang": "en", "source": "blip2", "prefix": "an art of", "score": 0.3125},
            {"text": "समुद्र तट पर एक कुत्ता", "lang": "hi", "source": "google", "parent": 0, "score": -0.5},
            {"text": "एक कुत्ता", "lang": "hi", "parent": 1, "rejected": "score below 0.2"},
        ],
    },
    {
        "id": "3",
        "image": "images/3.webp",
        "captions": [{"text": "no, nothing", "lang": "en", "score": 1, "parent": None}],
    },
]


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Three odd records, and a hundred plain ones."""
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    for record in ODD:
        Image.new("RGB", (9, 8), (10, 20, 30)).save(str(record["image"]))
    plain = [
        {"id": f"p{n}", "image": "images/2.jpg", "captions": [{"text": f"text {n}", "lang": "en"}], "label": str(n % 3)}
        for n in range(100)
    ]
    return write("in.jsonl", [*ODD, *plain])


def write(name: str, records: list[dict[str, Any]]) -> str:
    return str(write_jsonl(Path(name), records))


def run(format: Format, source: str, output: str, **flags: Any) -> None:
    export(format, source, output, ExportOptions(**flags))


def imported(name: str, **flags: Any) -> list[dict[str, Any]]:
    """The records that `import` makes of a file or a folder."""
    import_data([name], "back.jsonl", ImportOptions(overwrite=True, **flags))
    return read_jsonl(Path("back.jsonl"))


def without_image(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records without what an export may change: the image's name, and an empty list of captions."""
    return [
        {key: value for key, value in record.items() if key != "image" and (key, value) != ("captions", [])}
        for record in records
    ]


def content(folder: str) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


# --- read back by `import`


@pytest.mark.parametrize(
    ("format", "name"), [("webdataset", "out"), ("imagefolder", "out"), ("csv", "o.csv"), ("csv", "o.tsv")]
)
def test_what_was_exported_comes_back_whole(format: Format, name: str, source: str) -> None:
    run(format, source, name, shard_size=40)
    before, after = read_jsonl(Path(source)), imported(name)
    assert without_image(after) == without_image(before)
    for old, new in zip(before, after, strict=True):
        assert images.content(ImageRef.parse(new["image"], Path.cwd())) == Path(old["image"]).read_bytes()


@pytest.mark.parametrize("format", ["webdataset", "imagefolder", "csv"])
def test_records_with_the_keys_of_other_tools_come_back_too(format: Format, source: str) -> None:
    english = {"text": "a", "lang": "en"}
    rows: list[dict[str, Any]] = [
        {"captions-hi": None, "captions": [{"text": "a", "lang": "en", "score": 0.5}]},
        {"captions-pt": ["x"], "captions": [{"text": "b", "lang": "pt"}]},
        {"text": "mine", "captions": [english]},
        {"caption": "mine", "nothing": None},
        {"captions": [english | {"text": ""}, english, {"text": "line\n" * 300, "lang": "hi", "parent": 1}]},
    ]
    rows = [{"id": str(i), "image": "images/1.png", **row} for i, row in enumerate(rows)]
    name = "out.csv" if format == "csv" else "out"
    run(format, write("odd.jsonl", rows), name)
    assert without_image(imported(name)) == without_image(rows)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(str.strip)
CAPTION = st.fixed_dictionaries(
    {"text": TEXT, "lang": st.sampled_from(["en", "hi", "pt-BR"])},
    optional={
        "source": st.text("ab, \"'\t\n", max_size=5) | st.none() | st.integers(),
        "score": st.floats(-1, 1) | st.none() | st.integers(0, 1) | st.just("0.3"),
        "parent": st.integers(0, 3),
        "prefix": TEXT,
        "x": st.none() | st.lists(st.integers()),
    },
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    captions=st.lists(CAPTION, max_size=4),
    extra=st.dictionaries(st.sampled_from(["label", "note", "title", "lang"]), TEXT | st.integers() | st.none()),
)
def test_any_record_survives_a_table(captions: list[dict[str, Any]], extra: dict[str, Any], source: str) -> None:
    record = {"id": "1", "image": "images/1.png", **extra, "captions": captions}
    run("csv", write("one.jsonl", [record]), "one.csv", overwrite=True)
    [after] = imported("one.csv", format="csv")
    assert {"captions": [], **after, "image": "images/1.png"} == record


def test_what_is_not_a_number_is_null(source: str) -> None:
    captions = [{"text": "a", "lang": "en", "source": "x", "score": float("nan")}]
    run("csv", write("nan.jsonl", [{"id": "1", "image": "images/1.png", "captions": captions}]), "nan.csv")
    assert imported("nan.csv")[0]["captions"] == [{"text": "a", "lang": "en", "source": "x", "score": None}]


def test_a_table_of_one_language_has_no_parents_in_another(source: str) -> None:
    run("csv", source, "hi.csv", lang="hi")
    captions = next(record["captions"] for record in imported("hi.csv") if record["id"] == "कुत्ता 2")
    assert [caption.get("parent") for caption in captions] == [None, None]


def test_captions_to_translate_and_back(source: str) -> None:
    run("captions.txt", source, "en.txt", lang="en")
    texts = Path("en.txt").read_text().splitlines()
    assert len(texts) == 103
    assert texts[0] == 'a "dog", on; a beach'
    Path("pt.txt").write_text("".join(f"pt: {text}\n" for text in texts))
    translated = 0
    for record in imported(source, translations=Path("pt.txt"), to="pt"):
        captions = record.get("captions", [])
        for caption in captions:
            if caption["lang"] == "pt":
                translated += 1
                assert caption["text"] == "pt: " + " ".join(captions[caption["parent"]]["text"].split())
    assert translated == 103


# --- read back by other tools: their readers leave files open, so they run in processes of their own

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

READS_FOLDER = """
import json
import datasets

rows = datasets.load_dataset("imagefolder", data_dir="folder", split="train", cache_dir="hf")
row = rows[5]
print(json.dumps({"columns": rows.column_names, **row, "image": row["image"].size}))
"""

READS_TABLE = """
import json
from open_clip_train.data import CsvDataset

rows = CsvDataset("t.tsv", lambda image: image.size, "filepath", "title", tokenizer=lambda texts: texts)
sizes, texts = zip(*(rows[i] for i in range(1, len(rows))))
print(json.dumps({"texts": len(texts), "sizes": sorted(set(sizes)), "second": texts[1]}))
"""


def answer(script: str) -> dict[str, Any]:
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    printed: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return printed


def test_webdataset_and_open_clips_loader_read_the_shards(source: str) -> None:
    run("webdataset", source, "shards", lang="en", shard_size=60, prefix="train-")
    names = ["sizes.json", "train-00000.tar", "train-00001.tar"]
    assert sorted(path.name for path in Path("shards").iterdir()) == names
    assert answer(READS_SHARDS) == {
        "ids": [record["id"] for record in read_jsonl(Path(source))],
        "text": 'a "dog",\n\ton; a beach',
        "labels": [None, 7, None, 0],
        "images": 102,  # open_clip leaves the one without a caption out
        "size": 103,
        "shape": [17, 3, 32, 32],
    }


def test_datasets_reads_the_image_folder(source: str) -> None:
    pytest.importorskip("datasets")
    run("imagefolder", write("plain.jsonl", read_jsonl(Path(source))[len(ODD) :]), "folder")
    assert answer(READS_FOLDER) == {
        "columns": ["image", "id", "text", "captions", "label"],
        "id": "p5",
        "text": "text 5",
        "image": [9, 8],
        "captions": [{"text": "text 5", "lang": "en"}],
        "label": "2",
    }


def test_open_clips_trainer_reads_the_table(source: str) -> None:
    run("csv", source, "t.tsv", lang="en")
    assert answer(READS_TABLE) == {"texts": 103, "sizes": [[9, 8]], "second": "an art of a dog"}


# --- images and names


def test_ids_of_records_are_not_names_of_files(source: str) -> None:
    ids = ["../../evil", "/etc/x"]
    write("evil.jsonl", [{"id": id_, "image": "images/1.png"} for id_ in ids])
    for folder in FOLDERS:
        run(folder, "evil.jsonl", f"deep/{folder}", prefix="x")
    written = {path.name for path in Path.cwd().rglob("*") if path.is_file() and path.parent.name != "images"}
    assert written == {"in.jsonl", "evil.jsonl", "x00000.tar", "sizes.json", "metadata.jsonl"} | {
        f"x00000000{i}.png" for i in range(2)
    }


def test_images_that_cannot_be_read_are_named(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("images/1.png").unlink()
    run("webdataset", source, "shards")
    said = capsys.readouterr().err
    assert "1 of 103 records rejected\n  a/1.x: no such file" in said
    assert "wrote shards: 102 images" in said
    with pytest.raises(CapivaraError, match=r"in\.jsonl:1: .*1\.png: no such file"):
        run("imagefolder", source, "folder", strict=True)
    assert not Path("folder").exists()


@pytest.mark.parametrize("format", FOLDERS)
@pytest.mark.parametrize("name", ["pic.json", "pic", "pic.__key__", "pic.txt"])
def test_an_image_is_known_by_its_content_and_not_by_its_name(format: Format, name: str, source: str) -> None:
    Image.new("RGB", (5, 4)).save("odd.ppm")
    Path("odd.ppm").rename(name)
    Path("secret.png").write_text("not an image: root:x:0:0")
    run(format, write("odd.jsonl", [{"id": "1", "image": name}, {"id": "2", "image": "secret.png"}]), "out")
    [record] = imported("out", verify=True)
    assert (record["id"], record["image"][-4:]) == ("1", ".ppm")


# --- what was there before


def test_standard_input_and_output(source: str) -> None:
    line = [sys.executable, "-m", "capivara_cli", "export", "csv", "-", "--lang", "hi", "-o", "-"]
    with Path(source).open() as file:
        result = subprocess.run(line, stdin=file, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    run("csv", source, "hi.csv", lang="hi")
    assert result.stdout == Path("hi.csv").read_text()
    assert "2 captions" in result.stderr
    assert not Path("-").exists()


@pytest.mark.parametrize("format", FOLDERS)
def test_overwriting_takes_nothing_away_before_the_new_export_is_complete(format: Format, source: str) -> None:
    run(format, source, "out", shard_size=20)
    before = content("out")
    gone = write("gone.jsonl", [{"id": "1", "image": "gone.png"}])
    with pytest.raises(CapivaraError, match=r"nothing was left: 1 of 1 rejected\n  1: no such file"):
        run(format, gone, "out", overwrite=True)
    with pytest.raises(CapivaraError, match="nowhere.jsonl: no such file"):
        run(format, "nowhere.jsonl", "out", overwrite=True)
    records = read_jsonl(Path(source))[:30]
    broken = write("broken.jsonl", [*records, {"id": "1", "image": "gone.png"}])
    with pytest.raises(CapivaraError, match="no such file"):
        run(format, broken, "out", overwrite=True, strict=True, shard_size=20)
    assert content("out") == before
    run(format, write("few.jsonl", records), "out", shard_size=20, overwrite=True)
    assert len(imported("out")) == 30
    assert not list(Path.cwd().glob("*partial*"))
    assert not list(Path.cwd().glob(".*"))


@pytest.mark.parametrize("format", FOLDERS)
def test_what_is_read_is_not_written(format: Format, source: str) -> None:
    run(format, source, "out", shard_size=60)
    imported("out")
    before = content("out")
    for name in ("back.jsonl", "out/{00000..00001}.tar" if format == "webdataset" else "out"):
        with pytest.raises(CapivaraError, match=r"its image is in out, which is the output"):
            run(format, name, "out", overwrite=True)
    assert content("out") == before


# --- resumed


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
    assert sorted(path.name for path in Path("out").iterdir()) == [f"0000{n}.tar" for n in range(3)] + ["sizes.json"]


SETUP = """
import rich.progress, sqlite3, webdataset
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


def test_after_any_number_of_kills_the_shards_are_those_of_an_undisturbed_run(source: str, tmp_path: Path) -> None:
    kills.survive(SETUP, tmp_path / "out", tmp_path / source, kills=15)
    assert len(list((tmp_path / "out" / "whole-shards").iterdir())) == 13


# --- as it is typed


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["csv", "in.jsonl", "-o", "full.csv"], "full.csv already exists", "--overwrite"),
        (["csv", "in.jsonl", "-o", "images", "--overwrite"], "images is a folder", "-o images/FILE"),
        (["csv", "in.jsonl", "-o", ".", "--overwrite"], ". is a folder", "-o"),
        (["csv", "in.jsonl", "-o", "new.png"], "new.png is not the name of a table", "-o FILE.csv"),
        (["imagefolder", "in.jsonl", "-o", "images", "--overwrite"], "images contains other files: 1.png", "another"),
        (["webdataset", "in.jsonl", "-o", "backup", "--overwrite"], "backup contains other files: home.tar", "another"),
        (["webdataset", "in.jsonl", "-o", "new"], "new.partial contains other files: mine.txt", "another"),
        (["webdataset", "in.jsonl", "-o", "full.csv"], "full.csv is not a folder", ""),
        (["webdataset", "in.jsonl", "-o", "-"], "a folder cannot be written to standard output", "-o FOLDER"),
        (["captions.txt", "none.jsonl", "-o", "x.txt", "--lang", "en"], "none.jsonl: no records", ""),
        (["csv", "in.jsonl", "-o", "in.jsonl", "--overwrite"], "in.jsonl is both input and output", "-o"),
        (["captions.txt", "in.jsonl", "-o", "x.txt"], "captions.txt holds one language", "--lang en"),
        (["captions.txt", "in.jsonl", "-o", "x.txt", "--lang", "xh"], "no caption in xh", ""),
        (["webdataset", "in.jsonl", "-o", "x", "--prefix", "../a"], "--prefix ../a", "train-"),
        (["csv", "gone.jsonl", "-o", "x.csv"], "gone.jsonl: no such file", ""),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: list[str], message: str, hint: str, source: str, refused: Refused
) -> None:
    Path("full.csv").write_text("mine")
    Path("none.jsonl").touch()
    for folder, name in (("backup", "home.tar"), ("new.partial", "mine.txt")):
        Path(folder).mkdir()
        (Path(folder) / name).write_text("mine")
    said = refused("export", *arguments)
    assert message in said
    assert hint in said


def test_an_unknown_format_is_named_with_the_nearest(source: str) -> None:
    with pytest.raises(CapivaraError, match="unknown format webdatset, did you mean webdataset"):
        export("webdatset", source, "x", ExportOptions())  # type: ignore[arg-type]
