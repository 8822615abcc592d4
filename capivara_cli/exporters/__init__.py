"""The forms that records are exported in."""
