"""Ways to servers that can be cut: proxies between a test, or the bot, and what it talks to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit, urlunsplit

from bot.store import Store
from tests.support.ports import free_port

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Joined = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Line:
    """A way to a server; `cut` breaks it and refuses what is new, `mend` opens it again.

    While it is held with `hold`, it takes connections and words, and carries none; `mend` ends that
    too.
    """

    def __init__(
        self,
        *,
        connect: Callable[[], Awaitable[Streams]],
        listen: Callable[[Joined], Awaitable[asyncio.Server]],
    ) -> None:
        self._connect = connect
        self._listen = listen
        self._carrying: set[asyncio.Task[None]] = set()
        self._away: set[asyncio.StreamWriter] = set()  # towards the server
        self._listening: asyncio.Server | None = None
        self._flows = asyncio.Event()

    @property
    def url(self) -> str:
        """The address by which the server is reached through this line."""
        raise NotImplementedError

    async def mend(self) -> None:
        self._flows.set()
        if self._listening is None:
            self._listening = await self._listen(self._join)

    def hold(self) -> None:
        self._flows.clear()

    async def cut(self) -> int:
        """Break it, and return how many connections that broke."""
        listening, self._listening = self._listening, None
        if listening:
            await _close(listening)
        broken = list(self._carrying)
        for task in broken:
            task.cancel()
        await asyncio.gather(*broken, return_exceptions=True)
        return len(broken)

    async def __aenter__(self) -> Self:
        await self.mend()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._listening is None:  # cut since this connection was accepted
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task
        self._carrying.add(task)
        try:
            away, back = await self._connect()
            self._away.add(back)
            try:
                await self._carry((reader, back), (away, writer))
            finally:
                self._away.discard(back)
                back.transport.abort()
        except (OSError, asyncio.CancelledError):
            return
        finally:
            writer.transport.abort()
            self._carrying.discard(task)

    async def _carry(self, *ways: Streams) -> None:
        """Copy each reader to its writer until one side closes."""
        copying = [asyncio.create_task(self._copy(*way)) for way in ways]
        try:
            await asyncio.wait(copying, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in copying:
                task.cancel()
            await asyncio.gather(*copying, return_exceptions=True)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            await self._flows.wait()
            writer.write(data)
            await writer.drain()


async def _close(server: asyncio.Server) -> None:
    """Close it, after what it has accepted became connections.

    Python 3.11 loses a socket, and never closes it, that was accepted just before its server is
    closed (BaseSelectorEventLoop._accept_connection2).
    """
    loop = asyncio.get_running_loop()
    for socket in server.sockets:
        loop.remove_reader(socket.fileno())
    await asyncio.sleep(0)
    server.close()


class SocketLine(Line):
    """The way to a server on a unix socket, by another one."""

    def __init__(self, *, server: Path, socket: Path) -> None:
        super().__init__(
            connect=lambda: asyncio.open_unix_connection(server),
            listen=lambda joined: asyncio.start_unix_server(joined, socket),
        )
        self._socket = socket

    @property
    def url(self) -> str:
        """The address by which the server is reached through this line."""
        return f"unix://{self._socket}"


def line(url: str, folder: Path) -> SocketLine:
    """Open a way to the server at a unix:// address."""
    return SocketLine(server=Path(urlsplit(url).path), socket=folder / "line")


class Wire(Line):
    """The way to a server on loopback, at an address like http://127.0.0.1:8080/path."""

    def __init__(self, url: str) -> None:
        self._there = urlsplit(url)
        self._port = free_port()
        super().__init__(
            connect=lambda: asyncio.open_connection(self._there.hostname, self._there.port),
            # The same port, when it is mended.
            listen=lambda joined: asyncio.start_server(joined, "127.0.0.1", self._port),
        )

    @property
    def url(self) -> str:
        """The address by which the server is reached through this wire."""
        return urlunsplit(self._there._replace(netloc=f"127.0.0.1:{self._port}"))

    def carries(self, port: int) -> bool:
        """Tell whether what reaches the server from this port came by this wire."""
        return any(one.get_extra_info("sockname")[1] == port for one in self._away)


@asynccontextmanager
async def full(store: Store) -> AsyncIterator[None]:
    """Let a server that no other process uses refuse writes for want of memory."""
    await store.redis.config_set("maxmemory", "1")
    try:
        yield
    finally:
        await store.redis.config_set("maxmemory", "0")
