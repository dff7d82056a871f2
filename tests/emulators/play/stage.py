"""What stands on the output and comes from the input: plain lines of a pipe, or a live terminal."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TextIO

from prompt_toolkit import PromptSession
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from rich.console import Console
from rich.text import Text

from bot.text.sanitize import strip_controls


class PlainStage:
    """Prints each new state of each message, for other programs and for files."""

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._shown: Mapping[str, str] = {}
        self._signs: Sequence[str] = ()

    async def lines(self, source: int) -> AsyncGenerator[str]:
        """Yield the lines of a file descriptor."""
        loop = asyncio.get_running_loop()
        lines: asyncio.Queue[str | None] = asyncio.Queue()

        def read() -> None:
            with open(source, encoding="utf-8", errors="replace", closefd=False) as text:
                for line in text:
                    loop.call_soon_threadsafe(lines.put_nowait, line.rstrip("\n"))
                loop.call_soon_threadsafe(lines.put_nowait, None)

        def read_while_needed() -> None:
            # A terminal that is gone is an end, and the loop may have ended meanwhile.
            with suppress(OSError, RuntimeError):
                read()

        # A file cannot be waited for in the loop; no process waits for a daemon at its end.
        threading.Thread(target=read_while_needed, name="input", daemon=True).start()
        while (line := await lines.get()) is not None:
            yield line

    def note(self, text: str) -> None:
        """Print something that is no message."""
        self._output.write(f"{_clean(text)}\n")
        self._output.flush()

    def show(self, messages: Mapping[str, str], signs: Sequence[str], prompt: str) -> None:
        """Show these messages, each text with a key that stays, and what is going on below."""
        for text in _news(messages, self._shown):
            self.note(text)
        for sign in signs:
            if sign not in self._signs:
                self.note(sign)
        self._shown, self._signs = messages, signs

    def forget(self) -> None:
        """Let all messages be new."""
        self._shown, self._signs = {}, ()

    def leave(self) -> None:
        """End; all stands there already."""


class LiveStage:
    """Draws what is new above the line that is being typed, in place until a line is entered.

    What scrolled out of the terminal cannot be drawn again, so of long news only the end is shown
    until then.
    """

    def __init__(self) -> None:
        self._messages: Mapping[str, str] = {}
        self._settled: Mapping[str, str] = {}
        self._signs: Sequence[str] = ()
        self._prompt = ""
        self._entered: asyncio.Queue[str | None] = asyncio.Queue()
        self._session: PromptSession[str] = PromptSession(
            self._above, key_bindings=self._keys(), erase_when_done=True
        )

    async def lines(self, source: int) -> AsyncGenerator[str]:
        """Yield the lines of the terminal until Ctrl-C or Ctrl-D; they may be typed ahead."""
        del source
        typing = asyncio.create_task(self._read())
        try:
            while (line := await self._entered.get()) is not None:
                yield line
        finally:
            typing.cancel()
            await asyncio.gather(typing, return_exceptions=True)

    def note(self, text: str) -> None:
        """Print something that is no message, above what may still change."""
        app = self._session.app
        if app.is_running:
            app.renderer.erase()
        app.output.write_raw(f"{_clean(text)}\n".replace("\n", "\r\n"))
        app.output.flush()
        if app.is_running:
            app.renderer.request_absolute_cursor_position()
            app.invalidate()

    def show(self, messages: Mapping[str, str], signs: Sequence[str], prompt: str) -> None:
        """Show these messages, each text with a key that stays, and what is going on below."""
        if (messages, signs, prompt) != (self._messages, self._signs, self._prompt):
            self._messages, self._signs, self._prompt = messages, signs, prompt
            self._session.app.invalidate()

    def forget(self) -> None:
        """Let all messages be new."""
        self._settled = self._messages = {}

    def leave(self) -> None:
        """Let what is new stand for good."""
        for text in _news(self._messages, self._settled):
            self.note(text)
        self._settled = self._messages

    async def _read(self) -> None:
        with suppress(EOFError, KeyboardInterrupt):
            # Signals and errors of tasks are handled by the process.
            await self._session.prompt_async(handle_sigint=False, set_exception_handler=False)
        self._entered.put_nowait(None)

    def _above(self) -> str:
        size = self._session.app.output.get_size()
        console = Console(width=size.columns)
        news = [*_news(self._messages, self._settled), *self._signs]
        lines = [line for text in news for line in _clean(text).split("\n")]
        rows = [row.plain for line in lines for row in Text(line).wrap(console, size.columns)]
        return "".join(f"{row}\n" for row in rows[-max(1, size.rows - 2) :]) + self._prompt

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        @keys.add("enter")
        def enter(event: KeyPressEvent) -> None:
            typed = event.current_buffer.text
            self.leave()
            self.note(f"{self._prompt}{typed}")
            event.current_buffer.reset(append_to_history=bool(typed.strip()))
            # Several lines may have been pasted.
            for line in typed.split("\n"):
                self._entered.put_nowait(line)

        return keys


Stage = PlainStage | LiveStage


def _news(messages: Mapping[str, str], known: Mapping[str, str]) -> Iterator[str]:
    return (text for key, text in messages.items() if known.get(key) != text)


def _clean(text: str) -> str:
    return strip_controls(text).replace("\u200b", "").expandtabs(4)
