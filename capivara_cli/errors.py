"""The one exception that a person is meant to read."""

from __future__ import annotations

from collections.abc import Iterable


class CapivaraError(Exception):
    """Something that the user can put right.

    Args:
        message: what is wrong, with the value and where it stands (`file.jsonl:17`).
        hint: the next thing to type.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def nearest(word: str, known: Iterable[str], *, prefix: str = "") -> str:
    """Return `, did you mean A, B?`; nothing if no known word is like this one. The prefix is put before each."""
    import difflib

    close = difflib.get_close_matches(word, list(known), n=3, cutoff=0.6)
    return f", did you mean {', '.join(prefix + name for name in close)}?" if close else ""


def first_line(error: BaseException) -> str:
    """Return the first line of another library's message that is not blank; the error's class if there is none."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
