from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from capivara_cli import artifacts
from capivara_cli.errors import CapivaraError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_folder(path: Path, name: str, error: BaseException | None = None) -> None:
    with artifacts.writing(path) as temporary:
        temporary.mkdir()
        (temporary / name).write_text(name)
        if error is not None:
            raise error


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder with one file in it, which something is to replace."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old.bin").write_text("old")
    return tmp_path / "model"


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    with artifacts.writing(tmp_path / "deep" / "a.txt") as temporary:
        temporary.write_text("new")
        assert not (tmp_path / "deep" / "a.txt").exists()
    assert names(tmp_path / "deep") == ["a.txt"]
    assert (tmp_path / "deep" / "a.txt").read_text() == "new"


def test_a_folder_replaces_the_old_one_whole(old: Path) -> None:
    write_folder(old, "new.bin")
    assert names(old.parent) == ["model"]
    assert names(old) == ["new.bin"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("broken")])
def test_the_old_folder_stays_when_the_block_fails(error: BaseException, old: Path) -> None:
    with pytest.raises(type(error)):
        write_folder(old, "new.bin", error)
    assert names(old.parent) == ["model"]
    assert names(old) == ["old.bin"]


def test_the_old_folder_stays_when_nothing_was_written(old: Path) -> None:
    with pytest.raises(CapivaraError, match="cannot write"), artifacts.writing(old):
        pass
    assert names(old.parent) == ["model"]
    assert names(old) == ["old.bin"]


def test_a_file_does_not_replace_a_folder(old: Path) -> None:
    with pytest.raises(CapivaraError, match=r"cannot write .*model: Is a directory"):
        artifacts.write_text(old, "new")
    assert names(old.parent) == ["model"]
    assert names(old) == ["old.bin"]


def test_a_folder_does_not_replace_a_file(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("old")
    with pytest.raises(CapivaraError, match=r"cannot write .*model: Not a directory") as caught:
        write_folder(tmp_path / "model", "new.bin")
    assert caught.value.hint is not None
    assert names(tmp_path) == ["model"]
    assert (tmp_path / "model").read_text() == "old"


def test_a_file_in_place_of_a_parent_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CapivaraError, match=r"cannot write .*file/a.txt"):
        artifacts.write_text(tmp_path / "file" / "a.txt", "x")


def test_a_link_to_a_folder_stays_a_link(old: Path) -> None:
    link = old.with_name("link")
    link.symlink_to("model")
    write_folder(link, "new.bin")
    assert link.is_symlink()
    assert names(old.parent) == ["link", "model"]
    assert names(old) == ["new.bin"]


def test_a_killed_process_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    code = (
        "import os, signal; from pathlib import Path; from capivara_cli import artifacts\n"
        "with artifacts.writing(Path('a.txt')) as temporary:\n"
        "    temporary.write_text('half of the n'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)
    assert result.returncode == -signal.SIGKILL
    assert (tmp_path / "a.txt").read_text() == "old"
    assert all(name == "a.txt" or name.endswith(".tmp") for name in names(tmp_path))


def test_leftovers_of_killed_processes_are_removed_or_put_back(tmp_path: Path) -> None:
    for name in ("a.txt", ".a.txt.1.tmp", ".hidden", "b.tmp"):
        (tmp_path / name).write_text("")
    (tmp_path / ".model.1.old").mkdir()
    (tmp_path / ".model.1.old" / "old.bin").write_text("old")
    artifacts.remove_leftovers(tmp_path)
    assert names(tmp_path) == [".hidden", "a.txt", "b.tmp", "model"]
    assert names(tmp_path / "model") == ["old.bin"]  # it was moved away, and its successor never came


@pytest.mark.parametrize("writer", ["write_text(p, 'x' * 100_000)", "save_tensors(p, {'x': torch.ones(50_000)})"])
def test_a_full_disk_is_an_error_and_leaves_nothing(writer: str, tmp_path: Path) -> None:
    code = (
        "import resource, signal, torch; from pathlib import Path; from capivara_cli import artifacts, errors\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); p = Path('a')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        f"try: artifacts.{writer}\n"
        "except errors.CapivaraError as error: print(error.message)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.startswith("cannot write a: ")
    assert names(tmp_path) == []


def test_tensors_are_read_back_as_they_were(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 4).T, "b": torch.tensor(2, dtype=torch.int64), "c": torch.ones(2).bfloat16()}
    tensors["parameter"] = torch.nn.Parameter(torch.ones(2))
    artifacts.save_tensors(tmp_path / "a.safetensors", tensors)
    loaded = artifacts.load_tensors(tmp_path / "a.safetensors")
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)
        assert not loaded[name].requires_grad


def test_metadata_goes_into_the_file(tmp_path: Path) -> None:
    from safetensors import safe_open

    artifacts.save_tensors(tmp_path / "a.safetensors", {"w": torch.ones(2)}, {"step": "7"})
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata() == {"step": "7"}


