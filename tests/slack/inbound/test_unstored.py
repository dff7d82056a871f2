"""What people say in Slack while it cannot be stored is a turn later."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from bot.domain import Turn
from bot.errors import StoreUnavailable
from bot.store import Store
from bot.store import connect as connect_store
from tests.support.fakes import FakeQueue
from tests.support.outage import line
from tests.support.slack_platform import (
    LIMITS,
    listening,
    lost,
    missed,
    passed,
    quiet,
    reads,
    silence,
    until_heard,
)
from tests.support.waiting import until


async def test_a_store_outage_while_catching_up_loses_nothing(store: Store) -> None:
    after = FakeQueue()
    async with quiet() as slack:
        await missed(slack, store, "two")

        after.refuses = StoreUnavailable("away")
        async with listening(slack, after, store):
            await until(lambda: after.refusals > 1)
            assert await silence(store) >= 60
            after.refuses = None
            await until(lambda: after.texts == ["two"])

        assert len(reads(slack)) == 1


async def test_what_is_said_while_the_store_is_away_is_a_turn_when_it_is_back(
    store: Store, valkey_url: str, tmp_path: Path
) -> None:
    intake, prefix = FakeQueue(), store.key("").partition(":")[0]
    with tempfile.TemporaryDirectory() as folder:
        async with (
            line(valkey_url, Path(folder)) as way,
            connect_store(url=way.url, data_dir=tmp_path, prefix=prefix) as cut_off,
            quiet() as slack,
            listening(slack, intake, cut_off),
        ):
            await until_heard(store)
            await way.cut()
            intake.refuses = StoreUnavailable("away")
            await missed(slack, store, "two")

            intake.refuses = None
            await way.mend()
            await until(lambda: intake.texts == ["two"])


async def test_what_one_process_could_not_store_is_retried_without_slack(store: Store) -> None:
    # A busy machine may take longer than what counts as no outage.
    intake, limits = FakeQueue(), replace(LIMITS, outage_after=60)
    async with quiet() as slack, listening(slack, intake, store, limits=limits):
        ann = slack.user("Ann")
        await until_heard(store)
        intake.refuses = StoreUnavailable("away")
        ts = await slack.say(slack.dm(ann), ann, "two")
        await until(lambda: intake.refusals)
        await lost(slack)
        await slack.delete(slack.dm(ann), ts)
        await lost(slack, events=2)
        await passed(store, 4)
        tried = intake.refusals
        await until(lambda: intake.refusals > tried + 2)
        kept_open = await silence(store)

        intake.refuses = None
        await until(lambda: intake.forgotten)
        await until_heard(store)

        assert (intake.texts, len(intake.forgotten), reads(slack)) == (["two"], 1, [])
    # Another process would look, should this one end before.
    assert kept_open >= 4


class Refusing(FakeQueue):
    """Notes what was asked in vain."""

    def __init__(self) -> None:
        super().__init__()
        self.refused = set[str]()

    async def admit(self, turn: Turn, **how: object) -> bool:
        if self.refuses:
            self.refused.add(turn.text)
        return await super().admit(turn, **how)


async def test_what_waits_for_the_store_does_not_pile_up(store: Store) -> None:
    intake, limits = Refusing(), replace(LIMITS, unstored_events=2)
    async with quiet() as slack, listening(slack, intake, store, limits=limits):
        ann = slack.user("Ann")
        intake.refuses = StoreUnavailable("away")
        for number, text in enumerate(("one", "two", "three"), start=1):
            await slack.say(slack.dm(ann), ann, text)
            await until(lambda: text in intake.refused)  # noqa: B023
            await lost(slack, events=number)

        intake.refuses = None
        await until_heard(store)
        await until(lambda: len(intake.turns) == 2)

        assert intake.texts == ["one", "two"]


async def test_a_question_that_cannot_be_handled_holds_up_no_other(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    after = FakeQueue()
    async with quiet() as slack:
        await missed(slack, store, "two")

        after.refuses = RuntimeError("broken")
        async with listening(slack, after, store):
            await until_heard(store)

    assert after.refusals == 1
    assert logging.ERROR in {one.levelno for one in caplog.records}
