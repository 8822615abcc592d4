from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from capivara_cli import artifacts, folders
from capivara_cli.errors import CapivaraError
from capivara_cli.folders import FolderKind

KIND = FolderKind("run", r"a\.txt|sub/b\.txt", required=("a.txt",))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that we made, in the working folder."""
    path = tmp_path / "work" / "made"
    (path / "sub").mkdir(parents=True)
    (path / "a.txt").write_text("a")
    (path / "sub" / "b.txt").write_text("b")
    monkeypatch.chdir(path.parent)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return Path("made")


@pytest.mark.parametrize("marked", [False, True])
def test_our_own_folder_may_be_replaced(folder: Path, marked: bool) -> None:
    if marked:
        (folder / "a.txt").unlink()  # as a run that was killed at its start
        folders.mark(folder, KIND)
    (folder / "sub" / ".b.txt.17.tmp").touch()
    (folder / f".{folders.MARKER}.17.tmp").touch()
    folders.check_replaceable(folder, KIND)
    folders.remove(folder, KIND)
    assert not folder.exists()


def test_what_a_folder_had_when_it_was_marked_is_ours_too(folder: Path) -> None:
    (folder / "vocabulary").touch()
    folders.mark(folder, KIND)
    folders.check_replaceable(folder, KIND)


@pytest.mark.parametrize("name", ["thesis.tex", "sub/photo.jpg", "sub/a.txt", "other/a.txt", ".hidden"])
@pytest.mark.parametrize("marked", [False, True])
def test_a_file_that_is_not_ours_is_named_and_stays(folder: Path, name: str, marked: bool) -> None:
    if marked:
        folders.mark(folder, KIND)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("years of work")
    with pytest.raises(CapivaraError) as error:
        folders.check_replaceable(folder, KIND)
    assert error.value.message.endswith(f"not those of a run: {name}")
    folders.remove(folder, KIND)  # if it came after the check
    assert [path for path in folder.rglob("*") if path.is_file()] == [folder / name]


@pytest.mark.parametrize("check", [folders.check_kind, folders.check_replaceable])
def test_a_folder_of_another_kind_is_not_replaced(folder: Path, check: Callable[..., None]) -> None:
    folders.mark(folder, KIND._replace(name="merged model"))
    with pytest.raises(CapivaraError, match="made is a merged model, not a run"):
        check(folder, KIND)


def test_a_marked_folder_within_ours_is_not_ours_but_where_the_kind_says_so(folder: Path) -> None:
    (folder / "sub" / "weights").touch()
    folders.mark(folder / "sub", KIND._replace(name="merged model"))
    folders.mark(folder, KIND)
    folders.check_replaceable(folder, KIND._replace(marked=("sub",)))
    with pytest.raises(CapivaraError, match=r"not those of a run: sub/.capivara.json, sub/weights$"):
        folders.check_replaceable(folder, KIND)
    folders.remove(folder, KIND)
    assert (folder / "sub" / "weights").is_file()


@pytest.mark.parametrize("text", ["", "{", '["run"]'])
def test_a_marker_that_says_nothing_counts_as_none(folder: Path, text: str) -> None:
    (folder / "sub" / "b.txt").rename("b.txt")
    for path in (folder / ".capivara.json", Path("empty/.capivara.json")):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    folders.check_replaceable(Path("empty"), KIND)  # a process was killed before it wrote the marker's content
    folders.check_replaceable(folder, KIND)
    with pytest.raises(CapivaraError, match="not a run that capivara wrote"):
        folders.check_replaceable(folder, KIND._replace(required=("b.txt",)))


def test_a_folder_without_a_marker_must_have_our_card(folder: Path) -> None:
    kind = KIND._replace(files=r".*", required=("README.md",), card="made with capivara")
    (folder / "README.md").write_text("# Somebody's model")
    with pytest.raises(CapivaraError, match="not a run that capivara wrote"):
        folders.check_replaceable(folder, kind)
    (folder / "README.md").write_text("# Ours\n\nmade with capivara 0.1")
    folders.check_replaceable(folder, kind)


def test_a_link_to_a_folder_in_our_folder_is_not_ours(folder: Path, tmp_path: Path) -> None:
    (folder / "link").symlink_to(tmp_path)
    with pytest.raises(CapivaraError, match="not those of a run: link"):
        folders.check_replaceable(folder, KIND)


def test_a_folder_without_a_marker_must_have_what_we_always_write(folder: Path) -> None:
    (folder / "a.txt").unlink()
    with pytest.raises(CapivaraError, match="not a run that capivara wrote"):
        folders.check_replaceable(folder, KIND)


@pytest.mark.parametrize("name", [".", "..", "/", "~", "~/..", "data", "data/.."])
def test_a_folder_in_use_or_above_one_is_always_refused(folder: Path, name: str) -> None:
    (folder / "data" / "images").mkdir(parents=True)
    os.chdir(folder)
    path = Path(name).expanduser()
    folders.mark(path, KIND) if name == "data" else None
    with pytest.raises(CapivaraError, match="never replaced"):
        folders.check_replaceable(path, KIND, reads=[Path("data/images/1.jpg"), Path("data/a.jsonl")])


def test_a_new_or_an_empty_folder_is_no_problem(folder: Path) -> None:
    Path("empty").mkdir()
    for name in ("empty", "new/deep"):
        folders.check_replaceable(Path(name), KIND)
    with pytest.raises(CapivaraError, match="is not a folder"):
        folders.check_replaceable(folder / "a.txt", KIND)


REPLACE = """
import os, signal, sys
from pathlib import Path
from capivara_cli import artifacts

if sys.argv[1] == "without":
    artifacts._exchange = lambda *_: False
rename, calls = os.replace, []
def replace(*names):
    calls.append(names)
    rename(*names)
    if len(calls) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = replace
artifacts.shutil.rmtree = lambda path: os.kill(os.getpid(), signal.SIGKILL)
with artifacts.writing(Path("made")) as temporary:
    temporary.mkdir()
    (temporary / "new.txt").touch()
"""


@pytest.mark.parametrize(("exchange", "step"), [("with", 0), ("without", 1), ("without", 2)])
def test_a_folder_is_never_lost_when_its_replacement_is_killed(folder: Path, exchange: str, step: int) -> None:
    """In one step where the system can; else the old one is put back, or the new one is complete."""
    result = subprocess.run([sys.executable, "-c", REPLACE, exchange, str(step)], check=False)
    assert result.returncode == -signal.SIGKILL
    assert folder.is_dir() or step == 1
    artifacts.remove_stale(folder)
    assert [path.name for path in Path().iterdir()] == ["made"]
    assert (folder / "a.txt").is_file() == (step == 1)
    assert (folder / "new.txt").is_file() == (step != 1)
