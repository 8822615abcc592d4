"""`capivara import`."""
