"""The flags of `demo`."""

from __future__ import annotations

from typing import Literal

from capivara_cli.options import Machine, flag


class DemoOptions(Machine):
    """What to do in the small world."""

    section = "demo"

    lang: Literal["hi", "pt", "xh"] = flag("Language to teach.", default="hi")
    overwrite: bool = flag("Make everything again.", default=False)
