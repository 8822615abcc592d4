"""`capivara caption`."""
