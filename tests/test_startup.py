from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"torch", "transformers", "open_clip", "peft", "matplotlib", "torchvision"}

SCRIPT = """
import sys
sys.argv = ["capivara", *sys.argv[1:]]
from capivara_cli.commands import main
try:
    main()
except SystemExit as end:
    print("EXIT", end.code or 0)
print("LOADED", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["train", "--help"], 0),
        (["merge-lora", "--help"], 0),
        (["retrieve-eval", "--help"], 0),
        (["demo", "--help"], 0),
        (["train", "--lnag", "hi"], 2),
        (["train", "--lang", "hi", "--lora", "--data", "missing.jsonl"], 1),
        (["retrieve-eval", "--lang", "hi", "--data", "missing.jsonl"], 1),
        (["merge-lora", "missing", "-o", "there"], 1),
        (["import", "t.csv", "-o", "out.jsonl"], 0),
    ],
)
def test_what_needs_no_model_imports_no_torch(arguments: list[str], code: int, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("filepath,title\na.png,a dog\n")
    (tmp_path / "a.png").touch()
    line = [sys.executable, "-c", SCRIPT, *arguments]
    result = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=True)
    *_, end, loaded = result.stdout.splitlines()
    assert end == f"EXIT {code}"
    heavy = HEAVY | ({"numpy", "yaml"} if "--help" in arguments else set())
    if arguments[0] == "train":
        heavy.discard("yaml")  # its help shows what the recipe sets
    assert not heavy & set(loaded.split())


def test_all_that_python_gets_is_exported_and_imports_no_torch() -> None:
    script = "import sys, capivara_cli as c; print([getattr(c, name) for name in c.__all__] and 'LOADED', *sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not HEAVY & set(result.stdout.split())
