"""capivara: CLIP for languages that it hardly knows."""

__version__ = "0.1.0"
