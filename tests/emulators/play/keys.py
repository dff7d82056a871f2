"""Lines as they are typed at a terminal, or as they come through a pipe."""

from __future__ import annotations

import asyncio
import codecs
import os
import termios
import threading
import tty
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress

from tests.emulators.play.line import Line
from tests.emulators.play.stage import LiveStage


async def piped(source: int) -> AsyncGenerator[str]:
    """Yield the lines of a file descriptor."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    while chunk := await _read(source):
        *lines, rest = (rest + decoder.decode(chunk)).split("\n")
        for line in lines:
            yield line
    if rest:
        yield rest


async def typed(source: int, stage: LiveStage) -> AsyncGenerator[str]:
    """Yield the lines of a terminal, each of them settled on the stage; it may be typed ahead."""
    line = Line()
    entered: asyncio.Queue[str | None] = asyncio.Queue()
    with _every_key(source):
        typing = asyncio.create_task(_type(source, line, stage, entered))
        try:
            while (text := await entered.get()) is not None:
                yield text
        finally:
            typing.cancel()
            await asyncio.gather(typing, return_exceptions=True)


async def _type(
    source: int, line: Line, stage: LiveStage, entered: asyncio.Queue[str | None]
) -> None:
    while chunk := await _read(source):
        for text in line.type(chunk):
            if text is not None:
                stage.settle(text)
            entered.put_nowait(text)
        stage.type(line.text, line.cursor)
    entered.put_nowait(None)


async def _read(source: int) -> bytes:
    """Read beside the loop, in a thread for which no process waits at its end."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bytes] = loop.create_future()

    def tell(chunk: bytes) -> None:
        if not done.done():
            done.set_result(chunk)

    def read() -> None:
        chunk = b""
        # A terminal that is gone is an end of input, too.
        with suppress(OSError):
            chunk = os.read(source, 65536)
        # The loop may have ended meanwhile.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(tell, chunk)

    threading.Thread(target=read, name="input", daemon=True).start()
    return await done


@contextmanager
def _every_key(terminal: int) -> Iterator[None]:
    """Let the terminal hand over each key, without showing it, until the end of the block."""
    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
