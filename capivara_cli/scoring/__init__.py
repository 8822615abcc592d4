"""Score captions with CLIP, and select the good ones: `capivara score`."""
