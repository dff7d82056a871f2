"""The terminal as a platform: any worker answers, through its thread's stream."""

from __future__ import annotations

import importlib.util
import io
import os
import sys
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TextIO
from uuid import uuid4

from adapters.console.plain import PlainConversation
from adapters.console.talk import ConsoleConversation
from adapters.live import LiveSurface
from bot.domain import ContextMessage, Purpose, Turn
from bot.intake.intake import Intake
from bot.store import Store

_WINDOW_PACKAGES = ("prompt_toolkit", "rich", "markdown_it")  # requirements-terminal.txt
_HISTORY = "terminal_history"


class ConsolePlatform:
    """The terminal; `surface` works in any process, `listen` in the one with the terminal.

    If `stdin` is a terminal, it must be `sys.stdin`. Answers that take longer than `patience`
    seconds are abandoned; it must exceed the reply timeout. With `remembers`, the input history is
    stored in `data_dir`.
    """

    name = "console"

    def __init__(
        self,
        *,
        store: Store,
        banner: str,
        notices: Sequence[str] = (),
        patience: float,
        data_dir: Path,
        stdin: TextIO,
        stdout: TextIO,
        remembers: bool = True,
    ) -> None:
        self._store = store
        self._banner, self._notices = banner, notices  # shown when it begins to listen
        self._patience = patience
        self._history = data_dir / _HISTORY if remembers else None
        self._remembers = remembers
        self._stdin = stdin
        self._stdout = stdout

    @asynccontextmanager
    async def surface(
        self, turn: Turn, purpose: Purpose = Purpose.ANSWER
    ) -> AsyncGenerator[LiveSurface]:
        """Open the surface of a turn's reply; all purposes share it."""
        yield LiveSurface(store=self._store, turn=turn, remembers=self._remembers)

    async def read_context(self, turn: Turn, *, since: str, most: int) -> Sequence[ContextMessage]:
        """Return nothing: a thread has one person, and the history is complete."""
        return ()

    async def orphaned_messages(self, turn: Turn, *, but: Collection[str]) -> Sequence[str]:
        """Return nothing: page ids are derived from page numbers, so none can be orphaned."""
        return ()

    async def listen(self, intake: Intake) -> None:
        """Read questions and print answers until the end of the input or `/quit`."""
        for stream in (self._stdin, self._stdout):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")
        # Windows has no termios: lines are read as from a pipe.
        at_terminal = self._stdin.isatty() and sys.platform != "win32"
        # At a terminal, each start continues the same thread.
        thread = "terminal" if at_terminal else uuid4().hex
        banner = "\n".join((self._banner, *self._notices))
        talk = ConsoleConversation(intake=intake, store=self._store, thread=thread)
        if at_terminal and self._stdout.isatty() and _has_window():
            from adapters.console.window import Window

            await Window(
                talk=talk,
                banner=banner,
                patience=self._patience,
                history=self._history,
            ).run()
        else:
            await self._converse_plainly(talk, banner if at_terminal else None)

    async def _converse_plainly(self, talk: ConsoleConversation, banner: str | None) -> None:
        plain = PlainConversation(
            talk=talk, patience=self._patience, stdin=self._stdin, stdout=self._stdout
        )
        try:
            await (plain.in_pipe() if banner is None else plain.at_terminal(banner))
        except EOFError:
            await plain.print("\n")
        except BrokenPipeError:
            # The reader is gone. Flushing the buffer at exit would fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stdout.fileno())


def _has_window() -> bool:
    """Whether the packages of the window are installed, and the terminal can move its cursor."""
    if any(importlib.util.find_spec(each) is None for each in _WINDOW_PACKAGES):
        return False
    from prompt_toolkit.utils import is_dumb_terminal

    return not is_dumb_terminal()
