"""Supervised processes, with one that does what it is asked for."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import fields
from functools import partial

import pytest

from bot.concurrency import Backoff
from bot.errors import CannotStart
from bot.local.child_process import ChildProcess, JsonObject, Timings, starting, supervised
from bot.text.sanitize import one_line
from config.settings import Settings
from tests.support.process import alive
from tests.support.waiting import until

CHILD = "tests.local.some_child"
HINT = "use less"
QUICK = Timings(restart=Backoff(first=0.01, longest=0.3))
IMPATIENT = Timings(ready=0.2, end=0.2)


class Starter:
    """Starts processes."""

    def __init__(self, *, does: str = "serve", errors: str = "", timings: Timings = QUICK) -> None:
        self.started: list[JsonObject] = []
        self._request = {"does": does, "errors": errors}
        self._timings = timings

    def supervise(self) -> AbstractAsyncContextManager[JsonObject]:
        return supervised("the model", self.start, timings=self._timings)

    async def start(self, port: int) -> ChildProcess:
        try:
            async with starting(
                CHILD,
                is_error=bool,
                memory_hint=HINT,
                timings=self._timings,
            ) as child:
                await child.send({**self._request, "port": port})
                child.report = await child.receive()
        except OSError as error:
            raise CannotStart(f"it did not start: {child.reason}") from error
        self.started.append(child.report)
        return child

    async def kill(self) -> None:
        """Kill the latest process, and wait for the next one."""
        count = len(self.started)
        os.kill(self.started[-1]["pid"], signal.SIGKILL)
        await until(lambda: len(self.started) > count)


async def test_lines_of_libraries_on_standard_output_are_ignored() -> None:
    starter = Starter()
    async with starter.supervise() as served:
        assert served["port"]
    assert not alive(served["pid"])


async def test_a_process_that_dies_during_the_start_is_refused_with_its_last_line() -> None:
    with pytest.raises(CannotStart, match="did not start: this machine is too old"):
        async with Starter(does="die").supervise():
            pass


async def test_a_process_that_is_killed_during_the_start_is_refused_with_the_hint() -> None:
    with pytest.raises(CannotStart, match=f"memory: {HINT}"):
        async with Starter(does="run out of memory").supervise():
            pass


async def test_a_process_that_is_killed_again_and_again_restarts_at_its_port(
    caplog: pytest.LogCaptureFixture,
) -> None:
    starter = Starter()
    async with starter.supervise():
        await starter.kill()
        await starter.kill()

    assert len({served["pid"] for served in starter.started}) == 3
    assert len({served["port"] for served in starter.started}) == 1
    assert not any(alive(served["pid"]) for served in starter.started)
    errors = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
    assert len(errors) == 2
    assert HINT in errors[0]


async def test_a_port_that_another_program_has_taken_is_waited_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    starter = Starter()
    attempts = 0

    async def start(port: int) -> ChildProcess:
        nonlocal attempts
        attempts += 1
        with socket.socket() as other:
            if attempts == 2:
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                other.bind(("127.0.0.1", port))
                other.listen()
            return await starter.start(port)

    async with supervised("the model", start, timings=QUICK):
        await starter.kill()

    assert attempts == 3
    assert "Address already in use" in caplog.text


def has_warned(caplog: pytest.LogCaptureFixture) -> bool:
    return any(record.levelno == logging.WARNING for record in caplog.records)


async def test_a_restart_that_fails_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    starter = Starter()
    async with starter.supervise() as served:
        with no_more_files():
            os.kill(served["pid"], signal.SIGKILL)
            await until(partial(has_warned, caplog))
        await until(lambda: len(starter.started) == 2)


@contextmanager
def no_more_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_variables_that_look_like_secrets_are_not_passed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secrets = {
        "HUGGING_FACE_HUB_TOKEN": "hf_1",
        "AWS_SECRET_ACCESS_KEY": "1",
        "POSTGRES_PASSWORD": "1",
        "my-api-key": "1",
        "OpenAI_ApiKey": "1",
        "SOME_DATABASE": "postgres://bot:1@here/db",
    }
    needed = {
        "HTTPS_PROXY": "http://bot:1@proxy:1",
        "CUDA_VISIBLE_DEVICES": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HOME": "/models",
    }
    for name, value in (secrets | needed).items():
        monkeypatch.setenv(name, value)

    async with Starter().supervise() as served:
        assert not secrets.keys() & {*served["variables"]}
        assert {*needed, "PATH"} <= {*served["variables"]}


async def test_secrets_of_the_bot_are_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {variable.name.upper() for variable in fields(Settings) if not variable.repr}
    for name in secrets:
        monkeypatch.setenv(name, "hidden")

    async with Starter().supervise() as served:
        assert secrets
        assert not secrets & {*served["variables"]}


async def test_a_canceled_start_leaves_no_process() -> None:
    started: list[ChildProcess] = []

    async def start(_: int) -> ChildProcess:
        async with starting(CHILD, is_error=bool, memory_hint="", timings=IMPATIENT) as child:
            started.append(child)
            await child.send({"does": "hang"})
            child.report = await child.receive()
            return child

    async def supervise() -> None:
        async with supervised("the model", start):
            pass

    supervising = asyncio.create_task(supervise())
    await until(lambda: started)
    supervising.cancel()
    await asyncio.wait([supervising])

    assert supervising.cancelled()
    await until(lambda: started[0].process.returncode is not None)


async def test_what_a_process_wrote_last_is_logged_as_one_line_of_bounded_length(
    caplog: pytest.LogCaptureFixture,
) -> None:
    errors = "\x1b[31m\x9bunknown architecture\u202e \u2028" + "x" * 50_000
    starter = Starter(does="fail", errors=errors)

    with pytest.raises(CannotStart) as caught:
        await starter.start(0)

    line = str(caught.value)
    assert "unknown architecture" in line
    assert line == one_line(line)
    assert len(line) < 2000
