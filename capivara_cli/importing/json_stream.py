"""Large JSON files, element by element."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from capivara_cli.errors import CapivaraError

CHUNK = 1 << 20  # characters


class _Text:
    """A file's text from a place on: more is read when it is wanted, and what was used is forgotten."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open(encoding="utf-8-sig")
        self._text = ""
        self._at = 0
        self._line = 1
        self._decode = json.JSONDecoder().raw_decode

    def close(self) -> None:
        self._file.close()

    def _more(self) -> bool:
        chunk = self._file.read(
            max(CHUNK, len(self._text) - self._at)
        )  # twice as much: a long value is not read in vain
        self._line += self._text.count("\n", 0, self._at)
        self._text, self._at = self._text[self._at :] + chunk, 0
        return bool(chunk)

    def peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def take(self, wanted: str) -> bool:
        """Pass over the character if it is the next one."""
        if self.peek() == wanted:
            self._at += 1
            return True
        return False

    def need(self, wanted: str) -> None:
        """Pass over the character. Raises CapivaraError when another one stands there."""
        if not self.take(wanted):
            raise self.error(f"{wanted} is missing" if self.peek() else "cut short")

    def value(self) -> Any:
        """The next value, whole."""
        self.peek()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except ValueError as error:
                if not self._more():
                    raise self.error(str(error).partition(":")[0]) from error
                continue
            except RecursionError as error:
                raise self.error("nested too deep") from error
            # A number that is cut, `0.` or `1e`, reads as a whole one: what follows must be there, and end it.
            if (end == len(self._text) or self._text[end] not in " \t\r\n,:]}") and self._more():
                continue
            self._at = end
            return value

    def error(self, what: str) -> CapivaraError:
        """What is wrong, with the line."""
        line = self._line + self._text.count("\n", 0, self._at)
        return CapivaraError(f"{self.path}:{line}: not JSON: {what}")


def elements(path: Path) -> Iterator[tuple[str, Any]]:
    """Elements of each list of the object that the file is, with the list's key; other values with theirs.

    `{"images": [a, b], "info": c}` gives ("images", a), ("images", b), ("info", c); the elements of a file that is a
    list have the key "". Memory is that of the largest element.

    Raises CapivaraError for what is not JSON, with the line.
    """
    try:
        text = _Text(path)
    except OSError as error:
        raise CapivaraError(f"cannot read {path}: {error.strerror}") from error
    try:
        if text.peek() == "[":
            yield from (("", element) for element in _list(text))
            return
        text.need("{")
        if text.take("}"):
            return
        while True:
            key = text.value()
            if not isinstance(key, str):
                raise text.error("a key is no text")
            text.need(":")
            if text.peek() == "[":
                yield from ((key, element) for element in _list(text))
            else:
                yield key, text.value()
            if text.take("}"):
                return
            text.need(",")
    except UnicodeDecodeError as error:
        raise CapivaraError(f"{path} is not UTF-8 text: {error.reason}", "iconv -t UTF-8 converts it") from error
    finally:
        text.close()


def _list(text: _Text) -> Iterator[Any]:
    text.need("[")
    if text.take("]"):
        return
    while True:
        yield text.value()
        if text.take("]"):
            return
        text.need(",")
