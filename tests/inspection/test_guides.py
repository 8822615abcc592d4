from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Process

Capivara = Callable[..., Process]

DOCS = Path(__file__).parents[2] / "docs"


def test_a_guide_is_the_page_of_the_docs(capivara: Capivara) -> None:
    result = capivara("help", "own-images")
    assert result.returncode == 0, result.stderr
    assert result.stdout == (DOCS / "own-images.md").read_text(encoding="utf-8") + "\n"


def test_all_guides_are_listed_with_their_titles(capivara: Capivara) -> None:
    listed = [line.split(maxsplit=1)[0] for line in capivara("help").stdout.splitlines()]
    assert listed == sorted(path.stem for path in DOCS.glob("*.md"))


def test_help_of_a_command_is_its_help(capivara: Capivara) -> None:
    assert capivara("help", "merge-lora").stdout.split() == capivara("merge-lora", "--help").stdout.split()


def test_an_unknown_topic_is_a_usage_error_with_a_suggestion(capivara: Capivara) -> None:
    result = capivara("help", "owm-images")
    assert result.returncode == 2
    assert "no guide or command is called owm-images, did you mean own-images?" in result.stderr


@pytest.mark.parametrize("folder", ["capivara_cli", "commands"])
def test_every_page_that_a_message_names_exists(folder: str) -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (DOCS.parent / folder).rglob("*.py"))
    pages = set(re.findall(r"docs/([\w-]+)\.md", sources))
    assert pages <= {path.stem for path in DOCS.glob("*.md")}
