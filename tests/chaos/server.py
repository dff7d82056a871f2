"""A Redis of one's own, which can be killed, started again and told to refuse writes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from bot.embedded_store import _binary
from tests.outage import SocketLine

STARTING = 30.0  # seconds


class Server:
    """A Valkey on a socket in `folder` that writes every change to the disk before it answers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket = folder / "server"
        self._process: asyncio.subprocess.Process | None = None
        self.line = SocketLine(server=self._socket, socket=folder / "line")
        self.redis = Redis(unix_socket_path=str(self._socket), decode_responses=True)

    async def start(self) -> None:
        """Start it with the data that stand on the disk, and answer when it does."""
        self._process = await asyncio.create_subprocess_exec(
            *(str(_binary()), "--port", "0", "--unixsocket", str(self._socket)),
            *("--dir", str(self._folder), "--save", ""),
            *("--appendonly", "yes", "--appendfsync", "always"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(STARTING):
            while not await self._answers():
                await asyncio.sleep(0.01)

    async def kill(self) -> None:
        """End it as a power cut would."""
        if self._process and self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()

    async def refuse_writes(self, refuse: bool) -> None:
        """Let it have no memory for writes, or enough again."""
        await self.redis.config_set("maxmemory-policy", "noeviction")
        await self.redis.config_set("maxmemory", "1" if refuse else "0")

    async def _answers(self) -> bool:
        try:
            return bool(await self.redis.ping())
        except (RedisError, OSError):
            return False


@asynccontextmanager
async def server(folder: Path) -> AsyncIterator[Server]:
    """Run a server, with the line that the bots shall use, while the block lasts."""
    one = Server(folder)
    try:
        await one.start()
        await one.line.mend()
        yield one
    finally:
        await one.line.cut()
        await one.redis.aclose()
        await one.kill()
