"""`capivara export`: what it writes is read back by the tools that own the form, and by `capivara import`."""

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

from capivara_cli.errors import CapivaraError
from capivara_cli.exporting.export import export
from capivara_cli.importing.import_data import import_data
from tests import kills
from tests.conftest import Refused

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
    Path("in.jsonl").write_text("".join(json.dumps(record) + "\n" for record in [*ODD, *plain]))
    return "in.jsonl"


def lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").split("\n") if line]


def without_image(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in record.items() if key != "image" and not (key == "captions" and not value)}
        for record in found
    ]


@pytest.mark.parametrize(
    ("form", "name"), [("webdataset", "out"), ("imagefolder", "out"), ("csv", "o.csv"), ("csv", "o.tsv")]
)
def test_what_was_exported_comes_back_whole(form: str, name: str, source: str) -> None:
    export(form, source, Path(name), shard_size=40)
    import_data([name], Path("back.jsonl"))
    back = lines("back.jsonl")
    assert without_image(back) == without_image(lines(source))
    from capivara_cli.data import images
    from capivara_cli.data.images import ImageRef

    for before, after in zip(lines(source), back, strict=True):
        assert images.content(ImageRef.parse(after["image"], Path.cwd())) == Path(before["image"]).read_bytes()


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
    Path("one.jsonl").write_text(json.dumps(record))
    export("csv", "one.jsonl", Path("one.csv"), overwrite=True)
    import_data(["one.csv"], Path("back.jsonl"), format="csv", overwrite=True)
    [back] = lines("back.jsonl")
    assert back.get("captions", []) == captions
    assert {key: value for key, value in back.items() if key not in ("id", "image", "captions")} == extra


# Other tools' readers leave files open, which would be warnings here: they run in processes of their own.
READS_SHARDS = """
import json, sys
import open_clip, webdataset
from open_clip_train.data import get_dataset_size, get_wds_dataset

pattern = "shards/train-{00000..00001}.tar"
read = list(webdataset.WebDataset(pattern, shardshuffle=False).decode("pil"))
assert read[2]["webp"].size == (9, 8)

class Arguments:
    val_data, val_num_samples = pattern, None  # sizes.json says it
    dataset_resampled = distributed = False
    batch_size, workers, world_size, seed = 17, 1, 1, 0

tokenizer = open_clip.get_tokenizer("ViT-B-32")
info = get_wds_dataset(Arguments(), open_clip.image_transform(32, is_train=False), is_train=False, tokenizer=tokenizer)
batches = list(info.dataloader)
print(json.dumps({
    "ids": [sample["json"]["id"] for sample in read],
    "text": read[1]["txt"],
    "labels": [sample.get("cls") for sample in read[:4]],
    "images": sum(len(images) for images, _ in batches),
    "size": get_dataset_size(pattern)[0],
    "shape": list(batches[0][0].shape),
}))
"""

READS_FOLDER = """
import json
import datasets

found = datasets.load_dataset("imagefolder", data_dir="folder", split="train", cache_dir="hf")
print(json.dumps({
    "columns": found.column_names,
    "text": found[5]["text"],
    "size": found[5]["image"].size,
    "captions": found[5]["captions"],
}))
"""


def answer(script: str) -> dict[str, Any]:
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def test_webdataset_and_open_clips_loader_read_the_shards(source: str) -> None:
    export("webdataset", source, Path("shards"), lang="en", shard_size=60, prefix="train-")
    names = ["sizes.json", "train-00000.tar", "train-00001.tar"]
    assert sorted(path.name for path in Path("shards").iterdir()) == names
    assert answer(READS_SHARDS) == {
        "ids": [record["id"] for record in lines(source)],
        "text": 'a "dog",\n\ton; a beach',
        "labels": [None, 7, None, 0],
        "images": 102,  # open_clip leaves the one without a caption out
        "size": 103,
        "shape": [17, 3, 32, 32],
    }


