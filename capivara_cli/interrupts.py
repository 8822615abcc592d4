"""Ctrl-C and SIGTERM: the command says one line, and has ended within two seconds, with its worker processes.

A signal raises `Interrupted` in the main thread, so that temporary files are removed on the way out. Python can raise
nothing while the main thread computes or waits in a library: a thread watches, and ends the process after `GRACE`.
That loses nothing, because whatever a command writes survives even SIGKILL.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from capivara_cli import console

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE = 1.2  # seconds to leave by the exception

CLOSED_PIPE = 141  # the exit code that shells have for a process that wrote into a closed pipe: 128 + SIGPIPE

_note = ""
_deferral: _Deferral | None = None
_said = threading.Event()


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, or SIGTERM."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class _Deferral:
    """The first signal while a step must be ended in order."""

    def __init__(self, callback: Callable[[int], None]) -> None:
        self.callback = callback
        self.handled = self.watched = False  # by the main thread, and by the thread that watches


def note(text: str) -> None:
    """Set what is said if the command is interrupted from now on: what is kept, and how to resume."""
    global _note
    _note = text


@contextmanager
def deferred(callback: Callable[[int], None]) -> Iterator[None]:
    """Call a function with the first signal's number instead of ending. A second signal ends the command at once.

    Works in programs that use our functions too, where `handled` was not called.
    """
    global _deferral
    with _handlers():
        _deferral = _Deferral(callback)
        try:
            yield
        finally:
            _deferral = None


@contextmanager
def handled() -> Iterator[None]:
    """Run a command so that a signal ends it as this module says, and a closed pipe silently."""
    note("unfinished files were removed, complete ones are kept; run the same command again")
    _said.clear()
    with _handlers(), _watched():
        try:
            yield
        except BaseException as error:
            # What arrives may be another exception than what was raised: typer makes exits of both, with codes of its
            # own, and torch raises one because its workers were killed.
            reasons = list(_chain(error))
            if any(isinstance(reason, KeyboardInterrupt) for reason in reasons):
                end(next((reason.number for reason in reasons if isinstance(reason, Interrupted)), signal.SIGINT))
            if any(isinstance(reason, BrokenPipeError) for reason in reasons):
                end_now(CLOSED_PIPE)
            raise


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and those that it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@contextmanager
def _handlers() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # Python lets only the main thread set handlers
        yield
        return
    # A shell starts background jobs with SIGINT ignored: that stays.
    previous = {n: signal.getsignal(n) for n in SIGNALS if signal.getsignal(n) is not signal.SIG_IGN}
    for number in previous:
        signal.signal(number, _handle)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _handle(number: int, _frame: object) -> None:
    if _deferral is not None and not _deferral.handled:
        _deferral.handled = True
        _deferral.callback(number)
        return
    raise Interrupted(number)


@contextmanager
def _watched() -> Iterator[None]:
    """Run the thread that gets the numbers of signals at once, whatever the main thread does."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    owner = os.getpid()

    def watch() -> None:
        while numbers := os.read(reader, 1):
            if numbers[0] not in SIGNALS or signal.getsignal(numbers[0]) is not _handle:
                continue
            if _deferral is not None and not _deferral.watched:
                _deferral.watched = True
                continue
            time.sleep(GRACE)
            end(numbers[0])
        os.close(reader)

    def leave_to_parent() -> None:  # a forked worker: its parent ends it
        if os.getpid() != owner:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    os.register_at_fork(after_in_child=leave_to_parent)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)


def end(number: int) -> NoReturn:
    """End this process and its workers now, with the exit code that shells have for a signal."""
    if not _said.is_set():
        _said.set()
        with suppress(Exception):  # for example, standard error is a closed pipe
            if sys.stderr.isatty():
                sys.stderr.write("\r\033[K\033[?25h")  # a bar that was not cleared, and the cursor that it hid
            console.say(f"interrupted: {_note}")
    end_now(128 + number)


def end_now(code: int) -> NoReturn:
    """Exit without waiting for threads; worker processes are killed, who would notice only after seconds."""
    if "multiprocessing" in sys.modules:
        import multiprocessing

        children = multiprocessing.active_children()
        for child in children:
            child.kill()
        for child in children:
            child.join(0.3)  # until it has ended: a shell may start the next command at once
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code)
