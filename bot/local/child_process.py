"""Supervised child processes that serve on loopback."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import sys
from asyncio import StreamReader
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bot.concurrency import Backoff, end_process, running
from bot.errors import CannotStart
from bot.text.sanitize import one_line

log = logging.getLogger(__name__)

_CHUNK_BYTES = 65_536  # of standard error; also the limit of a line while it is read
_LINE_LENGTH = 1000  # characters that are kept of a line
# Parts of names of secrets; TOKENIZERS_PARALLELISM has none. An address may contain a password.
_HIDDEN = re.compile(
    r"(?i)(?<![a-z])(token|secret|pass(word|wd)?|credentials?|(api)?keys?|url|dsn)(?![a-z])"
)
_LOGIN = re.compile(r"://[^/@\s]*:[^/@\s]*@")
_REPOSITORY = Path(__file__).resolve().parents[2]

JsonObject = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Timings:
    """The time limits of a process, in seconds, and the pauses before a restart."""

    ready: float = 600.0  # a large model from a slow disk
    end: float = 3.0
    restart: Backoff = Backoff(first=1.0, longest=30.0)


_TIMINGS = Timings()


@dataclass(frozen=True, slots=True)
class LocalServer:
    """An OpenAI-compatible server on loopback."""

    url: str
    api_key: str = field(repr=False)
    name: str
    context_tokens: int  # of one conversation
    max_tokens: int | None = None  # the longest answer, if the model limits it
    is_dialogue: bool = False  # it continues a conversation and follows no instructions


class ChildProcess:
    """A process that exchanges JSON objects, one per line, until its input is closed.

    `report` is its message when it began to serve; `errors` are its last lines on standard error.
    """

    def __init__(
        self,
        process: Process,
        *,
        is_error: Callable[[str], bool],
        memory_hint: str,
        timings: Timings,
    ) -> None:
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise AssertionError("the process was started without pipes")
        self.process = process
        self.report: JsonObject = {}
        self.errors: deque[str] = deque(maxlen=50)
        self._stdin, self._stdout = process.stdin, process.stdout
        self._is_error = is_error
        self._memory_hint = memory_hint
        self._end_seconds = timings.end
        self._is_killed_by_us = False
        self._reading = asyncio.create_task(self._read_errors(process.stderr))

    @property
    def is_out_of_memory(self) -> bool:
        """Whether it was killed from outside, mostly by the kernel for lack of memory."""
        return self.process.returncode == -9 and not self._is_killed_by_us

    @property
    def reason(self) -> str:
        """Why it ended, if known."""
        if self.is_out_of_memory:
            return f"it was killed, probably for lack of memory: {self._memory_hint}"
        return self.errors[-1] if self.errors else "it gave no reason"

    async def send(self, message: JsonObject) -> None:
        """Write a message to standard input, which `ps` does not show. OSError if it has ended."""
        self._stdin.write(json.dumps(message).encode() + b"\n")
        await self._stdin.drain()

    async def receive(self) -> JsonObject:
        """Wait for the next message. OSError if the process ends without one."""
        while not self._stdout.at_eof():
            # Skips lines that libraries print while they are imported.
            with suppress(ValueError):
                if isinstance(message := json.loads(await self._stdout.readline()), dict):
                    return message
        raise BrokenPipeError("it has ended")

    async def end(self) -> None:
        """Terminate the process; returns when it has exited and its errors were read."""
        self._stdin.close()
        await end_process(self.process, seconds=self._end_seconds, kill=self._kill)
        await asyncio.wait([self._reading], timeout=self._end_seconds)
        self._reading.cancel()

    def _kill(self) -> None:
        self._is_killed_by_us = True
        self.process.kill()

    async def _read_errors(self, stderr: StreamReader) -> None:
        unfinished = b""
        while chunk := await stderr.read(_CHUNK_BYTES):
            # A progress bar ends its lines with a carriage return.
            *lines, unfinished = re.split(rb"[\r\n]+", unfinished + chunk)
            unfinished = unfinished[-_CHUNK_BYTES:]
            for line in lines:
                self._keep_error(line)
        self._keep_error(unfinished)

    def _keep_error(self, line: bytes) -> None:
        # A line may repeat untrusted parts of a model's file.
        text = one_line(line.decode(errors="replace"))
        if text and self._is_error(text):
            self.errors.append(text[:_LINE_LENGTH])


@asynccontextmanager
async def starting(
    module: str,
    *,
    environment: Mapping[str, str] = MappingProxyType({}),
    is_error: Callable[[str], bool] = bool,
    memory_hint: str,
    timings: Timings = _TIMINGS,
) -> AsyncIterator[ChildProcess]:
    """Start a process. The block makes it ready; if the block fails, the process is terminated.

    The process gets this process's environment without secrets, and `environment`. `is_error`
    selects the lines of standard error to keep. `memory_hint` tells an operator how to save memory.
    Raises CannotStart if no process can be started here, and TimeoutError if it is not ready in
    time.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            cwd=_REPOSITORY,
            env={**_environment(), **environment},
            # Ctrl-C in the terminal must not reach the child; the parent ends it.
            start_new_session=True,
        )
    except OSError as error:
        raise CannotStart(f"no process can be started here: {error.strerror}") from error
    child = ChildProcess(process, is_error=is_error, memory_hint=memory_hint, timings=timings)
    try:
        async with asyncio.timeout(timings.ready):
            yield child
    except BaseException:
        await child.end()
        raise


def _environment() -> dict[str, str]:
    # The process gets the secrets that it needs by message. All else that looks like a secret is
    # left out: no list could name all variables that CUDA, PyTorch and huggingface_hub read. A
    # proxy's login is needed to fetch a model.
    return {
        name: value
        for name, value in os.environ.items()
        if not _HIDDEN.search(name)
        and (name.lower().endswith("_proxy") or not _LOGIN.search(value))
    }


@asynccontextmanager
async def supervised(
    name: str, start: Callable[[int], Awaitable[ChildProcess]], *, timings: Timings = _TIMINGS
) -> AsyncIterator[JsonObject]:
    """Run a process while the context lasts; yields its first report.

    `start` gets the port to listen on, 0 for any. If the process dies, it is restarted on the same
    port. `name` names it in the log. Raises CannotStart if the first start fails.
    """
    child = await start(0)
    report = child.report

    async def supervise() -> None:
        nonlocal child
        while True:
            status = await child.process.wait()
            await child.end()
            log.error("%s ended (%s: %s); it is restarted", name, status, child.reason)
            for pause in timings.restart.pauses():
                await asyncio.sleep(pause)
                try:
                    child = await start(report["port"])
                    break
                except CannotStart as error:
                    log.warning("Cannot restart the process of %s, will retry: %s", name, error)

    try:
        async with running(supervise()):
            yield report
    finally:
        await child.end()
