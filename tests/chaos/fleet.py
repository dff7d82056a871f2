"""The bot's processes, each of which is started again when it has ended, and their own Redis."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from bot.embedded_store import _binary
from tests.chaos.talks import DELETING, number_of
from tests.support.outage import Line, Wire
from tests.support.process import BotProcess, bot
from tests.support.waiting import until


@dataclass(frozen=True)
class Crew:
    """What a process is to do, and its own ways to the others, by name."""

    roles: Sequence[str]
    variables: dict[str, str]
    wires: Mapping[str, Line]


class Fleet:
    """A process for each crew; `logs` are of those that have ended."""

    def __init__(self, folder: Path, crews: Sequence[Crew]) -> None:
        self._folder = folder
        self._crews = crews
        self._running: dict[int, BotProcess] = {}
        self.logs: list[str] = []

    @property
    def variables(self) -> Mapping[str, str]:
        """The variables of the first crew."""
        return self._crews[0].variables

    def victim(self, rng: random.Random) -> BotProcess | None:
        """Return one that runs, if any does."""
        ready = [one for one in self._running.values() if one.process.returncode is None]
        return rng.choice(ready) if ready else None

    def behind(self, port: int) -> BotProcess | None:
        """Return the one whose call came from this port, if it still runs."""
        for number, crew in enumerate(self._crews):
            if any(isinstance(w, Wire) and w.carries(port) for w in crew.wires.values()):
                return self.running(number)
        return None

    def running(self, number: int) -> BotProcess | None:
        """Return the process of a crew, if it runs."""
        one = self._running.get(number)
        return one if one and one.process.returncode is None else None

    def up(self) -> list[BotProcess]:
        """Return those that have come up."""
        return [one for one in self._running.values() if _has_told(one, "Running as")]

    def hearing(self) -> list[BotProcess]:
        """Return those that hear the platforms."""
        first = "discord", "matrix", "slack"
        return [
            one
            for one in self._running.values()
            if any(_has_told(one, f"Running as {name}") for name in first)
        ]

    async def hears(self) -> None:
        """Return when a process that hears the platforms is up; TimeoutError when none comes up.

        On a machine so busy that none ever is, every event would come minutes late and nothing be
        tried.
        """
        await until(self.hearing, why=lambda: self.texts[-1:])

    async def keep(self, number: int) -> None:
        """Run a crew's process, and another when it has ended, until cancelled."""
        crew = self._crews[number]
        while True:
            async with bot(*crew.roles, data_dir=self._folder, variables=crew.variables) as running:
                self._running[number] = running
                try:
                    await running.process.wait()
                finally:
                    if running.process.returncode is None:
                        running.wake()
            self.logs.append(running.text())

    @property
    def texts(self) -> list[str]:
        """All that any of them has written to its log."""
        return [*self.logs, *(one.text() for one in self._running.values())]


def _has_told(one: BotProcess, words: str) -> bool:
    return one.process.returncode is None and words in one.text()


@asynccontextmanager
async def fleet(folder: Path, crews: Sequence[Crew]) -> AsyncIterator[Fleet]:
    """Run a process for each crew while the block lasts."""
    one = Fleet(folder, crews)
    keeping = [asyncio.create_task(one.keep(number)) for number in range(len(crews))]
    try:
        yield one
    finally:
        failed = [task for task in keeping if task.done()]
        for task in keeping:
            task.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)
        for task in failed:
            task.result()


STARTING = 30.0  # seconds
# See bot/turns/scripts/prelude.lua.
_OPEN, _TURN, _FILES = "parley:{0}:open", "parley:{0}:turn:", "parley:{0}:files:"
_STEPS = "parley:{0}:steps:"


@dataclass(frozen=True)
class OpenTurn:
    """A turn that has not ended; `steps` are the names of what its journal has."""

    id: str
    number: int
    state: str
    pid: int  # of the process that took it last
    asks: str
    steps: frozenset[str]


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

    async def open_turns(self) -> list[OpenTurn]:
        """Return the turns that have not ended, as they stand at one moment."""
        ids = [str(each) for each in await self.redis.zrange(_OPEN, 0, -1)]
        async with self.redis.pipeline() as both:
            for each in ids:
                both.hmget(_TURN + each, "text", "state", "worker", "asks")
                both.hkeys(_STEPS + each)
            found = await both.execute()
        turns = []
        for each, (text, state, worker, asks), steps in zip(
            ids, found[::2], found[1::2], strict=True
        ):
            pid = int(worker.split("-")[-2]) if worker else 0
            if text:
                turns.append(
                    OpenTurn(each, number_of(text), state, pid, asks or "", frozenset(steps))
                )
        return turns

    async def knows(self, turn_id: str) -> bool:
        """Return whether a turn was admitted."""
        return bool(await self.redis.exists(_TURN + turn_id))

    async def saved_files(self) -> AsyncIterator[str]:
        """Yield the id of a turn each time that what was read of one of its files is saved."""
        await self.redis.config_set("notify-keyspace-events", "Kh")
        async with self.redis.pubsub() as told:
            await told.psubscribe(f"__keyspace@*__:{_FILES}*")
            async for event in told.listen():
                if event["data"] == "hset":
                    yield str(event["channel"]).partition(_FILES)[2]

    async def forgotten(self, turn_id: str) -> None:
        """Return when a turn is unknown, or to be forgotten; or after the last that Slack tells."""
        with suppress(TimeoutError):
            async with asyncio.timeout(DELETING):
                while not await self._forgets(turn_id):
                    await asyncio.sleep(0.1)

    async def _forgets(self, turn_id: str) -> bool:
        try:
            record = await self.redis.hgetall(_TURN + turn_id)
        except (RedisError, OSError):
            return False
        return not record or record["state"] == "dropped" or "forget" in record

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
