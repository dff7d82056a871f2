"""The command `ask`: one question, answered on standard output."""

from __future__ import annotations

import asyncio
import io
import logging
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TextIO

from bot.app.ask import joined, stream_answer
from bot.app.assistant import open_assistant
from bot.domain import Start
from bot.errors import ParleyError
from bot.text.sanitize import strip_controls
from config.settings import Settings

log = logging.getLogger(__name__)

STDIN = "-"
_MAX_INPUT = 4_000_000  # characters; more than any model reads, and a pipe may be endless


def read_question(words: Sequence[str], stdin: TextIO) -> str:
    """Join the words; "-" and no words at all stand for standard input."""
    piped = _read(stdin) if STDIN in words or not words else ""
    return " ".join(piped if word == STDIN else word for word in words or (STDIN,))


def _read(stdin: TextIO) -> str:
    # Other programs mostly write UTF-8, whatever the locale says.
    if isinstance(stdin, io.TextIOWrapper):
        stdin.reconfigure(encoding="utf-8", errors="replace")
    return stdin.read(_MAX_INPUT)


async def print_answer(settings: Settings, question: str, stdout: TextIO) -> None:
    """Print the answer as it grows in a terminal, or else when it is complete.

    A reader that closes the pipe is no failure. Raises ParleyError.
    """
    if isinstance(stdout, io.TextIOWrapper):
        stdout.reconfigure(errors="replace")
    async with open_assistant(settings, asyncio.Event()) as assistant:
        deltas = stream_answer(assistant, question)
        try:
            if stdout.isatty():
                await _print_growing(deltas, stdout)
            else:
                _write(stdout, f"{strip_controls(await joined(deltas))}\n")
        except BrokenPipeError:
            # Flushing the buffer at exit would fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())


async def _print_growing(deltas: AsyncGenerator[str | Start], stdout: TextIO) -> None:
    printed = False
    try:
        async with aclosing(deltas):
            async for delta in deltas:
                if isinstance(delta, Start):
                    if printed:
                        _write(stdout, "\n")
                        log.warning("The answer broke off and begins anew")
                    printed = False
                    continue
                text = strip_controls(delta)
                text = text if printed else text.lstrip()
                _write(stdout, text)
                printed = printed or bool(text)
    finally:
        if printed:
            _write(stdout, "\n")


def _write(stdout: TextIO, text: str) -> None:
    try:
        stdout.write(text)
        stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ParleyError(f"the answer cannot be written: {error.strerror}") from error
