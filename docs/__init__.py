"""The guides, which are installed with the package: `capivara help` shows them."""
