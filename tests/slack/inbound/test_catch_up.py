"""What people wrote while nobody heard Slack is heard, through the real slack-bolt and a store."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from pathlib import Path

import pytest

from adapters.slack.history import PAGES
from bot.domain import EditBudget
from bot.store import Store
from bot.store import connect as connect_store
from tests.emulators.faults import How
from tests.emulators.model import ModelEmulator
from tests.emulators.slack.conversations import UNLISTED_MOST
from tests.emulators.slack.rates import Rate
from tests.support.fakes import FakeIntake, NoLimits
from tests.support.process import SlackDm, bot, slack_variables
from tests.support.slack_outage import (
    TEAM,
    a_process,
    lost,
    missed,
    missed_from_each,
    missed_in_thread,
    passed,
    quiet,
    reads,
    silence,
    until_heard,
    until_noted,
    used,
)
from tests.support.slack_platform import SHORT_PAGES
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("short_beats")


# After an outage


async def test_a_dm_that_nobody_heard_is_a_turn(store: Store) -> None:
    before, after = FakeIntake(), FakeIntake()
    async with quiet() as slack:
        ann = slack.user("Ann")
        dm = slack.dm(ann)
        async with a_process(slack, before, store):
            await slack.say(dm, ann, "one")
            await until_noted(store, "dms", f"{dm}:")
        await slack.say(dm, ann, "two")
        await slack.say(dm, ann, "three")
        await lost(slack, events=2)
        await passed(store, 60)

        async with a_process(slack, after, store):
            await until(lambda: "three" in after.texts)

    assert [text for text in after.texts if text != "one"] == ["two", "three"]
    assert after.last.place["thread"] is None
    assert before.last.key == after.last.key


@pytest.mark.parametrize("direct", [True, False])
async def test_a_question_in_a_thread_that_nobody_heard_is_a_turn(
    store: Store, direct: bool
) -> None:
    before, after = FakeIntake(), FakeIntake()
    async with quiet() as slack:
        ann = slack.user("Ann")
        place = slack.dm(ann) if direct else slack.channel_id
        mention = "" if direct else f"{slack.bot_mention} "
        async with a_process(slack, before, store):
            root = await slack.say(place, ann, f"{mention}one")
            await until(lambda: before.turns)
            await slack.say(place, ann, f"{mention}two", thread_ts=root)
            await until_noted(store, "threads", f"{place}:{root}")
        await slack.say(place, ann, f"{mention}three", thread_ts=root)
        if not direct:
            await slack.say(place, ann, "not for the bot", thread_ts=root)
        # A mention is told as what it is and as a message.
        await lost(slack, events=1 if direct else 3)
        await passed(store, 60)

        async with a_process(slack, after, store):
            await until(lambda: "three" in after.texts)
            await until_heard(store)

    assert [text for text in after.texts if text not in ("one", "two")] == ["three"]
    assert after.last.key == before.last.key


async def test_a_question_that_has_replies_by_now_is_answered_where_it_was_asked(
    store: Store,
) -> None:
    after = FakeIntake()
    async with quiet() as slack:
        dm = await missed(slack, store, "two")
        root = slack.screen(dm)[-1].ts
        await slack.say(dm, slack.user("Ben"), "and quickly", thread_ts=root)
        await lost(slack, events=2)

        async with a_process(slack, after, store):
            await until(lambda: after.texts == ["two"])

    assert after.last.place["thread"] is None


async def test_a_process_that_lost_its_sockets_looks_for_what_it_missed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.slack.inbound.sockets._PAUSES", (0.0, 0.0, 0.05))
    intake = FakeIntake()
    async with quiet() as slack:
        ann = slack.user("Ann")
        dm = slack.dm(ann)
        async with a_process(slack, intake, store):
            await slack.say(dm, ann, "one")
            await until_noted(store, "dms", f"{dm}:")
            slack.fail("apps.connections.open", status=500, times=1000)
            await slack.cut()
            await until(lambda: slack.sockets == 0)
            await slack.say(dm, ann, "two")
            await lost(slack)
            await passed(store, 60)
            await asyncio.sleep(0.1)
            assert reads(slack) == []

            slack.heal()
            await until(lambda: "two" in intake.texts)

    assert intake.texts == ["one", "two"]


async def test_the_question_that_began_a_thread_is_not_read_as_one_that_was_missed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.slack.inbound.catch_up.PATIENCE", 0.0)
    before, after = FakeIntake(), FakeIntake()
    async with quiet() as slack:
        ann = slack.user("Ann")
        async with a_process(slack, before, store):
            root = await slack.say(slack.channel_id, ann, f"{slack.bot_mention} one")
            await until_noted(store, "threads", f"{slack.channel_id}:{root}")
        await passed(store, 60)

        async with a_process(slack, after, store):
            await until(lambda: reads(slack))
            await until_heard(store)

    assert after.texts == []


async def test_nobody_is_answered_who_does_not_wait_any_more(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("adapters.slack.inbound.catch_up.PATIENCE", 0.0)
    after = FakeIntake()
    async with quiet() as slack:
        await missed(slack, store, "two")
        await passed(store, 3600)

        async with a_process(slack, after, store):
            await until(lambda: reads(slack))
            await until_heard(store)

    assert after.texts == []
    # It was read.
    assert "could not be read in time" not in caplog.text


async def test_what_was_said_shortly_before_slack_was_heard_last_is_a_turn(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.slack.inbound.outage._GAP", 0)
    after = FakeIntake()
    async with quiet() as slack:
        await missed(slack, store, "two")
        await passed(store, -1)
        async with asyncio.timeout(10):
            while await silence(store) < 1:
                await asyncio.sleep(0.01)

        async with a_process(slack, after, store):
            await until(lambda: after.texts == ["two"], within=10)


async def test_a_bot_that_starts_for_the_first_time_reads_nothing(store: Store) -> None:
    intake = FakeIntake()
    async with quiet() as slack:
        ann = slack.user("Ann")
        await slack.say(slack.dm(ann), ann, "hello?")
        await lost(slack)

        async with a_process(slack, intake, store):
            await until_heard(store)

        assert (reads(slack), intake.texts) == ([], [])


async def test_a_bot_that_was_away_for_seconds_reads_nothing(store: Store) -> None:
    async with quiet() as slack:
        await missed(slack, store, "two")
        await passed(store, 3)

        async with a_process(slack, FakeIntake(), store):
            await until_heard(store)

        assert reads(slack) == []


# However the reading goes


@pytest.mark.parametrize("how", ["status", "drop", "hang"])
async def test_a_place_whose_reading_fails_is_read_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, how: How
) -> None:
    monkeypatch.setattr("adapters.slack.inbound.catch_up._TOGETHER", 0.5)
    after = FakeIntake()
    async with quiet() as slack:
        await missed(slack, store, "two")
        slack.fail("conversations.history", how)

        async with a_process(slack, after, store):
            await until(lambda: after.texts == ["two"])
            await until_heard(store)


class BreaksOnce(NoLimits):
    """Edit budgets with a mistake that shows once."""

    broken = False

    async def final(self, budget: EditBudget, *, deadline: float) -> None:
        if not self.broken:
            self.broken = True
            raise ZeroDivisionError


async def test_a_look_that_breaks_is_gone_on_with(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    after = FakeIntake()
    async with quiet() as slack:
        await missed(slack, store, "two")

        async with a_process(slack, after, store, budgets=BreaksOnce()):
            await until(lambda: after.texts == ["two"])
            await until_heard(store)

    assert "could not be looked through" in caplog.text


async def test_a_place_whose_reading_fails_holds_up_no_other(store: Store) -> None:
    after = FakeIntake()
    async with quiet() as slack:
        await missed_from_each(slack, store, "Ann", "Ben", "Cleo")
        slack.fail("conversations.history", status=500)

        async with a_process(slack, after, store):
            await until(lambda: len(after.texts) == 3)

    assert after.texts == ["Ben", "Ann", "Cleo"]


async def test_threads_are_read_though_dms_hang(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.slack.inbound.catch_up._TOGETHER", 0.3)
    after = FakeIntake()
    async with quiet() as slack:
        await used(store, ("D0HANGS", ""))
        await missed_in_thread(slack, store, ["one"], talk=0)
        slack.fail("conversations.history", "hang", times=1000)

        async with a_process(slack, after, store):
            await until(lambda: after.texts == ["one"], within=5)
        slack.heal()


async def test_nothing_counts_as_heard_before_it_is_read(store: Store) -> None:
    after = FakeIntake()
    async with quiet() as slack:
        await missed(slack, store, "two")
        slack.fail("conversations.history", status=500, times=1000)

        async with a_process(slack, after, store):
            await until(lambda: len(reads(slack)) > 1)
            await asyncio.sleep(0.1)
            assert await silence(store) >= 60

            slack.heal()
            await until(lambda: after.texts == ["two"])
            await until_heard(store)


async def test_a_pause_that_slack_asks_for_is_kept_and_then_the_rest_is_read(store: Store) -> None:
    after = FakeIntake()
    once_a_second = Rate(calls=1, seconds=1.0, burst=1)
    async with quiet(rates={"conversations.history": once_a_second}) as slack:
        await missed_from_each(slack, store, "Ann", "Ben", "Cleo")

        async with a_process(slack, after, store):
            await until(lambda: len(after.texts) == 3)
            await until_heard(store)

        # One after each refusal, and none while a refusal lasts.
        refused = [call.limited for call in slack.requests if call.method == reads(slack)[0]]
        assert refused == [False, True, False, True, False]
    assert after.texts == ["Cleo", "Ben", "Ann"]


async def test_places_beyond_our_own_limit_wait_for_the_next_minute(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.slack.inbound.catch_up._REQUESTS", 2)
    monkeypatch.setattr("adapters.slack.inbound.catch_up._MINUTE", 1.0)
    after = FakeIntake()
    async with quiet() as slack:
        await missed_from_each(slack, store, "Ann", "Ben", "Cleo")

        async with a_process(slack, after, store):
            await until(lambda: len(after.texts) == 3)

        first, _, third = [call.at for call in slack.requests if call.method == reads(slack)[0]]
        assert third - first > 0.9


async def test_what_is_found_waits_for_no_place_beyond_our_own_limit(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.slack.inbound.catch_up._REQUESTS", 2)
    after = FakeIntake()
    async with quiet() as slack:
        await missed_from_each(slack, store, "Ann", "Ben", "Cleo")

        async with a_process(slack, after, store):
            await until(lambda: after.texts == ["Cleo", "Ben"], within=10)

        assert len(reads(slack)) == 2


@pytest.mark.parametrize("direct", [True, False])
async def test_all_pages_of_a_place_are_read_and_told_in_order(store: Store, direct: bool) -> None:
    after = FakeIntake()
    texts = [f"question {number}" for number in range(UNLISTED_MOST)]
    async with quiet(unlisted=True, rates=SHORT_PAGES) as slack:
        if direct:
            texts += ["one more", "the last"]
            await missed(slack, store, *texts)
        else:
            await missed_in_thread(slack, store, texts, talk=UNLISTED_MOST)

        async with a_process(slack, after, store):
            await until(lambda: len(after.texts) == len(texts))
            await until_heard(store)

        assert len(reads(slack)) == (2 if direct else 3)
    assert after.texts == texts


@pytest.mark.parametrize("texts", [["one"], ["one", "two"]])
async def test_of_a_place_with_very_much_talk_the_rest_is_left_out_and_told(
    store: Store, caplog: pytest.LogCaptureFixture, texts: list[str]
) -> None:
    after = FakeIntake()
    async with quiet(unlisted=True, rates=SHORT_PAGES) as slack:
        # The parent is on the first page.
        await missed_in_thread(slack, store, texts, talk=PAGES * UNLISTED_MOST - 2)

        async with a_process(slack, after, store):
            await until_heard(store)

        assert len(reads(slack)) == PAGES
    assert after.texts == ["one"]
    is_told = "has more messages than are looked through" in caplog.text
    assert is_told == ("two" in texts)


async def test_what_cannot_be_read_in_time_is_left_out_and_told(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("adapters.slack.inbound.catch_up.PATIENCE", 0.3)
    async with quiet() as slack:
        await used(store, (slack.channel_id, "1700000000.000100"))
        dm = await missed(slack, store, "two")
        slack.fail("conversations.history", status=500, times=1000)
        slack.fail("conversations.replies", status=500, times=1000)

        async with a_process(slack, FakeIntake(), store):
            await until_heard(store)
        slack.heal()

    names = f"{dm} {slack.channel_id}:1700000000.000100"
    assert f"could not be read in time: {names}" in caplog.text


async def test_what_was_read_in_time_is_told_though_the_rest_of_its_place_was_not(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    after = FakeIntake()
    texts = [f"question {number}" for number in range(UNLISTED_MOST + 1)]
    async with quiet(unlisted=True, rates=SHORT_PAGES) as slack:
        await missed(slack, store, *texts)
        slack.fail("conversations.history", status=500, times=1000, after=1)

        async with a_process(slack, after, store):
            await until(lambda: len(reads(slack)) > 1)
            monkeypatch.setattr("adapters.slack.inbound.catch_up.PATIENCE", 0.0)
            await until(lambda: after.texts == texts[:UNLISTED_MOST], within=10)
        slack.heal()


async def test_a_place_that_cannot_be_read_hides_no_other(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    after = FakeIntake()
    async with quiet() as slack:
        await used(store, ("D0GONE", ""))
        await missed(slack, store, "two")

        async with a_process(slack, after, store):
            await until(lambda: after.texts == ["two"])
            await until_heard(store)

        assert len(reads(slack)) == 2
    assert "D0GONE cannot be looked through" in caplog.text


async def test_a_process_that_ends_in_mid_look_leaves_it_to_the_next(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.slack.inbound.outage._LOOK_SECONDS", 1)
    after = FakeIntake()
    async with quiet() as slack:
        await missed(slack, store, "two")
        slack.fail("conversations.history", status=500, times=1000)
        async with a_process(slack, FakeIntake(), store):
            await until(lambda: reads(slack))
        slack.heal()

        async with a_process(slack, after, store):
            await until(lambda: after.texts == ["two"])


async def test_sockets_that_are_lost_in_mid_look_are_looked_for_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.slack.inbound.sockets._PAUSES", (0.0, 0.0, 0.05))
    after = FakeIntake()
    async with quiet() as slack:
        await used(store, (slack.channel_id, "1700000000.000100"))
        dm = await missed(slack, store, "two")
        slack.fail("conversations.replies", status=500, times=1000)
        async with a_process(slack, after, store):
            await until(lambda: after.texts == ["two"])
            slack.fail("apps.connections.open", status=500, times=1000)
            await slack.cut()
            await until(lambda: slack.sockets == 0)
            await slack.say(dm, slack.user("Ann"), "three")
            await lost(slack, events=2)
            await asyncio.sleep(0.1)

            slack.heal()
            await until(lambda: after.texts == ["two", "three"])


async def test_a_look_that_is_over_serves_no_later_outage(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that the next beat comes after the next outage.
    monkeypatch.setattr("adapters.slack.inbound.heartbeat._BEAT_SECONDS", 0.5)
    async with quiet() as slack:
        await missed(slack, store, "two")

        async with a_process(slack, FakeIntake(), store):
            await until_heard(store)
            await passed(store, 60)
            await until_heard(store)

        assert len(reads(slack)) == 2


async def test_a_look_that_another_process_has_ended_serves_no_later_outage(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with quiet() as slack:
        await missed(slack, store, "two")
        slack.fail("conversations.history", status=500, times=1000)

        async with a_process(slack, FakeIntake(), store):
            await until(lambda: reads(slack))
            await store.command("DEL", store.key("slack", TEAM, "looking"))
            await passed(store, 3)
            await until_heard(store)
            await passed(store, 60)
            slack.heal()
            await until_heard(store)

    assert caplog.text.count("Slack was not heard for") == 2


# As processes


async def test_what_is_said_while_a_killed_process_is_away_is_answered() -> None:
    async with quiet() as slack, ModelEmulator() as model:
        variables = slack_variables(slack, model)
        with tempfile.TemporaryDirectory(prefix="parley-") as folder:
            data_dir, way = Path(folder), SlackDm(slack)
            async with connect_store(url="", data_dir=data_dir) as store:
                async with bot(data_dir=data_dir, variables=variables) as first:
                    await until(lambda: slack.sockets == 2)
                    await way.ask("one")
                    await until(lambda: way.finals() == ["You said: one"])
                    await until_noted(store, "dms", f"{way.channel}:")
                    first.kill()
                    await first.process.wait()
                await way.ask("two")
                await lost(slack)
                await passed(store, 60)

                async with bot(data_dir=data_dir, variables=variables):
                    await until(lambda: way.finals() == ["You said: one", "You said: two"])

    assert len(model.requests) == 2
