"""The lifetimes of what a process runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

import pytest

from adapters.slack.limits import Limits
from bot import __main__ as main
from bot.__main__ import until_stopped
from bot.app.platforms import Job
from bot.errors import CannotStart
from bot.text.sanitize import strip_controls
from config.settings import Settings


async def test_a_listener_that_loses_its_cancellation_is_told_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(main, "_HEED_SECONDS", 0.1)
    told = 0

    async def listen() -> None:
        nonlocal told
        while told < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                told += 1
        raise asyncio.CancelledError

    stopping = asyncio.Event()
    stopping.set()

    async with asyncio.timeout(10):
        await until_stopped({"discord": listen()}, stopping)

    assert told == 2


class Jobs:
    """What a process runs, and how each came to its end."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self.cancelled: list[str] = []
        self.drained = False

    async def listen(self, name: str) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise

    async def work(self) -> None:
        await self.stopping.wait()
        await asyncio.sleep(0.1)
        self.drained = True

    async def fail(self) -> None:
        raise CannotStart("the token is refused")

    async def end(self) -> None:
        """As a terminal whose input is at its end."""

    async def until_stopped(self, jobs: Mapping[str, Job]) -> None:
        async with asyncio.timeout(10):
            await until_stopped(jobs, self.stopping)


async def test_a_listener_that_fails_ends_the_others_and_lets_replies_end() -> None:
    jobs = Jobs()

    with pytest.raises(CannotStart):
        await jobs.until_stopped(
            {"discord": jobs.fail(), "slack": jobs.listen("slack"), "worker": jobs.work()}
        )

    assert (jobs.cancelled, jobs.drained) == (["slack"], True)


async def test_the_end_of_the_terminal_ends_nobody_who_listens_elsewhere() -> None:
    jobs = Jobs()
    running = asyncio.create_task(
        jobs.until_stopped({"console": jobs.end(), "discord": jobs.listen("discord")})
    )
    await asyncio.sleep(0.1)
    before = list(jobs.cancelled)

    jobs.stopping.set()
    await running

    assert (before, jobs.cancelled) == ([], ["discord"])


async def test_the_end_of_a_terminal_that_is_alone_lets_its_replies_end() -> None:
    jobs = Jobs()

    await jobs.until_stopped({"console": jobs.end(), "worker": jobs.work()})

    assert jobs.drained


def test_no_listener_is_told_again_while_it_ends_what_it_began() -> None:
    assert Limits().job_grace < main._HEED_SECONDS


EVIL = "\x1b[2J\x9b31m\u202ebad\u2066\x00\x85\u2028\n2026-11-22 12:00:00,000 INFO bot: Stopped\r\n"


def a_line(record: logging.LogRecord) -> str:
    return main._Masking(Settings(hf_token="hf_secret_of_ours")).format(record)


def a_record(message: str, *arguments: object, error: Exception | None = None) -> logging.LogRecord:
    about = (type(error), error, error.__traceback__) if error else None
    return logging.LogRecord("bot", logging.WARNING, "bot.py", 1, message, arguments, about)


def test_what_a_server_says_forges_no_line_of_the_log() -> None:
    line = a_line(a_record("The model failed: %s", EVIL))

    assert len(line.splitlines()) == 1
    assert line == strip_controls(line)
    assert "bad" in line


def test_a_traceback_keeps_its_lines_and_forges_none() -> None:
    record = a_record("Turn %s failed", "t1", error=ValueError(EVIL))

    first, *others = a_line(record).splitlines()

    assert first.endswith("Turn t1 failed")
    assert any("ValueError" in line for line in others)
    assert all(line.startswith(" ") and line == strip_controls(line) for line in others)


def test_a_secret_behind_controls_is_masked() -> None:
    line = a_line(a_record("refused: %s", "hf_sec\x1bret_of\u202e_ours"))

    assert "***" in line
    assert "ours" not in line
