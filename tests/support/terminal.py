"""Processes at a terminal of their own."""

from __future__ import annotations

import sys


def at_terminal(*command: str) -> list[str]:
    """Return the command for a session of its own, at the terminal that is its standard input.

    Only there Ctrl-C is a signal.
    """
    begin = (
        "import os, sys\n"
        "os.setsid()\n"
        "os.close(os.open(os.ttyname(0), os.O_RDWR))\n"
        "os.execv(sys.argv[1], sys.argv[1:])\n"
    )
    return [sys.executable, "-IS", "-c", begin, *command]
