"""The log of a turn: its id in each line of the work, and one line with figures at its end."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from bot.concurrency import turn_in_work
from bot.domain import Reading
from bot.errors import ModelUnavailable
from bot.store import Store
from tests.support.at_work import POLICY, make_queue, make_turn, make_worker, outcome, working
from tests.support.fakes import FakeModel, FakePlatform
from tests.support.waiting import until


async def ended(store: Store, model: FakeModel, caplog: pytest.LogCaptureFixture) -> dict[str, Any]:
    """Have a turn answered, and return the figures of its line."""
    caplog.set_level(logging.INFO)
    await make_queue(store).admit(make_turn(1, text="a secret question"))
    async with working(make_worker(store, FakePlatform(), model, policy=POLICY)):
        await until(lambda: any("ended" in line for line in caplog.messages))
    (line,) = [it for it in caplog.records if "ended" in it.message]
    assert line.message.startswith("Turn console:1 ended: platform=console server=local")
    figures: dict[str, Any] = vars(line)["figures"]
    return figures


async def test_a_turn_that_ends_is_one_line_of_figures(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    figures = await ended(store, FakeModel([Reading(0), "a secret ", "answer"], pause=0.02), caplog)

    assert figures["outcome"] == await outcome(store) == "done"
    assert (figures["person"], figures["channel"], figures["tries"]) == ("u1", "ann", 1)
    assert (figures["model"], figures["limited"]) == ("fake", 0)
    assert figures["writes"] >= 1
    assert (figures["read"], figures["written"] > 0) == (0, True)
    assert 0 <= figures["waited"] <= figures["first_text"] <= figures["seconds"]
    assert not any("secret" in line for line in caplog.messages)


async def test_a_turn_that_failed_has_no_first_text(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    figures = await ended(store, FakeModel([], error=ModelUnavailable("away")), caplog)

    assert figures["outcome"] == "failed"
    assert "first_text" not in figures
    assert figures["writes"] == 1


async def test_each_line_of_the_work_knows_its_turn(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    known: list[tuple[str, str]] = []

    class Noting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            known.append((turn_in_work.get(), record.getMessage()))

    noting = Noting()
    logging.getLogger("bot").addHandler(noting)
    try:
        await ended(store, FakeModel([], error=ModelUnavailable("away")), caplog)
    finally:
        logging.getLogger("bot").removeHandler(noting)

    # Logged by a task of the reply.
    assert [turn for turn, line in known if "the model failed" in line] == ["console:1"]
    assert turn_in_work.get() == ""
