"""Every hint that names a command: the command is typed as the hint has it, and works."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from capivara_cli.demo import CAPTIONER, TRANSLATOR
from tests.conftest import FLAGS, Process
from tests.helpers import read_jsonl, write_jsonl

Capivara = Callable[..., Process]

COMMAND = re.compile(r"capivara [a-z-]+ .*?(?= (?:makes|lists|shows|describes|reads) |[;,`]|$)")

# What the hint names -> a line that leads to it, and flags that make what it names fit on this machine.
CASES: dict[str, tuple[list[str], list[str]]] = {
    "translate in.jsonl --to hi -o FILE.jsonl": (
        ["score", "in.jsonl", "--lang", "hi", "--scored"],
        ["--model", str(TRANSLATOR)],
    ),
    "import table.csv -o FILE.jsonl": (["caption", "table.csv", "--model", str(CAPTIONER)], []),
    "translate --languages": (["translate", "in.jsonl", "--to", "hindy"], []),
    "caption bare.jsonl -o FILE.jsonl": (
        ["translate", "bare.jsonl", "--to", "hi", "--memory", "none"],
        ["--model", str(CAPTIONER), "--prefixes", "none", "--max-new-tokens", "4"],
    ),
    "train --lang pt --lora --data FILE.jsonl": (["train", "--lora", "--data", "FILE.jsonl"], FLAGS),
    "train --data FILE.jsonl --lang hi --lora": (["merge-lora", "runs/none", "-o", "x"], FLAGS),
    "import --formats": (["import", "notes.txt"], []),
    "import --format karpathy 'my captions.json'": (["import", "--format", "coco", "my captions.json"], []),
    "translate classes.yaml --to pt -o FILE.yaml": (
        ["classify-eval", "--data", "labelled.jsonl", "--classes", "classes.yaml", "--lang", "pt"],
        ["--model", str(TRANSLATOR)],
    ),
    "classify-eval --list": (["classify-eval", "--data", "labelled.jsonl", "--classes", "none", "--lang", "en"], []),
}
# Printed or run by other tests: the demo's, those of the command line, and of `cache`.
ELSEWHERE = {"demo DIR", "train --lang hi --lora", "demo FOLDER"}


@pytest.fixture
def files(world: Path, base: Path, tmp_path: Path) -> None:
    image = str(world / "images" / "train-00000.png")
    text = "a small red star on a white background"
    record = {"id": "1", "image": image}
    write_jsonl(tmp_path / "in.jsonl", [record | {"captions": [{"text": text, "lang": "en", "score": 0.5}]}])
    write_jsonl(tmp_path / "bare.jsonl", [record])
    write_jsonl(tmp_path / "labelled.jsonl", [record | {"label": "star"}])
    (tmp_path / "classes.yaml").write_text(json.dumps({"labels": ["star"], "names": {"en": {"star": text}}}))
    (tmp_path / "table.csv").write_text(f"filepath,title\n{image},{text}\n")
    (tmp_path / "notes.txt").write_text("something\n")
    sentences = [{"raw": text}]
    karpathy = {"images": [{"filename": image, "sentences": sentences, "split": "test"}]}
    (tmp_path / "my captions.json").write_text(json.dumps(karpathy))
    rows = read_jsonl(world / "train.jsonl")
    write_jsonl(tmp_path / "FILE.jsonl", ({**row, "image": str(world / row["image"])} for row in rows))
    (tmp_path / "capivara.yaml").write_text(json.dumps({"model": {"name": f"local-dir:{base}"}}))


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("command", CASES)
def test_a_command_in_a_hint_works_as_it_is_typed(command: str, capivara: Capivara, tmp_path: Path) -> None:
    line, flags = CASES[command]
    refused = capivara(*line)
    assert refused.returncode != 0
    hint = next(text for text in refused.stderr.splitlines() if text.startswith("hint: "))
    named = COMMAND.search(hint)
    assert named is not None
    assert named[0] == f"capivara {command}"
    if "-o FILE.jsonl" in command:
        (tmp_path / "FILE.jsonl").unlink()
    result = capivara(*shlex.split(command), *flags)
    assert result.returncode == 0, result.stderr


def _texts(node: ast.AST) -> Iterator[str]:
    """Yield the texts below a node, `{}` for what is put into them."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in inner.values)
        elif isinstance(inner, ast.Constant) and isinstance(inner.value, str):
            yield inner.value


def test_every_command_in_a_hint_is_tested() -> None:
    """Hints are the second argument of an error, or a constant that is one."""
    commands: set[str] = set()
    for path in Path("capivara_cli").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_error = isinstance(node, ast.Call) and getattr(node.func, "id", "").endswith(("Error", "Option"))
            nodes = node.args[1:] if is_error and isinstance(node, ast.Call) else []
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant | ast.JoinedStr):
                nodes = [node.value]
            commands |= {match[0] for part in nodes for text in _texts(part) for match in COMMAND.finditer(text)}
    assert len(commands) >= len(CASES) - 1
    tested = [f"capivara {command}" for command in (*CASES, *ELSEWHERE)]
    for command in commands:
        pattern = re.escape(command).replace(r"\{\}", ".*")
        assert any(re.match(pattern, line) for line in tested), f"no test types {command}"
