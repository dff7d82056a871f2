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
from tests.chaos.talks import number_of

STARTING = 30.0  # seconds
_OPEN, _TURN = "parley:{0}:open", "parley:{0}:turn:"  # see bot/turns/scripts/prelude.lua


class Server:
    """A Valkey on a socket in `folder` that writes every change to the disk before it answers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.socket = folder / "server"
        self._process: asyncio.subprocess.Process | None = None
        self.redis = Redis(unix_socket_path=str(self.socket), decode_responses=True)

    async def start(self) -> None:
        """Start it with the data that stand on the disk, and answer when it does."""
        self._process = await asyncio.create_subprocess_exec(
            *(str(_binary()), "--port", "0", "--unixsocket", str(self.socket)),
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

    async def held_by(self, pid: int) -> frozenset[int]:
        """Return the numbers of the questions that this process has taken and not ended."""
        turns = [str(each) for each in await self.redis.zrange(_OPEN, 0, -1)]
        records = [await self.redis.hgetall(_TURN + each) for each in turns]
        held = [each for each in records if f"-{pid}-" in each.get("worker", "")]
        running = [each for each in held if each["state"] == "running"]
        return frozenset(number_of(str(each["text"])) for each in running)

    async def writes_refused(self) -> int:
        """Return how many writes it has refused for want of memory since it was started."""
        errors = await self.redis.info("errorstats")
        return int(errors.get("errorstat_OOM", {}).get("count", 0))

    async def _answers(self) -> bool:
        try:
            return bool(await self.redis.ping())
        except (RedisError, OSError):
            return False


@asynccontextmanager
async def server(folder: Path) -> AsyncIterator[Server]:
    """Run a server while the block lasts."""
    one = Server(folder)
    try:
        await one.start()
        yield one
    finally:
        await one.redis.aclose()
        await one.kill()
