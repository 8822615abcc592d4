from __future__ import annotations

from pathlib import Path

import pytest

from capivara_cli.errors import CapivaraError
from tests.sources import imported


def test_files_of_different_lengths_are_refused(folder: Path) -> None:
    Path("xtd").mkdir()
    Path("xtd/test_image_names.txt").write_text("1.png\n2.png\n")
    Path("xtd/test_1kcaptions_jp.txt").write_text("eins\n")
    with pytest.raises(CapivaraError, match="test_1kcaptions_jp.txt has 1 lines, test_image_names.txt has 2"):
        imported("xtd", images=Path("images"))
