from tests.sources import folder

__all__ = ["folder"]
