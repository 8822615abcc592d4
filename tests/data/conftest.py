from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.resumable_runs import both, run


@pytest.fixture
def whole(tmp_path: Path) -> tuple[bytes, bytes]:
    """The two files of a run that was not disturbed."""
    run(tmp_path / "whole.jsonl")
    return both(tmp_path / "whole.jsonl")
