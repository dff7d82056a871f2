"""A store that can be cut off: a proxy between a test and its server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit


class Line:
    """The way to the server; `cut` breaks it, `mend` opens it again."""

    def __init__(self, *, server: Path, socket: Path) -> None:
        self._server = server
        self._socket = socket
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    async def mend(self) -> None:
        self._listening = await asyncio.start_unix_server(self._join, self._socket)

    async def cut(self) -> None:
        if self._listening:
            self._listening.close()
        self._socket.unlink(missing_ok=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        try:
            away, back = await asyncio.open_unix_connection(str(self._server))
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(_copy(reader, back))
                    both.create_task(_copy(away, writer))
            finally:
                back.close()
        except (OSError, asyncio.CancelledError, ExceptionGroup):
            return
        finally:
            writer.close()
            self._tasks.discard(task)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    raise ConnectionError("one side has closed")


@asynccontextmanager
async def line(url: str, folder: Path) -> AsyncIterator[Line]:
    """Open a way to the server at a unix:// address."""
    way = Line(server=Path(urlsplit(url).path), socket=folder / "line")
    await way.mend()
    try:
        yield way
    finally:
        await way.cut()
