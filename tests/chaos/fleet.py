"""The bot's processes, each of which is started again when it has ended."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

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

    def victim(self, rng: random.Random) -> BotProcess | None:
        """Return one that runs, if any does."""
        ready = [one for one in self._running.values() if one.process.returncode is None]
        return rng.choice(ready) if ready else None

    def behind(self, port: int) -> BotProcess | None:
        """Return the one whose call came from this port, if it still runs."""
        for number, crew in enumerate(self._crews):
            if any(isinstance(w, Wire) and w.carries(port) for w in crew.wires.values()):
                one = self._running.get(number)
                return one if one and one.process.returncode is None else None
        return None

    def up(self) -> list[BotProcess]:
        """Return those that have come up."""
        return [one for one in self._running.values() if _is_up(one)]

    def hearing(self) -> list[BotProcess]:
        """Return those that hear the platforms."""
        return [one for one in self._running.values() if _hears(one)]

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


def _is_up(one: BotProcess) -> bool:
    return one.process.returncode is None and "Running as" in one.text()


def _hears(one: BotProcess) -> bool:
    return one.process.returncode is None and "Running as discord" in one.text()


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
