"""`help TOPIC`: the pages of docs/, which are installed with the package."""

from __future__ import annotations

import importlib.resources
import os
import sys
from importlib.resources.abc import Traversable

from capivara_cli import console


def titles() -> dict[str, str]:
    """Return the title of each page by its name: `own-images` -> `Your own images`."""
    pages = sorted(_folder().iterdir(), key=lambda page: page.name)
    return {page.name.removesuffix(".md"): _title(page) for page in pages if page.name.endswith(".md")}


def show(name: str) -> None:
    """Print a page: formatted in a terminal, as Markdown in a pipe."""
    text = (_folder() / f"{name}.md").read_text(encoding="utf-8")
    if not sys.stdout.isatty():
        console.answer(text)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    os.environ.setdefault("LESS", "-FRX")  # as git sets it: colours, and no pager for what fits on the screen
    page = Console(width=min(Console().width, 100))
    with page.pager(styles=True, links=True):
        page.print(Markdown(text))


def list_all() -> None:
    """Print the names and titles of all pages."""
    for name, title in titles().items():
        console.answer(f"{name:16} {title}")


def _folder() -> Traversable:
    return importlib.resources.files("capivara_cli.docs")


def _title(page: Traversable) -> str:
    return page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
