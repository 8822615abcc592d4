"""docs/python.md is run as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "python.md"


@pytest.mark.slow
def test_the_whole_job_runs_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    notebook: dict[str, Any] = {}
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)):
        exec(compile(block, f"{PAGE.name}, block {number}", "exec"), notebook)
    assert notebook["first"].texts("hi")
    assert notebook["gain"] > 0.1
    assert (notebook["longer"].max_steps, notebook["options"].max_steps) == (200, 30)
    assert capsys.readouterr().out == "--num-beams 0: must be at least 1\n"
