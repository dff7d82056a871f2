"""Ports for servers whose address is known before they begin."""

from __future__ import annotations

import secrets
import socket
from contextlib import suppress


def free_port() -> int:
    """Return a port that is free now.

    It is none of those that Linux hands out, which another process may get meanwhile.
    """
    while True:
        with suppress(OSError), socket.socket() as one:
            one.bind(("127.0.0.1", 10_000 + secrets.randbelow(22_000)))
            return int(one.getsockname()[1])
