"""`capivara import`: what holds for all formats."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from capivara_cli.errors import CapivaraError
from capivara_cli.importing.formats import FORMATS
from capivara_cli.importing.import_data import import_data
from capivara_cli.importing.options import FormatName, ImportOptions
from tests import kills
from tests.conftest import Process, Refused, peak_memory
from tests.forks import Forks
from tests.sources import imported, json_lines, picture, read_lines, rejected, shard, table


def test_names_are_found_whatever_their_normal_form(folder: Path) -> None:
    picture("images/cafe\u0301.png")  # as macOS writes it
    picture("images/n\u00e3o.png")
    rows = [["images/caf\u00e9.png", "a"], ["images/na\u0303o.png", "b"]]
    records = imported(table("t.csv", ["filepath", "title"], *rows))
    assert [record["image"] for record in records] == ["images/cafe\u0301.png", "images/n\u00e3o.png"]


def test_verify_rejects_by_name_and_says_the_sizes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("images/3.png").write_bytes(Path("images/4.png").read_bytes()[:45])
    Path("images/5.png").write_text("no image")
    assert len(imported("images", verify=True)) == 8
    assert set(rejected()) == {"images/3.png", "images/5.png"}
    assert "shorter sides: 8 to 9 pixels, half of them at least 9" in capsys.readouterr().err


def test_images_of_one_content_come_once(folder: Path) -> None:
    for number in (6, 8):
        Path(f"images/{number}.png").write_bytes(Path("images/2.png").read_bytes())
    assert len(imported("images", dedupe=True)) == 8
    assert rejected() == {f"images/{number}.png": "the same image as images/2.png" for number in (6, 8)}


def test_two_records_of_one_id(folder: Path) -> None:
    json_lines("in.jsonl", *({"id": key, "image": "images/1.png"} for key in ("0", "1", "2", "1")))
    assert len(imported("in.jsonl")) == 3
    assert rejected() == {"1": "in.jsonl:4: its id is that of in.jsonl:2 too"}
    for number in (1, 2):
        shard(f"{number}.tar", {"__key__": "0", "png": Path("images/1.png").read_bytes()})
    assert [record["image"] for record in imported("{1..2}.tar")] == ["1.tar#0.png"]
    assert rejected() == {"0": "2.tar#0.png: its id is that of 1.tar#0.png too"}


def test_strict_stops_at_the_first(folder: Path) -> None:
    source = table("t.csv", ["filepath", "title"], ["images/1.png", "a"], ["gone.png", "b"])
    with pytest.raises(CapivaraError, match=r"t\.csv:3: gone\.png: no such file"):
        imported(source, strict=True)


@pytest.mark.parametrize("name", ["x\0.png", "fifo.png", "images", "/dev/zero", "s.tar#nope.png"])
@pytest.mark.parametrize("flag", [None, "dedupe", "verify"])
def test_names_of_what_is_not_an_image_file(name: str, flag: str | None, folder: Path) -> None:
    os.mkfifo("fifo.png")
    with tarfile.open("s.tar", "w") as archive:
        archive.add("images/1.png")
    json_lines("in.jsonl", {"id": "odd", "image": name}, {"id": "good", "image": "images/1.png"})
    records = imported("in.jsonl", workers=0, **({flag: True} if flag else {}))
    assert [record["id"] for record in records] == ["good"]
    assert list(rejected()) in (["odd"], ["in.jsonl:1"])


def test_languages_that_steer_the_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captions = [{"text": "a", "lang": "[/x]"}, {"text": "b", "lang": "[b]"}]
    assert len(imported(json_lines("in.jsonl", {"image": "images/1.png", "captions": captions}))) == 1
    said = capsys.readouterr().err
    assert "[/x]" in said
    assert "[b]" in said


def test_a_cache_that_cannot_be_written_costs_only_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPIVARA_CACHE", "/proc/no-cache")
    with tarfile.open("s.tar", "w") as archive:
        archive.add("images/1.png", "1.png")
    [record] = imported("s.tar", verify=True)
    assert record["image"] == "s.tar#1.png"


def test_records_that_were_edited_are_not_mixed(folder: Path) -> None:
    def write(text: str, *more: object) -> None:
        captions = [{"text": text, "lang": "en"}]
        records = ({"id": str(n), "image": "images/1.png", "captions": captions} for n in range(3000))
        json_lines("in.jsonl", *records, *more)

    write("old", {"image": "gone.png"})
    with pytest.raises(CapivaraError, match="no such file"):
        import_data(["in.jsonl"], "out.jsonl", ImportOptions(strict=True))
    write("new")
    with pytest.raises(CapivaraError, match=r"record 1 \(0, in\.jsonl:1\) has changed"):
        import_data(["in.jsonl"], "out.jsonl", ImportOptions(strict=True))


def test_every_format_can_be_named() -> None:
    assert set(get_args(FormatName)) == set(FORMATS)


def test_the_format_is_found_and_a_pipe_gets_the_records(capivara: Callable[..., Process], folder: Path) -> None:
    table("t.csv", ["filepath", "title"], ["images/1.png", "one"])
    guessed = capivara("import", "t.csv")
    named = capivara("import", "--format", "csv", "t.csv")
    assert guessed.returncode == named.returncode == 0, guessed.stderr
    line = '{"id": "images/1.png", "image": "images/1.png", "captions": [{"text": "one", "lang": "en"}]}\n'
    assert guessed.stdout == named.stdout == line
    assert "reading csv" in guessed.stderr
    assert "reading" not in named.stderr
    assert capivara("import", "--formats").stdout.startswith("folder ")
    assert capivara("import", "--format", "cocoa", "t.csv").returncode == 2


TO_PT = ["--translations", "pt.txt", "--to"]


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["t.csv", "--column", "image"], "--column image: not WHAT=COLUMN", "--column image=path"),
        (["gone.csv"], "gone.csv: no such file", ""),
        (["t.csv", "--images", "gone"], "--images gone: no such folder", "annotated"),
        (["text.csv"], "text.csv: format not recognised", "--formats"),
        (["t.csv", "--lang", "klingon"], "--lang klingon: not a language", "--languages"),
        (["t.csv", "--to", "pt"], "--translations FILE and --to LANG", ""),
        (["t.csv", "--encoding", "utf-9"], "--encoding utf-9 is not known", "latin-1"),
        (["t.csv", "--encoding", "rot13"], "--encoding rot13 is not known", "latin-1"),
        (["t.csv", "--encoding", "utf-16"], "t.csv: not utf-16", "--encoding"),
        (["t.csv", "-o", "t.csv", "--overwrite"], "t.csv is both input and output", "-o"),
        (["t.csv", "-o", "t.png"], "t.png is not the name of a file of records", "-o FILE.jsonl"),
        (["o.jsonl.rejected.jsonl", "-o", "o.jsonl"], "o.jsonl.rejected.jsonl is both input and output", "-o"),
        (["t.csv", *TO_PT, "pt", "-o", "pt.txt", "--overwrite"], "pt.txt is both input and output", "-o"),
        (["t.csv", *TO_PT, "klingon"], "--to klingon: not a language", "--languages"),
        (["t.csv", *TO_PT, "en"], "--to en: the language is the captions' own", "--to hi"),
        (["t.csv", "--split", "train"], "--split does not apply to the format csv", "--images, --column, --encoding"),
        (["t.csv", "--column", "titel=title"], "--column titel=title: titel is not a language", "label"),
        (["--format", "csv", "t.csv", "--column", "image=9"], "t.csv has no column 9", "its columns are: 1, 2"),
        (["--format", "csv", "t.csv", "--column", "image=0"], "t.csv has no column 0", "its columns are: 1, 2"),
        (["s{0..99999999999}.tar"], "names 100,000,000,000 shards", "the first and the last number"),
        (["s{5..2}.tar"], "names 0 shards", ""),
        (["cc3m.tsv"], "cc3m.tsv has addresses, no images", "--images FOLDER"),
        (["empty.csv"], "empty.csv: format not recognised", ""),
        (["t.csv", "images"], "several formats: csv, folder", "one at a time"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: list[str], message: str, hint: str, folder: Path, refused: Refused
) -> None:
    table("t.csv", ["filepath", "title"], ["images/1.png", "one"])
    Path("text.csv").write_text("just some words\nand more\n")
    Path("empty.csv").touch()
    table("cc3m.tsv", ["a dog", "https://x.org/1"], delimiter="\t")
    Path("pt.txt").write_text("um")
    json_lines("o.jsonl.rejected.jsonl", {"image": "images/1.png"})
    said = refused("import", *arguments)
    assert message in said
    assert hint in said


SETUP = """
from capivara_cli.importing import import_data as importing
importing.WINDOW = 20
options = importing.ImportOptions(images=Path(sys.argv[3]), verify=True, dedupe=True, workers=0)

