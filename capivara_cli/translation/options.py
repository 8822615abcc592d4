"""The flags of `translate`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from capivara_cli.data.languages import Lang, Langs
from capivara_cli.options import Machine, Precision, Resumable, Summarised, flag
from capivara_cli.values import AutoOrCount

Backend = Literal["google", "nllb", "m2m100", "madlad", "marian"]
Engine = Literal["transformers", "ctranslate2"]


class TranslateOptions(Resumable, Summarised, Machine):
    """How to translate captions."""

    section = "translate"

    to: Langs = flag("Languages to translate to, BCP-47: hi, or hi,xh.", metavar="LANG")
    origin: Lang = flag("Language of the captions to translate.", default="en", name="--from", metavar="LANG")
    backend: Backend | None = flag(
        "What translates: Google's service, or a family of local models.",
        default=None,
        shown="google, or the family of --model",
    )
    model: str | None = flag(
        "Local translation model: hub id or folder.",
        default=None,
        metavar="MODEL",
        shown="the backend's own",
    )
    engine: Engine = flag("Library that runs a local model.", default="transformers")
    memory: Path | None = flag(
        "Translation cache file.",
        default=None,
        metavar="FILE|none",
        shown="in the cache folder",
        changes_result=False,
    )
    google_url: str | None = flag(
        "Server to ask instead of Google's; it must speak the same protocol.",
        default=None,
        metavar="HOST[:PORT]",
        changes_result=False,
    )
    concurrency: int = flag("Requests that run at the same time.", default=4, min=1, changes_result=False)
    rate: float = flag("Most requests per second.", default=5.0, above=0, changes_result=False)
    timeout: float = flag("Seconds to wait for a reply.", default=30.0, above=0, changes_result=False)
    retries: int = flag("How often a failed request is repeated.", default=6, min=0, changes_result=False)
    batch_tokens: AutoOrCount = flag(
        "Source tokens per batch of a local model.", default=None, metavar="auto|N", changes_result=False
    )
    # Unlike in other verbs, a run may be resumed with another precision: it plays no role for a service, nor for what
    # the cache holds.
    precision: Precision = flag("Numeric precision of a local model.", default="auto", changes_result=False)
