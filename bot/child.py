"""A process of our own that serves on loopback for as long as we need it."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bot.domain import Json
from bot.errors import CannotStart

log = logging.getLogger(__name__)

_READY_SECONDS = 600.0  # a large model from a slow disk
_END_SECONDS = 3.0
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds before it is started again
_STABLE_SECONDS = 60.0  # what ran this long begins with a short pause again
_REPOSITORY = Path(__file__).resolve().parents[1]

Told = Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is started: a module, what to tell it, and what an operator calls it.

    The order goes over standard input, where `ps` does not look; `heed` gets each object that the
    process tells of after its first.
    """

    module: str
    order: Told
    name: str
    heed: Callable[[Told], None]


@asynccontextmanager
async def kept(recipe: Recipe) -> AsyncIterator[Told]:
    """Run a process while the context lasts; yields what it tells first, which has its "port".

    It gets its order as one line of JSON, tells what it has to tell the same way, and has to go
    when its standard input ends. When it dies it is started again on the same port. CannotStart
    when it does not come up the first time, in its own words where it tells of an "error".
    """
    child = await _start(recipe)
    keeper = _Keeper(child, _with_port(recipe, child.told))
    keeping = asyncio.create_task(keeper.keep())
    try:
        yield child.told
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])
        await _end(keeper.child)


def _with_port(recipe: Recipe, told: Told) -> Recipe:
    order = {**recipe.order, "port": told["port"]}
    return Recipe(recipe.module, order, recipe.name, recipe.heed)


@dataclass(frozen=True, slots=True)
class _Child:
    """A process, what it told first, its last words, and the time of its start in loop time."""

    process: Process
    told: Told
    words: deque[str]
    listening: tuple[asyncio.Task[None], ...]
    since: float


class _Keeper:
    """Starts the process again whenever it dies; `child` is the latest."""

    def __init__(self, child: _Child, recipe: Recipe) -> None:
        self.child = child
        self._recipe = recipe

    async def keep(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            code = await self.child.process.wait()
            await _end(self.child)
            last = self.child.words[-1] if self.child.words else "no reason given"
            log.error("%s ended (%s: %s); it is started again.", self._recipe.name, code, last)
            if asyncio.get_running_loop().time() - self.child.since > _STABLE_SECONDS:
                pause = _FIRST_PAUSE
            pause = await self._start_again(pause)

    async def _start_again(self, pause: float) -> float:
        """Put a new process into `child`; return the pause before another one, in seconds."""
        while True:
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            try:
                self.child = await _start(self._recipe)
            except CannotStart as error:
                log.warning("%s is still not there: %s.", self._recipe.name, error)
            else:
                return pause


async def _start(recipe: Recipe) -> _Child:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", recipe.module),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        cwd=_REPOSITORY,
        # The terminal's Ctrl-C is for us; we end the process when nobody needs it any more.
        start_new_session=True,
    )
    words: deque[str] = deque(maxlen=50)
    listening = asyncio.create_task(_listen(process, words))
    since = asyncio.get_running_loop().time()
    child = _Child(process, {}, words, (listening,), since)
    try:
        async with asyncio.timeout(_READY_SECONDS):
            told = await _hand_over(process, recipe.order)
    except asyncio.CancelledError:
        await _end(child)
        raise
    # Not ready in time, a closed pipe, or an end of file where its words should stand.
    except (OSError, ValueError) as error:
        await _end(child)
        reason = words[-1] if words else "it gave no reason"
        raise CannotStart(f"{recipe.name} did not start: {reason}") from error
    if "error" in told:
        await _end(child)
        raise CannotStart(str(told["error"]))
    heeding = asyncio.create_task(_heed(process, recipe.heed))
    return _Child(process, told, words, (listening, heeding), since)


async def _hand_over(process: Process, order: Told) -> Told:
    """Give the process its order and return what it tells first."""
    stdin, stdout, _ = _pipes(process)
    stdin.write(json.dumps(order).encode() + b"\n")
    await stdin.drain()
    told: Told = json.loads(await stdout.readline())
    return told


async def _heed(process: Process, heed: Callable[[Told], None]) -> None:
    _, stdout, _ = _pipes(process)
    while line := await stdout.readline():
        heed(json.loads(line))


async def _listen(process: Process, words: deque[str]) -> None:
    _, _, stderr = _pipes(process)
    while chunk := await stderr.read(65536):
        # Not by lines: a progress bar has none.
        lines = chunk.decode(errors="replace").splitlines()
        words.extend(line.strip() for line in lines if line.strip())


async def _end(child: _Child) -> None:
    stdin, _, _ = _pipes(child.process)
    stdin.close()
    try:
        async with asyncio.timeout(_END_SECONDS):
            await child.process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            child.process.kill()
        await child.process.wait()
    await asyncio.wait(child.listening, timeout=_END_SECONDS)
    for task in child.listening:
        task.cancel()


def _pipes(process: Process) -> tuple[StreamWriter, StreamReader, StreamReader]:
    if process.stdin is None or process.stdout is None or process.stderr is None:
        raise AssertionError("the process was started without pipes")
    return process.stdin, process.stdout, process.stderr
