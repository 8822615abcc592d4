"""Runs a case, collects what it wrote as text, and compares that with what was recorded."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import re
import shlex
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, Protocol

EXPECTED = Path(__file__).parent / "expected"
REPOSITORY = Path(__file__).parents[2]

TEXTS = {".csv", ".json", ".jsonl", ".tsv", ".txt", ".yaml"}
NOT_COMPARED = {
    "README.md",
    "curves.png",
    "seen.safetensors",
}  # model cards and plots: only that they exist is compared
NOISE = ".key.bias"  # of attention: its gradient is zero, so rounding decides how Adam moves it
LARGE = {"tokenizer.json"}  # texts of which the digest is recorded
SAMPLES = 4  # values of a tensor that are recorded

# Keys whose values change from run to run, or with the versions of libraries.
CHANGING = re.compile(
    r'"(capivara|memory_gib|peft_version|samples_per_second|seconds|transformers_version)": ("[^"]*"|[^,}\s]+)'
)
VERSION = re.compile(r"\bcapivara:[^|]+\|")
# A fingerprint of trained weights: their last bits depend on the machine.
TRAINED = re.compile(r"(\|adapter:(?!none)[^|]+\|weights:)\w+")
NUMBER = re.compile(r"-?\d+\.\d+(e-?\d+)?|-?\d+e-?\d+")

SCORES = {"score", "label_score"}  # cosines
SCORE_TOLERANCE = 2e-3  # absolute
WEIGHTS = {"loss", "logit_scale", "norm", "change", "values"}
WEIGHT_TOLERANCE = 1e-3  # relative
EXACT = "GOLDEN_EXACT" in os.environ  # without tolerance: on the machine that recorded, with OMP_NUM_THREADS=1

Files = dict[str, str]  # name in the folder -> content as text


class Capivara(Protocol):
    """Runs `capivara` in a folder; the fixture of `tests/conftest.py` does."""

    def __call__(self, *arguments: str, cwd: Path, env: dict[str, str]) -> CompletedProcess[str]: ...


def run(lines: Sequence[str], inputs: Path, folder: Path, capivara: Capivara) -> Files:
    """Run a case's lines in a copy of the inputs, and return everything that they wrote.

    Raises AssertionError when a line fails.
    """
    shutil.copytree(inputs, folder, copy_function=os.link)
    printed = ""
    for line in lines:
        result = capivara(*shlex.split(line), cwd=folder, env={"CAPIVARA_CACHE": str(folder / ".cache")})
        assert result.returncode == 0, f"capivara {line}\n{result.stderr}"
        printed += result.stdout
    files = _collect(inputs, folder)
    if printed:
        files["stdout.txt"] = printed
    return {name: _normalise(text, folder) for name, text in sorted(files.items())}


def _collect(inputs: Path, folder: Path) -> Files:
    """Every file that is not an input, as text. A file with the content of an input is named and not copied."""
    known = _contents(inputs)
    files: Files = {}
    others = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or name.startswith(".cache/") or _is_link(path, inputs / name):
            continue
        digest = _digest(path.read_bytes())
        if path.name in NOT_COMPARED:
            others.append(f"{name}: not compared\n")
        elif digest in known:
            others.append(f"{name}: as {known[digest]}\n")
        elif path.suffix == ".tar":
            files[f"{name}.txt"] = "".join(f"{line}\n" for line in _members(path, known))
        elif path.suffix == ".safetensors":
            files[f"{name}.jsonl"] = "".join(f"{line}\n" for line in _tensors(path, inputs))
        elif path.suffix in TEXTS and path.name not in LARGE:
            files[name] = path.read_bytes().decode()
        else:
            others.append(f"{name}: {digest}\n")
    return files | ({"files.txt": "".join(others)} if others else {})


@functools.cache
def _contents(inputs: Path) -> dict[str, str]:
    """Digest of each input's content -> its name, the first of several."""
    paths = [path for path in sorted(inputs.rglob("*"), reverse=True) if path.is_file()]
    return {_digest(path.read_bytes()): path.relative_to(inputs).as_posix() for path in paths}


def _is_link(path: Path, original: Path) -> bool:
    """Whether the file is still the input that was linked here."""
    return original.is_file() and path.samefile(original)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _members(path: Path, known: dict[str, str]) -> Iterator[str]:
    """Describe the members of a tar: name, mode, time, owner, and the content."""
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member)
            content = file.read() if file is not None else b""
            is_text = Path(member.name).suffix in TEXTS | {".cls"}
            digest = _digest(content)
            text = content.decode() if is_text else f"as {known.get(digest, digest)}"
            yield f"{member.name} {member.mode:o} {member.mtime} {member.uname}:{member.gname} {text}"


