"""The demo's captioner, as it is shipped."""

from __future__ import annotations

from capivara_cli.demo import CAPTIONER
from capivara_cli.demo.captioner import exactness


def test_held_out_scenes_are_described_exactly() -> None:
    exact, words = exactness(CAPTIONER, count=200)
    assert exact > 0.95
    assert words > 0.98


def test_it_is_small() -> None:
    assert (CAPTIONER / "model.safetensors").stat().st_size <= 4_000_000
