"""`capivara retrieve-eval` and `capivara classify-eval`."""
