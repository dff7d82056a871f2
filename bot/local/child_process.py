"""A process of our own that serves on loopback for as long as we need it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import sys
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

from bot.errors import CannotStart
from bot.text.sanitize import one_line

log = logging.getLogger(__name__)

_READY_SECONDS = 600.0  # a large model from a slow disk
_END_SECONDS = 3.0
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds before it is started again
_STABLE_SECONDS = 60.0  # what served this long begins with a short pause again
_CHUNK_BYTES = 65_536  # of what it writes to standard error, and of what is kept of a line there
_WORDS_LENGTH = 1000  # characters that are kept of a line
_NOTHING: dict[str, str] = {}
# Names with one of these words; TOKENIZERS_PARALLELISM has none. An address may hold a password.
_HIDDEN = re.compile(
    r"(?i)(?<![a-z])(token|secret|pass(word|wd)?|credentials?|(api)?keys?|url)(?![a-z])"
)
_LOGIN = re.compile(r"://[^/@\s]*:[^/@\s]*@")
_REPOSITORY = Path(__file__).resolve().parents[2]

Told = Mapping[str, Any]


class Serving(Protocol):
    """What a process tells when it serves."""

    @property
    def port(self) -> int:
        """Where it listens, on loopback."""


_S = TypeVar("_S", bound=Serving)


class ChildProcess:
    """A process with which we talk, a JSON object in each line; it has to go when we stop talking.

    `words` are its last lines on standard error, `since` is when it served, in loop time.
    """

    def __init__(self, process: Process, *, is_worth: Callable[[str], bool]) -> None:
        self.process = process
        self.words: deque[str] = deque(maxlen=50)
        self.since = 0.0
        self._is_worth = is_worth
        self._listening = [asyncio.create_task(self._listen())]

    @property
    def last_words(self) -> str:
        """Why it ended, if it said so."""
        return self.words[-1] if self.words else "it gave no reason"

    async def tell(self, told: Told) -> None:
        """Tell it something over standard input, where `ps` does not look; OSError when it ends."""
        stdin, _, _ = _pipes(self.process)
        stdin.write(json.dumps(told).encode() + b"\n")
        await stdin.drain()

    async def hear(self) -> Told:
        """Wait for what it tells next; OSError when it ends without."""
        _, stdout, _ = _pipes(self.process)
        while line := await _line(stdout):
            # What a library prints while it is imported stands between, and is no object.
            with suppress(ValueError):
                if isinstance(told := json.loads(line), dict):
                    return told
        raise BrokenPipeError("it has ended")

    def serves(self, heed: Callable[[Told], None] | None) -> None:
        """Take note that it serves; `heed` gets what it tells from now on."""
        self.since = asyncio.get_running_loop().time()
        if heed:
            self._listening.append(asyncio.create_task(self._heed(heed)))

    async def end(self) -> None:
        """End it, and return when it is gone and all that it has said is heard."""
        stdin, _, _ = _pipes(self.process)
        stdin.close()
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self.process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
        await asyncio.wait(self._listening, timeout=_END_SECONDS)
        for task in self._listening:
            task.cancel()

    async def _heed(self, heed: Callable[[Told], None]) -> None:
        with suppress(OSError):
            while True:
                heed(await self.hear())

    async def _listen(self) -> None:
        _, _, stderr = _pipes(self.process)
        rest = b""
        while chunk := await stderr.read(_CHUNK_BYTES):
            # A progress bar's lines end without a new one.
            *lines, rest = re.split(rb"[\r\n]+", rest + chunk)
            rest = rest[-_CHUNK_BYTES:]
            for line in lines:
                self._note(line)
        self._note(rest)

    def _note(self, line: bytes) -> None:
        words = one_line(line.decode(errors="replace"))
        if words and self._is_worth(words):
            # It may repeat what a model's file has.
            self.words.append(words[:_WORDS_LENGTH])


async def _line(stdout: StreamReader) -> bytes:
    """Return the next line; nothing at the end, and a blank one for a line that is no order."""
    try:
        return await stdout.readline()
    except ValueError:  # too long
        return b"\n"


@asynccontextmanager
async def starting(
    module: str,
    *,
    environment: dict[str, str] = _NOTHING,
    is_worth: Callable[[str], bool],
    heed: Callable[[Told], None] | None = None,
) -> AsyncIterator[ChildProcess]:
    """Start a process; it is ended when the context fails, in which it has to become ready.

    `environment` is added to our own, without what is a secret or looks like one. `is_worth` gets
    each line that it writes to standard error and says whether it is kept, `heed` what it tells
    when it serves. CannotStart when this machine has no room for a process; TimeoutError when it is
    not ready.
    """
    child = ChildProcess(await _process(module, environment), is_worth=is_worth)
    try:
        async with asyncio.timeout(_READY_SECONDS):
            yield child
    except BaseException:
        await child.end()
        raise
    child.serves(heed)


async def _process(module: str, environment: dict[str, str]) -> Process:
    try:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            cwd=_REPOSITORY,
            env=_environment() | environment,
            # The terminal's Ctrl-C is for us; we end the process when nobody needs it any more.
            start_new_session=True,
        )
    except OSError as error:
        raise CannotStart(f"no process can be started here: {error.strerror}") from error


def _environment() -> dict[str, str]:
    # It is told the secrets that it needs. Of the rest, what looks like a secret stays here: no
    # list could name all that CUDA, PyTorch and the Hub's library read.
    return {
        name: value
        for name, value in os.environ.items()
        if not _HIDDEN.search(name) and not _has_login(name, value)
    }


def _has_login(name: str, value: str) -> bool:
    # A proxy's login is needed to fetch a model.
    return not name.lower().endswith("_proxy") and bool(_LOGIN.search(value))


@asynccontextmanager
async def kept(
    name: str, start: Callable[[int], Awaitable[tuple[ChildProcess, _S]]]
) -> AsyncIterator[_S]:
    """Keep a process while the context lasts; yields what it told when it first served.

    `start` gets the port to listen on, 0 for any; when the process dies it is started again on the
    same one. `name` is what an operator calls it. CannotStart when it does not come up at first.
    """
    child, serving = await start(0)
    keeper = _Keeper(name, child, lambda: start(serving.port))
    keeping = asyncio.create_task(keeper.keep())
    try:
        yield serving
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])
        await keeper.child.end()


class _Keeper:
    """Starts the process again whenever it dies; `child` is the latest."""

    def __init__(
        self,
        name: str,
        child: ChildProcess,
        start: Callable[[], Awaitable[tuple[ChildProcess, object]]],
    ) -> None:
        self.child = child
        self._name = name
        self._start = start

    async def keep(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            code = await self.child.process.wait()
            ended = asyncio.get_running_loop().time()
            await self.child.end()
            log.error(
                "%s ended (%s: %s); it is started again.", self._name, code, self.child.last_words
            )
            if ended - self.child.since > _STABLE_SECONDS:
                pause = _FIRST_PAUSE
            pause = await self._start_again(pause)

    async def _start_again(self, pause: float) -> float:
        """Put a new process into `child`; return the pause before another one, in seconds."""
        while True:
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            try:
                self.child, _ = await self._start()
            except CannotStart as error:
                log.warning("%s is still not there: %s.", self._name, error)
            else:
                return pause


def _pipes(process: Process) -> tuple[StreamWriter, StreamReader, StreamReader]:
    if process.stdin is None or process.stdout is None or process.stderr is None:
        raise AssertionError("the process was started without pipes")
    return process.stdin, process.stdout, process.stderr
