"""The bot's processes, each of which is started again when it has ended."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.process import Bot, bot
from tests.waiting import until


class Fleet:
    """As many processes as there are lists of roles; `logs` are of those that have ended."""

    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        self._folder = folder
        self._variables = variables
        self._running: dict[int, Bot] = {}
        self.logs: list[str] = []
        self.exits: list[int] = []  # of those that ended by themselves or by SIGTERM

    def victim(self, rng: random.Random) -> Bot | None:
        """Return one that runs, if any does."""
        ready = [one for one in self._running.values() if one.process.returncode is None]
        return rng.choice(ready) if ready else None

    async def hears(self) -> None:
        """Return when a process that hears the platforms is up; TimeoutError when none comes up.

        On a machine so busy that none ever is, every event would come minutes late and nothing be
        tried.
        """
        await until(lambda: any(map(_hears, self._running.values())), why=lambda: self.texts[-1:])

    async def keep(self, number: int, roles: Sequence[str]) -> None:
        """Run a process with these roles, and another when it has ended, until cancelled."""
        while True:
            async with bot(*roles, data_dir=self._folder, variables=self._variables) as running:
                self._running[number] = running
                try:
                    await running.process.wait()
                finally:
                    if running.process.returncode is None:
                        running.wake()
            self.logs.append(running.text())
            if (code := running.process.returncode or 0) >= 0:
                self.exits.append(code)

    @property
    def texts(self) -> list[str]:
        """All that any of them has written to its log."""
        return [*self.logs, *(one.text() for one in self._running.values())]


def _hears(one: Bot) -> bool:
    return one.process.returncode is None and "Running as discord" in one.text()


@asynccontextmanager
async def fleet(
    folder: Path, variables: dict[str, str], crews: Sequence[Sequence[str]]
) -> AsyncIterator[Fleet]:
    """Run a process for each list of roles while the block lasts."""
    one = Fleet(folder, variables)
    keeping = [asyncio.create_task(one.keep(*crew)) for crew in enumerate(crews)]
    try:
        yield one
    finally:
        failed = [task for task in keeping if task.done()]
        for task in keeping:
            task.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)
        for task in failed:
            task.result()
