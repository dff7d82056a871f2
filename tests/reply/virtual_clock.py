"""Time that passes only while everybody waits for it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from bot.reply.edit_budget import Clock

T = TypeVar("T")


class VirtualClock(Clock):
    """The time of edit budgets in a test: it goes on when all work of `run` waits."""

    def __init__(self) -> None:
        self.turns = 0  # how often somebody began to wait
        self._now = 1_000.0
        self._timers: list[tuple[float, Callable[[], object]]] = []
        self._waiting: dict[asyncio.Task[Any], tuple[asyncio.Event, float]] = {}

    def now(self) -> float:
        return self._now

    def shared_now(self) -> int:
        return math.floor(self._now * 1000 + 0.5)

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        task = asyncio.current_task()
        assert task
        self.turns += 1
        until = self._now + seconds
        self._waiting[task] = event, until
        try:
            while not event.is_set() and self._now < until:
                await asyncio.sleep(0)
        finally:
            del self._waiting[task]

    async def sleep(self, seconds: float) -> None:
        await self.wait(asyncio.Event(), seconds)

    def after(self, seconds: float, do: Callable[[], object]) -> None:
        """Do something when so much time has passed."""
        self._timers.append((self._now + seconds, do))

    async def run(self, *work: Coroutine[Any, Any, T]) -> list[T]:
        """Run all of it at once, and let time pass whenever each waits; return the results."""
        tasks = [asyncio.create_task(each) for each in work]
        try:
            while not all(task.done() for task in tasks):
                await self._settle(tasks)
                self._advance(tasks)
            return [task.result() for task in tasks]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def took(self, work: Coroutine[Any, Any, object]) -> float:
        """Run one piece of work; return how much time has passed."""
        began = self._now
        await self.run(work)
        return self._now - began

    async def _settle(self, tasks: list[asyncio.Task[T]]) -> None:
        """Return when all tasks have ended or wait, and what was set in motion has come to rest."""
        calm = 0
        while calm < 10:
            await asyncio.sleep(0)
            calm = calm + 1 if all(task.done() or self._is_idle(task) for task in tasks) else 0

    def _is_idle(self, task: asyncio.Task[T]) -> bool:
        if task not in self._waiting:
            return False
        event, until = self._waiting[task]
        return not event.is_set() and self._now < until

    def _advance(self, tasks: list[asyncio.Task[T]]) -> None:
        if all(task.done() for task in tasks):
            return
        waits = [self._waiting[task][1] for task in tasks if task in self._waiting]
        self._now = max(min(*waits, *(at for at, _ in self._timers), math.inf), self._now)
        assert self._now < math.inf, "everybody waits for somebody else"
        for timer in [each for each in self._timers if each[0] <= self._now]:
            self._timers.remove(timer)
            timer[1]()