def run(output, overwrite=False):
    importing.import_data([sys.argv[2]], output, options.replace(overwrite=overwrite))
"""


def test_after_any_number_of_kills_the_bytes_are_those_of_an_undisturbed_run(folder: Path, forks: Forks) -> None:
    for number in range(350):
        picture(f"many/{number}.png", number % 200)
    Path("many/133.png").write_bytes(b"no image")
    Path("many/244.png").unlink()
    source = table("t.csv", ["filepath", "title"], *([f"{n % 350}.png", f"text {n}"] for n in range(700)))
    kills.survive(forks, SETUP, folder / "out", folder / source, folder / "many")
    assert len(read_lines("out/whole.jsonl")) == 200
    reasons = {record["rejected"] for record in read_lines("out/whole.jsonl.rejected.jsonl")}
    assert {"no such file", "not an image that can be read"} <= reasons


MEMORY = """
import sys
from capivara_cli import ImportOptions, import_data
import_data([sys.argv[1]], sys.argv[2], ImportOptions())
"""


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_memory_does_not_grow_with_the_number_of_rows(kind: str, folder: Path, forks: Forks) -> None:
    """Rows of 4 kB: to hold 20,000 of them would take 80 MB."""
    peaks = []
    for count in (2000, 20_000):
        source = Path(f"{count}.{kind}")
        text, names = "word " * 800, ["images/1.png", *(f"gone-{n}.png" for n in range(1, count))]
        if kind == "csv":
            source.write_text("\n".join(["filepath,title", *(f"{name},{text}" for name in names)]))
        else:
            images = ",\n".join(f'{{"filename": "{name}", "caption": "{text}"}}' for name in names)
            source.write_text(f'{{"train": [{images}]}}')
        peaks.append(peak_memory(forks, MEMORY, source, f"{count}.out"))
    assert peaks[1] - peaks[0] < 25, f"{peaks} MB"


@pytest.mark.parametrize("content", ['filepath,title\n1.png,"one\n', "not a table\n", "filepath,title\n"])
def test_an_import_that_fails_before_it_writes_leaves_nothing(content: str, folder: Path) -> None:
    Path("t.csv").write_text(content)
    Path("kept").mkdir()
    for output in ("new/deep/out.jsonl", "kept/out.jsonl"):
        with pytest.raises(CapivaraError):
            import_data(["t.csv"], output, ImportOptions())
    assert not Path("new").exists()
    assert list(Path("kept").iterdir()) == []


def test_an_image_with_most_of_the_captions_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(10, 21):
        picture(f"images/{number}.png", number)
    rows = [[f"images/{number}.png", "text"] for number in range(21)]
    imported(table("t.csv", ["filepath", "title"], *rows, *([rows[3]] * 5)))
    assert "one image has 6 of 26 captions in en" in capsys.readouterr().err
