"""Ends the process: in order if there is time, and by force if something hangs."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

EXIT_SECONDS = 24  # after the first signal; docs/deploying.md promises an end within 25


class ShutdownSignals:
    """Handles the first SIGTERM or SIGINT and ignores all further ones.

    Without a callback the first signal ends the process at once; with one, `exit_seconds` later at
    the latest. The exit status is then `status`: 0 if the process `serves` until a signal, else
    128 plus the signal, as in a shell.
    """

    def __init__(self, *, serves: bool, exit_seconds: int = EXIT_SECONDS) -> None:
        self.status = 0
        self._serves = serves
        self._exit_seconds = exit_seconds
        self._callback: Callable[[], object] | None = None
        self._received = False

    def install(self) -> None:
        """Install the signal handlers."""
        if sys.platform != "win32":
            signal.signal(signal.SIGALRM, self._exit)
        # Python itself catches SIGINT: a sender that sees SIGTERM caught may send either.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)

    def on_first(self, callback: Callable[[], object]) -> None:
        """Call `callback` at the first signal, between any two steps of the main thread."""
        self._callback = callback

    def _receive(self, number: int, _: object) -> None:
        if self._received:
            return
        self._received = True
        self.status = 0 if self._serves else 128 + number
        if self._callback is None:
            self._exit()
        # A timer thread would need locks that the interrupted code may hold.
        if sys.platform != "win32":
            signal.alarm(self._exit_seconds)
        self._callback()

    def _exit(self, *_: object) -> NoReturn:
        # Nothing is flushed, because flushing may hang.
        os._exit(self.status)


def exit_process(status: int) -> NoReturn:
    """Flush the output and end the process without waiting for its threads.

    A normal exit waits for all threads, and a name look-up can take minutes if the resolver is
    away: `asyncio.Runner.close` waits for the default executor, the interpreter for its threads
    (Python 3.11), and libuv for its look-up threads (run, uvloop 0.23).
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
