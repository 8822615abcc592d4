"""Windows of records: enough at once to sort or to join, few enough to hold."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Iterator

from capivara_cli.data.records import Record


def whole(own: Iterator[Record], size: int) -> Iterator[list[Record]]:
    """Whole windows, as a file's batches are."""
    while window := list(itertools.islice(own, size)):
        yield window


def ahead(own: Iterator[Record], size: int) -> Iterator[Record]:
    """Read ahead in a thread: whoever writes into our pipe need not wait while we translate."""
    for window in as_they_come(own, size):
        yield from window


def as_they_come(own: Iterator[Record], size: int) -> Iterator[list[Record]]:
    """What has come in since the last time, at least a record and at most a window; so a pipe keeps flowing."""
    ready: queue.Queue[Record | BaseException | None] = queue.Queue(4 * size)

    def read() -> None:
        try:
            for record in own:
                ready.put(record)
            ready.put(None)
        except BaseException as error:
            ready.put(error)

    threading.Thread(target=read, daemon=True).start()
    ended = False
    while not ended:
        window: list[Record] = []
        while len(window) < size and (not window or not ready.empty()):
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                ended = True
                break
            window.append(item)
        if window:
            yield window
