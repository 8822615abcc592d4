"""The one exception that a person is meant to read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

MAX_REASON = 1000  # characters of what another library says


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


class BadOption(CapivaraError):
    """A value that an option cannot take: a usage error."""

    exit_code = 2


def nearest(word: str, known: Iterable[str], *, prefix: str = "") -> str:
    """Return `, did you mean A, B?`; nothing if no known word is like this one. The prefix is put before each."""
    import difflib

    close = difflib.get_close_matches(word, list(known), n=3, cutoff=0.6)
    return f", did you mean {', '.join(prefix + name for name in close)}?" if close else ""


def first_line(error: BaseException) -> str:
    """Return the first line of another library's message; if it ends at a colon, also what it announces.

    An assertion without a message is named by what it asserts, any other such error by its class.
    """
    import traceback

    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, KeyError):
        return f"{error} is missing"
    if isinstance(error, AssertionError) and not lines:
        lines = [frame.line or "" for frame in traceback.extract_tb(error.__traceback__)[-1:]]
    text = lines.pop(0) if lines else ""
    while text.endswith(":") and lines:
        text += f" {lines.pop(0)}"
    return text or type(error).__name__


@contextmanager
def explained(
    message: str, kinds: type[Exception] | tuple[type[Exception], ...] = OSError, *, hint: str | None = None
) -> Iterator[None]:
    """Turn errors of these kinds, from Python or another library, into a CapivaraError that says `MESSAGE: REASON`."""
    try:
        yield
    except CapivaraError:
        raise
    except kinds as error:
        raise CapivaraError(f"{message}: {_reason(error)}", hint) from error


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split()).rstrip(" :")  # some libraries announce what they then do not say
    text = first_line(error) if isinstance(error, KeyError) or not text else text
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]} …"  # some repeat all of a damaged file
