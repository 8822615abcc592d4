"""`capivara export`."""
