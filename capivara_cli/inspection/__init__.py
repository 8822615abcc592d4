"""See what capivara keeps on this machine."""
