"""A primary with replicas, and the Sentinels that watch them: servers of Valkey, on loopback."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from bot.embedded_store import _binary
from tests.support.ports import free_port

NAME = "main"
DOWN_MS = 1000  # without an answer, until a Sentinel takes a server for dead
STARTING = 60.0  # seconds


class Node:
    """One server, which may be killed and started again."""

    def __init__(self, folder: Path, *options: str, password: str = "") -> None:
        self.port = free_port()
        self.redis = Redis(port=self.port, password=password or None, decode_responses=True)
        self._folder = folder / str(self.port)
        self._folder.mkdir()
        self._options = options
        self._process: asyncio.subprocess.Process | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self, *options: str) -> None:
        """Start it and return when it answers."""
        self._process = await asyncio.create_subprocess_exec(
            *(str(_binary()), *self._options, "--port", str(self.port), "--bind", "127.0.0.1"),
            *("--dir", str(self._folder), *options),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
        )
        await settled(self.redis.ping)

    async def kill(self) -> None:
        """End it as a power cut would."""
        self.pause(False)
        if self._process and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def close(self) -> None:
        """Be gone."""
        await self.redis.aclose()
        await self.kill()

    async def follow(self, primary: Node) -> None:
        """Become the replica of another; returns when that knows it."""
        await self.redis.replicaof("127.0.0.1", primary.port)
        await settled(primary.has_replica)

    def pause(self, paused: bool = True) -> None:
        """Let it stand still, or go on."""
        if self._process and self._process.returncode is None:
            self._process.send_signal(signal.SIGSTOP if paused else signal.SIGCONT)

    async def role(self) -> str:
        """Return "master" or "slave"; empty if it does not answer."""
        with suppress(RedisError, OSError):
            return str((await self.redis.info("replication"))["role"])
        return ""

    async def has_replica(self) -> bool:
        """Return whether a replica has all that was written."""
        with suppress(RedisError, OSError):
            await self.redis.publish("any", "thing")
            return bool(await self.redis.wait(1, 100))
        return False

    async def cut_off(self) -> None:
        """Break the links to the replicas, and let none come back until the next start."""
        await self.redis.execute_command("ACL", "SETUSER", "default", "-psync", "-sync")  # type: ignore[no-untyped-call]
        await self.redis.client_kill_filter(_type="replica")


class Watched:
    """Two servers, one of them the primary, and three Sentinels."""

    def __init__(self, nodes: Sequence[Node], sentinels: Sequence[Node]) -> None:
        self.nodes = nodes
        self.sentinels = sentinels

    @property
    def url(self) -> str:
        """The address for REDIS_URL."""
        return f"redis+sentinel://{','.join(it.address for it in self.sentinels)}/{NAME}/0"

    async def primary(self) -> Node:
        """Return the server that the Sentinels name, when it takes writes."""
        found: list[Node] = []

        async def is_known() -> bool:
            found[:] = [it for it in self.nodes if await it.role() == "master"]
            named = [await _named(it) for it in self.sentinels]
            return len(found) == 1 and named == [found[0].port] * len(named)

        await settled(is_known)
        return found[0]

    async def fail_over(self, before: Node | None = None) -> Node:
        """Kill the primary, and return the next one; the dead one is not started again."""
        before = before or await self.primary()
        await before.kill()
        (other,) = (it for it in self.nodes if it is not before)
        await settled(lambda: _is_primary(other))
        return other

    async def join_again(self, node: Node, primary: Node) -> None:
        """Start a server that was killed as the replica of another.

        A busy machine may answer the Sentinels so late that they fail over once more.
        """
        await node.start("--replicaof", f"127.0.0.1 {primary.port}")
        await settled(self._has_replica)

    async def _has_replica(self) -> bool:
        found = [await it.has_replica() for it in self.nodes if await it.role() == "master"]
        return found == [True]


async def _is_primary(node: Node) -> bool:
    return await node.role() == "master"


async def _named(sentinel: Node) -> int:
    with suppress(RedisError, OSError):
        _, port = await sentinel.redis.execute_command(  # type: ignore[no-untyped-call]
            "SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME
        )
        return int(port)
    return 0


async def settled(condition: Callable[[], Awaitable[object]]) -> None:
    """Return when a condition, which may fail at first, holds."""
    # redis-py 8.1 can lose the cancellation of a timeout, see `_Client` of bot/store.py.
    ends = time.monotonic() + STARTING
    while time.monotonic() < ends:
        with suppress(RedisError, OSError):
            if await condition():
                return
        await asyncio.sleep(0.02)
    raise TimeoutError


@asynccontextmanager
async def servers(folder: Path, many: int) -> AsyncIterator[list[Node]]:
    """Run so many servers, of which none knows the others, while the block lasts."""
    options = ("--save", "", "--appendonly", "yes", "--repl-diskless-sync-delay", "0")
    nodes = [Node(folder, *options) for _ in range(many)]
    try:
        for each in nodes:
            await each.start()
        yield nodes
    finally:
        for each in nodes:
            await each.close()


@asynccontextmanager
async def watched(folder: Path, *, password: str = "") -> AsyncIterator[Watched]:
    """Run two servers and three Sentinels, which want the password, while the block lasts."""
    async with servers(folder, 2) as nodes, AsyncExitStack() as stack:
        await nodes[1].follow(nodes[0])
        sentinels = []
        for number in range(3):
            lines = [
                f"sentinel monitor {NAME} 127.0.0.1 {nodes[0].port} 2",
                f"sentinel down-after-milliseconds {NAME} {DOWN_MS}",
                f"sentinel failover-timeout {NAME} 2000",
            ]
            lines += [f"requirepass {password}", f"sentinel sentinel-pass {password}"] * bool(
                password
            )
            file = folder / f"sentinel-{number}.conf"
            file.write_text("\n".join(lines))
            one = Node(folder, str(file), "--sentinel", password=password)
            stack.push_async_callback(one.close)
            sentinels.append(one)
            await one.start()

        async def know_each_other() -> bool:
            known: list[Any] = [await it.redis.sentinel_masters() for it in sentinels]
            found = [(it[NAME]["num-slaves"], it[NAME]["num-other-sentinels"]) for it in known]
            return found == [(1, 2)] * len(sentinels)

        await settled(know_each_other)
        yield Watched(nodes, sentinels)
