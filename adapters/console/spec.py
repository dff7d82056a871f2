"""The terminal, as a process sees it."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from bot.platform_spec import Connected, PlatformSpec, Process
from config.settings import PlatformSettings


@dataclass(frozen=True, slots=True)
class ConsoleSettings(PlatformSettings):
    """The terminal has no variables of its own."""

    name: ClassVar[str] = "console"


@asynccontextmanager
async def _connect(process: Process) -> AsyncIterator[Connected]:
    from adapters.console.terminal import listen
    from adapters.live import LivePlatform

    hears = partial(listen, process, stdin=sys.stdin, stdout=sys.stdout)
    remembers = process.settings.remembers
    platform = LivePlatform("console", store=process.store, remembers=remembers)
    yield Connected(platform, hears if "console" in process.roles else None)


def has_stdin() -> bool:
    """Whether standard input is a terminal, a pipe or a file; services get the null device."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):
        return False
    return sys.stdin.isatty() or not stat.S_ISCHR(mode)


PLATFORM = PlatformSpec(
    title="The terminal",
    where="a terminal",
    settings=ConsoleSettings,
    connect=_connect,
    own_names=(":console:local:{id}:",),
    local=True,
    in_terminal=True,
    served_alone=has_stdin,
)
