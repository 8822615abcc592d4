"""The demo: a small closed world in which the whole job runs for real."""
