"""The process that is copied for each file, so that no reader has to import its libraries."""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import suppress
from importlib import import_module

from bot.files import child

HELLO = b"[]\n"  # the first line of each copy
_IDLE_SECONDS = 300.0
_LONGEST_SECONDS = 15  # of a copy whose file is not waited for any more
_LIBRARIES = ("pypdf", "openpyxl", "defusedxml.ElementTree", "charset_normalizer")


def main() -> None:
    """Make a copy for each connection that comes over standard input, until that is closed.

    A connection is sent as a file descriptor beside one byte; its copy reads and answers there.
    """
    child.prepare()
    for name in _LIBRARIES:
        with suppress(ImportError):  # the copy says what is missing
            import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a copy
    requests = socket.socket(fileno=0)
    requests.settimeout(_IDLE_SECONDS)
    with suppress(TimeoutError):
        while True:
            _, descriptors, *_ = socket.recv_fds(requests, 1, 1)
            if not descriptors:
                return
            (connection,) = descriptors
            with suppress(OSError):  # there is no room for a copy: the connection ends at once
                if os.fork() == 0:
                    _read(connection)
            os.close(connection)


def _read(connection: int) -> None:
    """Read the file of a connection, and end."""
    try:
        os.dup2(connection, 0)
        os.dup2(connection, 1)
        os.close(connection)
        os.write(1, HELLO)
        signal.alarm(_LONGEST_SECONDS)
        child.main()
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(0)


if __name__ == "__main__":
    main()
