"""`capivara score`."""
