"""Events wait for the store in their order, and not without end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from adapters.discord.backlog import Backlog, Errand
from bot.errors import (
    PlaceGone,
    StoreUnavailable,
    SurfaceError,
    WriteDelayed,
    WriteFailed,
    WriteRefused,
)
from tests.waiting import until


@asynccontextmanager
async def working(backlog: Backlog) -> AsyncIterator[None]:
    task = asyncio.create_task(backlog.work())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Errands:
    """Makes errands that fail while `away`, and writes their names down when they are done.

    `tries` counts how often any of them was begun.
    """

    def __init__(self) -> None:
        self.away: Exception | None = StoreUnavailable("away")
        self.done: list[str] = []
        self.tries = 0

    def __call__(self, name: str) -> Errand:
        async def run() -> None:
            self.tries += 1
            if self.away:
                raise self.away
            self.done.append(name)

        return run


async def test_of_more_than_a_hundred_waiting_questions_the_oldest_are_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backlog, errand = Backlog(), Errands()
    for number in range(103):
        backlog.add_question(f"{number}", errand(f"{number}"))

    async with working(backlog):
        await until(lambda: "dropped" in caplog.text)
        errand.away = None
        await until(lambda: len(errand.done) == 100)

    assert errand.done == [f"{number}" for number in range(3, 103)]


async def test_deletions_drop_no_question_of_other_people() -> None:
    backlog, errand = Backlog(), Errands()
    for number in range(3):
        backlog.add_question(f"{number}", errand(f"question {number}"))
    for number in range(101):
        backlog.add_deletion([f"another {number}"], errand("deletion"))

    async with working(backlog):
        await until(lambda: errand.tries)
        errand.away = None
        await until(lambda: len(errand.done) == 104)

    assert errand.done[:3] == ["question 0", "question 1", "question 2"]


async def test_of_more_than_a_thousand_waiting_deletions_the_oldest_are_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backlog, errand = Backlog(), Errands()
    for number in range(1002):
        backlog.add_deletion([f"{number}"], errand(f"{number}"))

    async with working(backlog):
        await until(lambda: "2 events from Discord were dropped" in caplog.text)
        errand.away = None
        await until(lambda: len(errand.done) == 1000)

    assert errand.done[0] == "2"


async def test_a_question_that_is_deleted_while_it_waits_is_not_admitted() -> None:
    backlog, errand = Backlog(), Errands()
    for number in range(3):
        backlog.add_question(f"{number}", errand(f"question {number}"))
    async with working(backlog):
        await until(lambda: errand.tries)

        backlog.add_deletion(["0", "2"], errand("deletion"))
        errand.away = None
        await until(lambda: "deletion" in errand.done)

    assert errand.done == ["question 1", "deletion"]


@pytest.mark.parametrize("failure", [PlaceGone("no"), WriteRefused("no")])
async def test_an_errand_that_can_never_succeed_is_dropped_at_once(
    failure: SurfaceError, caplog: pytest.LogCaptureFixture
) -> None:
    backlog, errand = Backlog(), Errands()
    errand.away = failure
    backlog.add_question("1", errand("1"))

    async with working(backlog):
        await until(lambda: "dropped" in caplog.text)
        errand.away = None
        backlog.add_question("2", errand("2"))
        await until(lambda: errand.done)

    assert errand.done == ["2"]
    assert [record.exc_info for record in caplog.records] == [None]


@pytest.mark.parametrize("failure", [WriteFailed("no"), WriteDelayed("no", retry_after=1)])
async def test_an_errand_that_discord_fails_for_long_is_dropped(
    failure: SurfaceError, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.discord.backlog._PATIENCE", 0.1)
    monkeypatch.setattr("adapters.discord.backlog._FIRST_PAUSE", 0.06)
    backlog, errand = Backlog(), Errands()
    errand.away = failure
    backlog.add_question("1", errand("1"))

    async with working(backlog):
        await until(lambda: "dropped" in caplog.text)
        errand.away = None
        backlog.add_question("2", errand("2"))
        await until(lambda: errand.done)

    assert errand.done == ["2"]
    assert "wait" in caplog.text


async def test_an_errand_waits_for_the_store_as_long_as_it_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("adapters.discord.backlog._PATIENCE", 0.0)
    monkeypatch.setattr("adapters.discord.backlog._FIRST_PAUSE", 0.01)
    backlog, errand = Backlog(), Errands()
    backlog.add_question("1", errand("1"))

    async with working(backlog):
        await until(lambda: errand.tries > 2)
        errand.away = None
        await until(lambda: errand.done)

    assert errand.done == ["1"]
