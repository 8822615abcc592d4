"""Golden files: what the commands wrote before the refactoring, and how a new run is compared with it."""