def test_datasets_reads_the_image_folder(source: str) -> None:
    pytest.importorskip("datasets")
    plain = [record for record in lines(source) if record["id"].startswith("p")]
    Path("plain.jsonl").write_text("".join(json.dumps(record) + "\n" for record in plain))
    export("imagefolder", "plain.jsonl", Path("folder"))
    assert answer(READS_FOLDER) == {
        "columns": ["image", "id", "text", "captions", "label"],
        "text": "text 5",
        "size": [9, 8],
        "captions": [{"text": "text 5", "lang": "en"}],
    }


READS_TABLE = """
import json
from open_clip_train.data import CsvDataset

found = CsvDataset("t.tsv", lambda image: image.size, "filepath", "title", tokenizer=lambda texts: texts)
sizes, texts = zip(*(found[i] for i in range(1, len(found))))
print(json.dumps({"texts": len(texts), "sizes": sorted(set(sizes)), "second": texts[1]}))
"""


def test_open_clips_trainer_reads_the_table(source: str) -> None:
    export("csv", source, Path("t.tsv"), lang="en")
    assert answer(READS_TABLE) == {"texts": 103, "sizes": [[9, 8]], "second": "an art of a dog"}


def test_one_language_of_a_table_keeps_its_parents_right(source: str) -> None:
    export("csv", source, Path("hi.csv"), lang="hi")
    import_data(["hi.csv"], Path("back.jsonl"))
    back = next(record for record in lines("back.jsonl") if record["id"] == "कुत्ता 2")
    assert [caption.get("parent") for caption in back["captions"]] == [None, None]


def test_captions_to_translate_and_back(source: str) -> None:
    export("captions.txt", source, Path("en.txt"), lang="en")
    texts = Path("en.txt").read_text().splitlines()
    assert len(texts) == 103
    assert texts[0] == 'a "dog", on; a beach'
    Path("pt.txt").write_text("".join(f"pt: {text}\n" for text in texts))
    import_data([source], Path("back.jsonl"), translations=Path("pt.txt"), to="pt")
    made = []
    for record in lines("back.jsonl"):
        captions = record.get("captions", [])
        for caption in captions:
            if caption["lang"] == "pt":
                made.append(caption)
                assert caption["text"] == "pt: " + " ".join(captions[caption["parent"]]["text"].split())
    assert len(made) == 103


def test_names_of_records_lead_nowhere(source: str) -> None:
    Path("evil.jsonl").write_text(
        json.dumps({"id": "../../evil", "image": "images/1.png"})
        + "\n"
        + json.dumps({"id": "/etc/x", "image": "images/2.jpg"})
    )
    for form in ("webdataset", "imagefolder"):
        export(form, "evil.jsonl", Path("deep") / form, prefix="x")
    written = [path for path in Path.cwd().rglob("*") if path.is_file() and path.parent.name != "images"]
    assert all("evil" not in path.name or path.name == "evil.jsonl" for path in written)


