"""`capivara translate`."""
