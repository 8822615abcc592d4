"""`capivara train` and `capivara merge-lora`."""
