"""The package as `pip install .` gives it: all files are in the wheel, and its commands run away from the sources."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
FOLDERS = {"capivara_cli": "capivara_cli"} | {name: f"capivara_cli/{name}" for name in ("commands", "configs", "docs")}
NOT_INSTALLED = {"__pycache__", "tools"}  # docs/tools makes pages of docs/


def python(*arguments: str | Path) -> None:
    result = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that is built from the source distribution that is built from a copy of the sources."""
    folder = tmp_path_factory.mktemp("build")
    sources = folder / "sources"
    for name in FOLDERS:
        shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("LICENSE", "README.md", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, sources)
    python("-m", "build", "--no-isolation", "--outdir", folder / "dist", sources)
    [path] = (folder / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of a virtual environment with the wheel, and the dependencies of the one that runs the tests."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(folder, symlinks=True)
    python("-m", "pip", "--python", folder, "install", "--quiet", "--no-deps", "--no-index", wheel)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    # A folder that a .pth file names has its own .pth files ignored, and with them the editable installation.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin" / "capivara"


def test_the_wheel_has_every_file_of_the_sources_and_no_other(wheel: Path) -> None:
    expected = {
        f"{target}/{path.relative_to(ROOT / name).as_posix()}"
        for name, target in FOLDERS.items()
        for path in (ROOT / name).rglob("*")
        if path.is_file() and NOT_INSTALLED.isdisjoint(path.parts)
    }
    names = zipfile.ZipFile(wheel).namelist()
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert {name.partition("/")[0] for name in names} == {
        "capivara_cli",
        "-".join(wheel.name.split("-")[:2]) + ".dist-info",
    }


def test_the_installed_commands_read_and_write_data(installed: Path, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "dog.png")
    (tmp_path / "data.csv").write_text("image,caption,lang\ndog.png,a dog,en\ndog.png,um cachorro,pt\n")
    for line in ("import data.csv -o data.jsonl", "export csv data.jsonl -o again.csv"):
        result = subprocess.run([installed, *line.split()], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
    lines = (tmp_path / "again.csv").read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[:3] for line in lines[1:]] == [["dog.png", "a dog", "en"], ["dog.png", "um cachorro", "pt"]]


def test_the_installed_package_is_not_the_sources(installed: Path, tmp_path: Path) -> None:
    code = "import capivara_cli, capivara_cli.commands, capivara_cli.configs as configs; print(configs.__file__)"
    result = subprocess.run(
        [installed.with_name("python"), "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert Path(result.stdout.strip()).is_relative_to(installed.parents[1])
