"""One question from a shell, answered on standard output."""

from __future__ import annotations

import asyncio
import io
import logging
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TextIO

from bot.app.ask import answer, whole
from bot.app.assistant import open_assistant
from bot.domain import Start
from bot.errors import ParleyError
from bot.text.sanitize import strip_controls
from config.settings import Settings

log = logging.getLogger(__name__)

STDIN = "-"
_MOST = 4_000_000  # characters of standard input: more than any model reads, and it may be endless


def question(words: Sequence[str], stdin: TextIO) -> str:
    """Join the words; standard input, which is read once, stands for "-" and for no words."""
    read = _text(stdin) if STDIN in words or not words else ""
    return " ".join(read if word == STDIN else word for word in words or (STDIN,))


def _text(stdin: TextIO) -> str:
    # Whatever the locale says, what other programs write is mostly UTF-8.
    if isinstance(stdin, io.TextIOWrapper):
        stdin.reconfigure(encoding="utf-8", errors="replace")
    return stdin.read(_MOST)


async def reply(settings: Settings, asked: str, stdout: TextIO) -> None:
    """Answer as the settings say: in a terminal while the text grows, else when it is complete.

    Raises ParleyError with a sentence for the operator. A reader that has left is no failure.
    """
    if isinstance(stdout, io.TextIOWrapper):
        stdout.reconfigure(errors="replace")
    async with open_assistant(settings, frozenset(), asyncio.Event()) as mind:
        deltas = answer(mind, asked)
        try:
            if stdout.isatty():
                await _grow(deltas, stdout)
            else:
                _write(stdout, f"{strip_controls(await whole(deltas))}\n")
        except BrokenPipeError:
            # What is buffered would fail once more at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())


async def _grow(deltas: AsyncGenerator[str | Start], stdout: TextIO) -> None:
    shown = False
    try:
        async with aclosing(deltas):
            async for delta in deltas:
                if isinstance(delta, Start):
                    if shown:
                        _write(stdout, "\n")
                        log.warning("The answer broke off and begins anew")
                    shown = False
                    continue
                text = strip_controls(delta)
                text = text if shown else text.lstrip()
                _write(stdout, text)
                shown = shown or bool(text)
    finally:
        if shown:
            _write(stdout, "\n")


def _write(stdout: TextIO, text: str) -> None:
    try:
        stdout.write(text)
        stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ParleyError(f"the answer cannot be written: {error.strerror}") from error