def _tensors(path: Path, inputs: Path) -> Iterator[str]:
    """Describe each tensor in a line: its norm and some values; of a base model's, how far it went from there."""
    from safetensors.torch import load_file

    base = load_file(inputs / "models" / "base" / "open_clip_model.safetensors")
    for name, tensor in sorted(load_file(path).items()):
        values = tensor.double().flatten()
        line: dict[str, Any] = {"tensor": name, "dtype": str(tensor.dtype), "shape": list(tensor.shape)}
        change = float((values - base[name].double().flatten()).norm()) if name in base else None
        if change is not None and not name.endswith(NOISE):
            line["change"] = change
        if change != 0 and not name.endswith(NOISE):
            sample = values[:: max(len(values) // SAMPLES, 1)][:SAMPLES]
            line |= {"norm": float(values.norm()), "values": sample.tolist()}
        yield NUMBER.sub(lambda found: str(float(f"{float(found[0]):.6g}")), json.dumps(line))


def _normalise(text: str, folder: Path) -> str:
    """Replace what depends on the machine, the moment or the version."""
    text = text.replace(str(folder), "DIR").replace(str(REPOSITORY), "REPO")
    text = CHANGING.sub(r'"\1": "CHANGES"', text)
    return TRAINED.sub(r"\1CHANGES", VERSION.sub("capivara:CHANGES|", text))


def write(case: str, files: Files) -> None:
    """Record what a case wrote."""
    shutil.rmtree(EXPECTED / case, ignore_errors=True)
    for name, text in files.items():
        path = EXPECTED / case / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")


def read(case: str) -> Files:
    """Read what was recorded. Raises AssertionError when nothing was."""
    folder = EXPECTED / case
    assert folder.is_dir(), f"nothing is recorded for {case}: make golden CASES={case}"
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes().decode() for path in paths}


def differences(expected: Files, actual: Files) -> Iterator[str]:
    """Name what differs, `file:line: key: expected A, got B`."""
    for name in sorted(expected.keys() | actual.keys()):
        if name not in actual:
            yield f"{name}: was not written"
        elif name not in expected:
            yield f"{name}: was not written before"
        elif name.endswith(".json"):
            yield from _compare_texts(name, expected[name], actual[name])
        else:
            yield from _compare_lines(name, expected[name], actual[name])


def _compare_lines(name: str, before: str, now: str) -> Iterator[str]:
    one, other = before.split("\n"), now.split("\n")
    for number, lines in enumerate(zip_longest(one, other), start=1):
        yield from _compare_texts(f"{name}:{number}", *lines)


def _compare_texts(where: str, before: str | None, now: str | None) -> Iterator[str]:
    """Compare two texts; where both are JSON, by key and with a tolerance for what a model computed."""
    if before == now:
        return
    try:
        found = list(_compare_values("", json.loads(before or ""), json.loads(now or "")))
    except ValueError:
        yield f"{where}: expected {before!r}, got {now!r}"
        return
    if not found and NUMBER.sub("#", before or "") != NUMBER.sub("#", now or ""):
        found = [f"the same JSON is written differently: expected {before!r}, got {now!r}"]
    yield from (f"{where}: {each}" for each in found)


def _compare_values(key: str, before: Any, now: Any) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        if list(before) != list(now):
            yield f"{key or 'keys'}: expected {list(before)}, got {list(now)}"
        for name in (name for name in before if name in now):
            yield from _compare_values(f"{key}.{name}".lstrip("."), before[name], now[name])
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for number, pair in enumerate(zip(before, now, strict=True)):
            yield from _compare_values(f"{key}.{number}".lstrip("."), *pair)
    elif type(before) is not type(now) or not _is_close(key, before, now):
        yield f"{key}: expected {before!r}, got {now!r}"


def _is_close(key: str, before: Any, now: Any) -> bool:
    """Whether two values of a key are equal, or as close as floats of a model must be."""
    if EXACT:
        return bool(before == now)
    name = next((part for part in reversed(key.split(".")) if not part.isdecimal()), "")
    if isinstance(before, float) and name in SCORES:
        return abs(before - now) <= SCORE_TOLERANCE
    if isinstance(before, float) and name in WEIGHTS:
        return math.isclose(before, now, rel_tol=WEIGHT_TOLERANCE, abs_tol=1e-6)
    return bool(before == now)
