"""The flags of `demo`."""

from __future__ import annotations

from capivara_cli.data.languages import Lang
from capivara_cli.errors import BadOption
from capivara_cli.options import Machine, flag

LANGUAGES = ("hi", "pt", "xh")  # beside English


class DemoOptions(Machine):
    """What to do in the small world."""

    section = "demo"

    lang: Lang = flag("Language to teach.", default="hi", metavar="|".join(LANGUAGES))
    overwrite: bool = flag("Make everything again.", default=False)

    def check(self) -> None:
        """Raise BadOption for a language that the demo's world does not have."""
        if self.lang not in LANGUAGES:
            raise BadOption(f"--lang {self.lang}: the demo's world has {', '.join(LANGUAGES)}", "--lang hi")