def test_images_that_cannot_be_read_are_named(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("images/1.png").unlink()
    export("webdataset", source, Path("shards"))
    said = capsys.readouterr().err
    assert "1 images left out\n  a/1.x: no such file" in said
    assert "wrote shards: 102 images" in said
    with pytest.raises(CapivaraError, match=r"in\.jsonl:1: .*1\.png: no such file"):
        export("imagefolder", source, Path("folder"), strict=True)
    assert not Path("folder").exists()


def write(name: str, found: list[dict[str, Any]]) -> str:
    Path(name).write_text("".join(json.dumps(record) + "\n" for record in found))
    return name


def test_standard_input(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Path(source).open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        export("captions.txt", "-", Path("en.txt"), lang="en")
    assert len(Path("en.txt").read_text().splitlines()) == 103


def test_standard_output(source: str, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "capivara_cli", "export", "csv", source, "--lang", "hi", "-o", "-"]
    result = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    export("csv", source, Path("hi.csv"), lang="hi")
    assert result.stdout == Path("hi.csv").read_text()
    assert "2 captions" in result.stderr
    assert not Path("-").exists()


@pytest.mark.parametrize("form", ["webdataset", "imagefolder"])
def test_overwriting_takes_nothing_away_before_the_new_one_is_sure(form: str, source: str) -> None:
    out = Path("out")
    export(form, source, out, shard_size=20)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    gone = write("gone.jsonl", [{"id": "1", "image": "gone.png"}])
    with pytest.raises(CapivaraError, match=r"nothing was left: 1 images left out\n  1: no such file"):
        export(form, gone, out, overwrite=True)
    with pytest.raises(CapivaraError, match="nowhere.jsonl: no such file"):
        export(form, "nowhere.jsonl", out, overwrite=True)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    few = write("few.jsonl", lines(source)[:30])
    export(form, few, out, shard_size=20, overwrite=True)
    import_data(["out"], Path("back.jsonl"))
    assert len(lines("back.jsonl")) == 30


@pytest.mark.parametrize("form", ["webdataset", "imagefolder"])
def test_what_is_read_is_not_written(form: str, source: str) -> None:
    export(form, source, Path("out"), shard_size=60)
    import_data(["out"], Path("back.jsonl"))
    before = sorted(Path("out").rglob("*"))
    with pytest.raises(CapivaraError, match=r"back\.jsonl:1: its image is in out, which is written"):
        export(form, "back.jsonl", Path("out"), overwrite=True)
    inside = "out/{00000..00001}.tar" if form == "webdataset" else "out"
    with pytest.raises(CapivaraError, match="out is read and cannot be written too"):
        export(form, inside, Path("out"), overwrite=True)
    assert sorted(Path("out").rglob("*")) == before


def test_shards_are_not_gone_on_with_when_the_records_have_changed(source: str) -> None:
    records = [*lines(source)[:30], {"id": "gone", "image": "gone.png"}]
    write("some.jsonl", records)
    with pytest.raises(CapivaraError, match="no such file"):
        export("webdataset", "some.jsonl", Path("out"), shard_size=10, strict=True)
    assert sorted(path.name for path in Path("out").glob("*.tar")) == ["00000.tar", "00001.tar", "00002.tar"]
    write("some.jsonl", records[1:30])
    with pytest.raises(CapivaraError, match="out was begun with other records"):
        export("webdataset", "some.jsonl", Path("out"), shard_size=10)
    write("some.jsonl", [*records[:30], records[0] | {"id": "new"}])
    export("webdataset", "some.jsonl", Path("out"), shard_size=10)
    assert json.loads(Path("out/sizes.json").read_text()) == {
        f"{n:05d}.tar": size for n, size in enumerate([10, 10, 10, 1])
    }


@pytest.mark.parametrize("form", ["webdataset", "imagefolder"])
@pytest.mark.parametrize("name", ["pic.json", "pic", "pic.__key__", "pic.txt"])
def test_an_image_is_known_by_its_content_and_not_by_its_name(form: str, name: str, source: str) -> None:
    Image.new("RGB", (5, 4)).save("odd.ppm")
    Path("odd.ppm").rename(name)
    Path("secret.png").write_text("no image: root:x:0:0")
    found = [{"id": "1", "image": name}, {"id": "2", "image": "secret.png"}]
    export(form, write("odd.jsonl", found), Path("out"))
    import_data(["out"], Path("back.jsonl"), verify=True)
    [record] = lines("back.jsonl")
    assert (record["id"], record["image"][-4:]) == ("1", ".ppm")


@pytest.mark.parametrize("form", ["webdataset", "imagefolder", "csv"])
def test_odd_records_come_back_too(form: str, source: str) -> None:
    found: list[dict[str, Any]] = [
        {
            "id": "1",
            "image": "images/1.png",
            "captions-hi": None,
            "captions": [{"text": "a", "lang": "en", "score": 0.5}],
        },
        {"id": "2", "image": "images/1.png", "captions-pt": ["x"], "captions": [{"text": "b", "lang": "pt"}]},
        {"id": "3", "image": "images/1.png", "text": "mine", "captions": [{"text": "a", "lang": "en"}]},
        {"id": "4", "image": "images/1.png", "caption": "mine", "nothing": None},
        {
            "id": "5",
            "image": "images/1.png",
            "captions": [
                {"text": "", "lang": "en"},
                {"text": "b", "lang": "en"},
                {"text": "line\n" * 300, "lang": "hi", "parent": 1},
            ],
        },
    ]
    export(form, write("odd.jsonl", found), Path("out.csv" if form == "csv" else "out"))
    import_data(["out.csv" if form == "csv" else "out"], Path("back.jsonl"))
    assert without_image(lines("back.jsonl")) == without_image(found)


def test_what_is_no_number_is_null(source: str) -> None:
    found = [
        {
            "id": "1",
            "image": "images/1.png",
            "captions": [{"text": "a", "lang": "en", "source": "x", "score": float("nan")}],
        }
    ]
    export("csv", write("nan.jsonl", found), Path("nan.csv"))
    import_data(["nan.csv"], Path("back.jsonl"))
    assert lines("back.jsonl")[0]["captions"] == [{"text": "a", "lang": "en", "source": "x", "score": None}]


SETUP = """
import rich.progress, sqlite3, webdataset
from capivara_cli.exporting.export import export

def run(output):
    shards = folder / f"{output.stem}-shards"
    if (shards / "export.json").exists() or not (shards / "sizes.json").exists():
        export("webdataset", sys.argv[2], shards, shard_size=9)
    # The bytes of all shards, for the comparison.
    temporary = folder / f"{output.stem}.part"
    temporary.write_bytes(b"".join(path.read_bytes() for path in sorted(shards.iterdir())))
    temporary.rename(output)
"""


def test_after_any_number_of_kills_the_shards_are_those_of_an_undisturbed_run(source: str, tmp_path: Path) -> None:
    kills.survive(SETUP, tmp_path / "out", tmp_path / source, kills=15)
    assert len(list((tmp_path / "out" / "whole-shards").iterdir())) == 13


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (
            ["webdatset", "in.jsonl", "-o", "x"],
            "the format webdatset is not known, did you mean webdataset",
            "imagefolder",
        ),
        (["csv", "in.jsonl", "-o", "full.csv"], "full.csv is there already", "--overwrite"),
        (["csv", "in.jsonl", "-o", "images", "--overwrite"], "images is a folder", "-o images/FILE"),
        (["csv", "in.jsonl", "-o", ".", "--overwrite"], ". is read and cannot be written", ""),
        (["csv", "in.jsonl", "-o", "new.png"], "new.png is not the name of a table", "-o FILE.csv"),
        (["imagefolder", "in.jsonl", "-o", "images", "--overwrite"], "images holds something else: 1.png", "another"),
        (["webdataset", "in.jsonl", "-o", "backup", "--overwrite"], "backup holds something else: home.tar", "another"),
        (["webdataset", "in.jsonl", "-o", "full.csv"], "full.csv is no folder", ""),
        (["webdataset", "in.jsonl", "-o", "-"], "a folder cannot be written to standard output", "-o FOLDER"),
        (["captions.txt", "none.jsonl", "-o", "x.txt", "--lang", "en"], "none.jsonl: no records", ""),
        (["csv", "in.jsonl", "-o", "in.jsonl", "--overwrite"], "in.jsonl is read", "-o"),
        (["captions.txt", "in.jsonl", "-o", "x.txt"], "captions.txt is of one language", "--lang en"),
        (["captions.txt", "in.jsonl", "-o", "x.txt", "--lang", "xh"], "no caption in xh", ""),
        (["webdataset", "in.jsonl", "-o", "x", "--prefix", "../a"], "--prefix ../a", "train-"),
        (["webdataset", "in.jsonl", "-o", "x", "--shard-size", "0"], "--shard-size 0: at least 1", ""),
        (["csv", "gone.jsonl", "-o", "x.csv"], "gone.jsonl: no such file", ""),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: list[str], message: str, hint: str, source: str, refused: Refused
) -> None:
    Path("full.csv").write_text("mine")
    Path("none.jsonl").touch()
    Path("backup").mkdir()
    Path("backup/home.tar").write_text("mine")
    said = refused("export", *arguments)
    assert message in said
    assert hint in said
