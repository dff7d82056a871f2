"""The way out of the process: in order while there is time, and in time whatever hangs."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

LEAVE_SECONDS = 24  # after the first signal, of the 25 in which the process must be gone


class ShutdownSignals:
    """What the first SIGTERM or SIGINT leads to; any further one changes nothing.

    The process then ends with `status`: at once while nobody has asked to be told, and after
    LEAVE_SECONDS whatever it is doing. That is 0 for what `serves` until it is told to stop; what
    is broken off before its end says by which signal, as a shell does.
    """

    def __init__(self, *, serves: bool) -> None:
        self.status = 0
        self._serves = serves
        self._tell: Callable[[], object] | None = None
        self._told = False

    def heed(self) -> None:
        """Take the signals over, from now on."""
        if sys.platform != "win32":
            signal.signal(signal.SIGALRM, self._vanish)
        # Python itself catches SIGINT: whoever sees SIGTERM caught may send either.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._hear)

    def ask(self, tell: Callable[[], object]) -> None:
        """Have this called at the first signal, between any two steps of the main thread."""
        self._tell = tell

    def _hear(self, number: int, _: object) -> None:
        if self._told:
            return
        self._told = True
        self.status = 0 if self._serves else 128 + number
        if self._tell is None:
            self._vanish()
        # A timer's thread would want locks that whoever is interrupted here may hold.
        if sys.platform != "win32":
            signal.alarm(LEAVE_SECONDS)
        self._tell()

    def _vanish(self, *_: object) -> NoReturn:
        # Not even what was said is flushed: that may be what hangs.
        os._exit(self.status)


def leave(status: int) -> NoReturn:
    """End the process, whose work is done, with this status.

    Python's own way out waits for every thread, and one that asks a resolver which is away takes
    its time: `asyncio.Runner.close` waits for the default executor and the interpreter for its
    threads (Python 3.11), and libuv for those that look names up (run, uvloop 0.23).
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