@pytest.mark.parametrize("left", [None, 0, 5, 300])
def test_tensors_that_cannot_be_read_are_named(left: int | None, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    if left is not None:
        artifacts.save_tensors(path, {"w": torch.ones(1000)})
        os.truncate(path, left)
    with pytest.raises(CapivaraError, match=r"cannot read .*a\.safetensors"):
        artifacts.load_tensors(path)


def test_json_is_read_back_and_readable(tmp_path: Path) -> None:
    artifacts.write_json(tmp_path / "a.json", {"lang": "हिन्दी", "steps": [1, 2.5, None]})
    assert artifacts.read_json(tmp_path / "a.json") == {"lang": "हिन्दी", "steps": [1, 2.5, None]}
    assert '"हिन्दी"' in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_nan_is_not_written_as_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        artifacts.write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert names(tmp_path) == []


@pytest.mark.parametrize("content", [b'{"a": 1', b"", b"\xff\xfe"])
def test_a_file_that_is_not_json_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(CapivaraError, match=r"a\.json is not JSON"):
        artifacts.read_json(tmp_path / "a.json")


def test_a_missing_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(CapivaraError, match=r"cannot read .*a\.json: No such file"):
        artifacts.read_json(tmp_path / "a.json")


def test_a_fingerprint_does_not_depend_on_the_order_of_keys() -> None:
    assert artifacts.fingerprint({"a": 1, "b": 2}) == artifacts.fingerprint({"b": 2, "a": 1})


def test_fingerprints_of_different_parts_differ() -> None:
    parts: list[tuple[object, ...]] = [("ab", "c"), ("a", "bc"), ("abc",), (1,), ("1",), (1.5,), (None,), (), ([],)]
    assert len({artifacts.fingerprint(*part) for part in parts}) == len(parts)


def test_a_fingerprint_is_the_same_in_every_process() -> None:
    code = "from capivara_cli.artifacts import fingerprint; print(fingerprint('é', {'a': [1]}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == artifacts.fingerprint("é", {"a": [1]})
    assert len(result.stdout.strip()) == 32


def test_a_fingerprint_of_tensors_changes_with_names_shapes_types_and_values() -> None:
    ones = torch.ones(2, 3)
    changed = ones.clone()
    changed[1, 2] = 1 + 2**-23
    variants = [{"a": ones}, {"b": ones}, {"a": ones.T}, {"a": changed}, {"a": ones.int()}, {"a": ones, "b": ones}]
    assert len({artifacts.fingerprint_tensors(variant) for variant in variants}) == len(variants)


def test_a_fingerprint_of_tensors_does_not_depend_on_their_layout() -> None:
    a, b = torch.randn(3, 4), torch.tensor(1.5)
    again = {"b": torch.nn.Parameter(b.clone()), "a": a.T.contiguous().T}
    assert artifacts.fingerprint_tensors({"a": a, "b": b}) == artifacts.fingerprint_tensors(again)


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPIVARA_CACHE", str(tmp_path))
    assert artifacts.cache_folder() == tmp_path


def test_the_cache_is_in_the_systems_cache_folder_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAPIVARA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert artifacts.cache_folder().name == "capivara"
    assert artifacts.cache_folder().is_absolute()


def test_a_json_file_ends_with_a_newline(tmp_path: Path) -> None:
    artifacts.write_json(tmp_path / "a.json", [1])
    text = (tmp_path / "a.json").read_text()
    assert text.endswith("]\n")
    assert json.loads(text) == [1]


def test_tied_weights_and_views_can_be_saved(tmp_path: Path) -> None:
    tensor = torch.arange(6.0).reshape(2, 3)
    artifacts.save_tensors(tmp_path / "tied.safetensors", {"a": tensor, "b": tensor, "c": tensor[0], "d": tensor.T})
    read = artifacts.load_tensors(tmp_path / "tied.safetensors")
    assert read["a"].equal(tensor)
    assert read["b"].equal(tensor)
    assert read["c"].equal(tensor[0])
    assert read["d"].equal(tensor.T)


def test_a_name_that_is_not_unicode_has_a_fingerprint() -> None:
    assert artifacts.fingerprint("\udcff") != artifacts.fingerprint("\udcfe")


def test_what_is_written_is_on_the_disk_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def recorded(function: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            calls.append(function.__name__)
            function(*arguments)

        return call

    monkeypatch.setattr(os, "fsync", recorded(os.fsync))
    monkeypatch.setattr(os, "replace", recorded(os.replace))
    artifacts.write_text(tmp_path / "a.txt", "text")
    with artifacts.writing(tmp_path / "folder") as temporary:
        (temporary / "below").mkdir(parents=True)
        for name in ("a", "below/b"):
            (temporary / name).touch()
    assert calls == ["fsync", "replace", "fsync", "fsync", "replace"]
