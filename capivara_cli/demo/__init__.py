"""The demo: a small closed world in which the whole job runs for real."""

from __future__ import annotations

from pathlib import Path

BASE = Path(__file__).parent / "base"
"""The base model that is shipped: a CLIP that knows the world in English and hardly in other languages."""

TEST_IMAGES = 500
