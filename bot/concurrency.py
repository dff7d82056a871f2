"""Helpers for asyncio tasks, processes and the pauses between retries."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeVar

_T = TypeVar("_T")
# The id of the turn that this task, or the task that started it, handles; for log lines.
turn_in_work: ContextVar[str] = ContextVar("turn_in_work", default="")
_MOST_DOUBLINGS = 64  # 2.0 ** 1024 is an OverflowError


async def cancelled(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and return when they have ended; their results and errors are ignored."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def together(*tasks: asyncio.Task[None]) -> None:
    """Run tasks until one ends, cancel the others, and raise the error of the first.

    A task that is cancelled from outside ends the others, too. Each is cancelled only once:
    `asyncio.gather` returns at the first cancelled task, and a clean-up behind it would cancel the
    others a second time, in the middle of their own clean-up.
    """
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()
    finally:
        await cancelled(*tasks)


async def end_process(process: Process, *, seconds: float, kill: Callable[[], object]) -> None:
    """Wait for a process to end, and call `kill` if it takes longer than `seconds`."""
    ending = asyncio.create_task(process.wait())
    # `asyncio.timeout` does not work in a canceled task before Python 3.11.3 (issue 102780).
    await asyncio.wait((ending,), timeout=seconds)
    if not ending.done():
        with suppress(ProcessLookupError):
            kill()
    await ending


@asynccontextmanager
async def running(work: Coroutine[Any, Any, _T]) -> AsyncIterator[asyncio.Task[_T]]:
    """Run `work` beside the block and cancel it at the end of the block.

    Its error is ignored unless the block awaits the task.
    """
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        await cancelled(task)


def do_nothing(*_: object) -> None:
    """Accept any arguments: the default of an optional callback."""


@asynccontextmanager
async def prefetch(stream: AsyncGenerator[_T]) -> AsyncIterator[AsyncGenerator[_T]]:
    """Ask a stream for its first item at once, before the block iterates over it.

    The stream is closed at the end of the block.
    """

    async def begin() -> _T:
        return await anext(stream)

    async def items() -> AsyncGenerator[_T]:
        try:
            first = await beginning
        except StopAsyncIteration:
            return
        yield first
        async for item in stream:
            yield item

    async with aclosing(stream), running(begin()) as beginning:
        yield items()


class BackgroundTasks:
    """Keeps a reference to each task until it ends; each handles its own errors.

    A context manager: at its end, tasks get `grace_seconds` to finish and are then cancelled.
    """

    def __init__(self, *, grace_seconds: float = 0.0) -> None:
        self._grace_seconds = grace_seconds
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Start a task."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def __aenter__(self) -> BackgroundTasks:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._tasks and self._grace_seconds:
            await asyncio.wait(self._tasks, timeout=self._grace_seconds)
        # The remaining tasks may start more tasks.
        while self._tasks:
            await cancelled(*self._tasks)


@dataclass(frozen=True, slots=True)
class Backoff:
    """The pauses between retries, in seconds: each is twice the one before, up to `longest`."""

    first: float
    longest: float

    def delay(self, failures: int) -> float:
        """Return the pause after this number of failures in a row, which is at least 1."""
        return min(self.first * 2.0 ** min(failures - 1, _MOST_DOUBLINGS), self.longest)

    def pauses(self) -> Iterator[float]:
        """Iterate over the pauses, without end; a new iterator begins with `first` again."""
        return map(self.delay, count(1))


async def empty_stream() -> AsyncGenerator[Any]:
    """Yield no items."""
    return
    yield
