"""What people wrote while nobody heard Slack is heard, through the real slack-bolt and a store."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

import pytest

from adapters.slack.workspace import MOST_PAGES
from bot.concurrency import Backoff
from bot.domain import EditBudget
from bot.store import Store
from tests.emulators.faults import How
from tests.emulators.slack.conversations import UNLISTED_MOST
from tests.emulators.slack.rates import Rate
from tests.support.fakes import FakeQueue, NoLimits
from tests.support.slack_platform import (
    LIMITS,
    SHORT_PAGES,
    TEAM,
    Slots,
    listening,
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
from tests.support.waiting import until

# After an outage


async def test_a_dm_that_nobody_heard_is_a_turn(store: Store) -> None:
    before, after = FakeQueue(), FakeQueue()
    async with quiet() as slack:
        ann = slack.user("Ann")
        dm = slack.dm(ann)
        async with listening(slack, before, store):
            await slack.say(dm, ann, "one")
            await until_noted(store, "dms", f"{dm}:")
        await slack.say(dm, ann, "two")
        await slack.say(dm, ann, "three")
        await lost(slack, events=2)
        await passed(store, 60)

        async with listening(slack, after, store):
            await until(lambda: "three" in after.texts)

    assert [text for text in after.texts if text != "one"] == ["two", "three"]
    assert after.last.place["thread"] is None
    assert before.last.key == after.last.key


@pytest.mark.parametrize("direct", [True, False])
async def test_a_question_in_a_thread_that_nobody_heard_is_a_turn(
    store: Store, direct: bool
) -> None:
    before, after = FakeQueue(), FakeQueue()
    async with quiet() as slack:
        ann = slack.user("Ann")
        place = slack.dm(ann) if direct else slack.channel_id
        mention = "" if direct else f"{slack.bot_mention} "
        async with listening(slack, before, store):
            root = await slack.say(place, ann, f"{mention}one")
            await until(lambda: before.turns)
            await slack.say(place, ann, f"{mention}two", thread_ts=root)
            await until_noted(store, "threads", f"{place}:{root}")
        await slack.say(place, ann, f"{mention}three", thread_ts=root)
        if not direct:
            await slack.say(place, ann, "four", thread_ts=root)
            await slack.say(place, slack.user("Bob"), "not for the bot", thread_ts=root)
        # A mention arrives as a mention and as a message.
        await lost(slack, events=1 if direct else 4)
        await passed(store, 60)

        async with listening(slack, after, store):
            await until(lambda: "three" in after.texts)
            await until_heard(store)

    missed = ["three"] if direct else ["three", "four"]
    assert [text for text in after.texts if text not in ("one", "two")] == missed
    assert after.last.key == before.last.key


async def test_a_question_that_has_replies_by_now_is_answered_where_it_was_asked(
    store: Store,
) -> None:
    after = FakeQueue()
    async with quiet() as slack:
        dm = await missed(slack, store, "two")
        root = slack.screen(dm)[-1].ts
        await slack.say(dm, slack.user("Ben"), "and quickly", thread_ts=root)
        await lost(slack, events=2)

        async with listening(slack, after, store):
            await until(lambda: after.texts == ["two"])

    assert after.last.place["thread"] is None


async def test_a_process_that_lost_its_sockets_catches_up(store: Store) -> None:
    limits = replace(LIMITS, reconnect=Backoff(0.05, 0.05))
    intake = FakeQueue()
    async with quiet() as slack:
        ann = slack.user("Ann")
        dm = slack.dm(ann)
        async with listening(slack, intake, store, limits=limits):
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
    store: Store,
) -> None:
    limits = replace(LIMITS, catch_up_age=0.0)
    before, after = FakeQueue(), FakeQueue()
    async with quiet() as slack:
        ann = slack.user("Ann")
        async with listening(slack, before, store, limits=limits):
            root = await slack.say(slack.channel_id, ann, f"{slack.bot_mention} one")
            await until_noted(store, "threads", f"{slack.channel_id}:{root}")
        await passed(store, 60)

        async with listening(slack, after, store, limits=limits):
            await until(lambda: reads(slack))
            await until_heard(store)

    assert after.texts == []


async def test_questions_that_are_too_old_are_not_answered(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    limits = replace(LIMITS, catch_up_age=0.0)
    after = FakeQueue()
    async with quiet() as slack:
        await missed(slack, store, "two")
        await passed(store, 3600)

        async with listening(slack, after, store, limits=limits):
            await until(lambda: reads(slack))
            await until_heard(store)

    assert after.texts == []
    # It was read.
    assert not warnings(caplog)


async def test_what_was_said_shortly_before_slack_was_heard_last_is_a_turn(store: Store) -> None:
    limits = replace(LIMITS, outage_after=0)
    after = FakeQueue()
    async with quiet() as slack:
        await missed(slack, store, "two")
        await passed(store, -1)
        async with asyncio.timeout(60):
            while await silence(store) < 1:
                await asyncio.sleep(0.01)

        async with listening(slack, after, store, limits=limits):
            await until(lambda: after.texts == ["two"])


async def test_a_bot_that_starts_for_the_first_time_reads_nothing(store: Store) -> None:
    intake = FakeQueue()
    async with quiet() as slack:
        ann = slack.user("Ann")
        await slack.say(slack.dm(ann), ann, "hello?")
        await lost(slack)

        async with listening(slack, intake, store):
            await until_heard(store)

        assert (reads(slack), intake.texts) == ([], [])


async def test_a_bot_that_was_away_for_seconds_reads_nothing(store: Store) -> None:
    async with quiet() as slack:
        await missed(slack, store, "two")
        await passed(store, 3)

        async with listening(slack, FakeQueue(), store):
            await until_heard(store)

        assert reads(slack) == []


# However the reading goes


@pytest.mark.parametrize("how", ["status", "drop"])
async def test_a_conversation_whose_reading_fails_is_read_again(store: Store, how: How) -> None:
    after = FakeQueue()
    async with quiet() as slack:
        await missed(slack, store, "two")
        slack.fail("conversations.history", how)

        async with listening(slack, after, store):
            await until(lambda: after.texts == ["two"])
            await until_heard(store)


class BreaksOnce(NoLimits):
    """Edit budgets with a mistake that shows once."""

    broken = False

    async def final(self, budget: EditBudget | None, *, deadline: float) -> None:
        if not self.broken:
            self.broken = True
            raise ZeroDivisionError


async def test_an_error_while_catching_up_is_retried(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    after = FakeQueue()
    async with quiet() as slack:
        await missed(slack, store, "two")

        async with listening(slack, after, store, budgets=BreaksOnce()):
            await until(lambda: after.texts == ["two"])
            await until_heard(store)

    assert [one.levelno for one in caplog.records if one.exc_info] == [logging.ERROR]


async def test_a_conversation_whose_reading_fails_delays_no_other(store: Store) -> None:
    after = FakeQueue()
    async with quiet() as slack:
        await missed_from_each(slack, store, "Ann", "Ben", "Cleo")
        slack.fail("conversations.history", status=500)

        async with listening(slack, after, store):
            await until(lambda: len(after.texts) == 3)

    assert after.texts == ["Ben", "Ann", "Cleo"]


async def test_threads_are_read_though_dms_hang(store: Store) -> None:
    after = FakeQueue()
    async with quiet() as slack:
        await used(store, ("D0HANGS", ""))
        await missed_in_thread(slack, store, ["one"], talk=0)
        slack.fail("conversations.history", "hang", times=1000)

        async with listening(slack, after, store):
            await until(lambda: after.texts == ["one"])
        slack.heal()


async def test_nothing_counts_as_heard_before_it_is_read(store: Store) -> None:
    after = FakeQueue()
    async with quiet() as slack:
        await missed(slack, store, "two")
        slack.fail("conversations.history", status=500, times=1000)

        async with listening(slack, after, store):
            await until(lambda: len(reads(slack)) > 1)
            await asyncio.sleep(0.1)
            assert await silence(store) >= 60

            slack.heal()
            await until(lambda: after.texts == ["two"])
            await until_heard(store)


async def test_a_pause_that_slack_asks_for_is_kept_and_then_the_rest_is_read(store: Store) -> None:
    after, slots = FakeQueue(), Slots(99)
    once_a_minute = Rate(calls=1, seconds=60.0, burst=1)
    async with quiet(rates={"conversations.history": once_a_minute}) as slack:
        await missed_from_each(slack, store, "Ann", "Ben", "Cleo")

        async with listening(slack, after, store, budgets=slots):
            for _ in range(2):
                await until(lambda: not slots.left)
                slack.clock.advance(60.0)
                slots.left = 99
            await until(lambda: len(after.texts) == 3)
            await until_heard(store)

        # One after each refusal, and none while a refusal lasts.
        refused = [call.limited for call in slack.requests if call.method == reads(slack)[0]]
        assert refused == [False, True, False, True, False]
    assert after.texts == ["Cleo", "Ben", "Ann"]


async def test_conversations_beyond_the_budget_wait_for_a_slot(store: Store) -> None:
    after, slots = FakeQueue(), Slots(2)
    async with quiet() as slack:
        await missed_from_each(slack, store, "Ann", "Ben", "Cleo")

        async with listening(slack, after, store, budgets=slots):
            await until(lambda: len(after.texts) == 2)
            before = len(reads(slack))
            slots.left = 1
            await until(lambda: len(after.texts) == 3)

        assert (before, len(reads(slack))) == (2, 3)


@pytest.mark.parametrize("direct", [True, False])
async def test_all_pages_of_a_conversation_are_admitted_in_order(
    store: Store, direct: bool
) -> None:
    after = FakeQueue()
    texts = [f"question {number}" for number in range(UNLISTED_MOST)]
    async with quiet(unlisted=True, rates=SHORT_PAGES) as slack:
        if direct:
            texts += ["one more", "the last"]
            await missed(slack, store, *texts)
        else:
            await missed_in_thread(slack, store, texts, talk=UNLISTED_MOST)

        async with listening(slack, after, store):
            await until(lambda: len(after.texts) == len(texts))
            await until_heard(store)

        assert len(reads(slack)) == (2 if direct else 3)
    assert after.texts == texts


@pytest.mark.parametrize("texts", [["one"], ["one", "two"]])
async def test_the_rest_of_a_very_long_conversation_is_left_out_with_a_warning(
    store: Store, caplog: pytest.LogCaptureFixture, texts: list[str]
) -> None:
    after = FakeQueue()
    async with quiet(unlisted=True, rates=SHORT_PAGES) as slack:
        # The parent is on the first page.
        await missed_in_thread(slack, store, texts, talk=MOST_PAGES * UNLISTED_MOST - 2)

        async with listening(slack, after, store):
            await until_heard(store)

        assert len(reads(slack)) == MOST_PAGES
    assert after.texts == ["one"]
    assert bool(warnings(caplog)) == ("two" in texts)


async def test_what_cannot_be_read_in_time_is_left_out_with_a_warning(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    limits = replace(LIMITS, catch_up_timeout=0.3)
    async with quiet() as slack:
        await used(store, (slack.channel_id, "1700000000.000100"))
        dm = await missed(slack, store, "two")
        slack.fail("conversations.history", status=500, times=1000)
        slack.fail("conversations.replies", status=500, times=1000)

        async with listening(slack, FakeQueue(), store, limits=limits):
            await until_heard(store)
        slack.heal()

    names = f"{dm} {slack.channel_id}:1700000000.000100"
    assert [names in warning for warning in warnings(caplog)] == [True]


async def test_what_was_read_in_time_is_admitted_though_the_rest_was_not(store: Store) -> None:
    after, limits = FakeQueue(), replace(LIMITS, catch_up_timeout=2.0)
    texts = [f"question {number}" for number in range(UNLISTED_MOST + 1)]
    async with quiet(unlisted=True, rates=SHORT_PAGES) as slack:
        await missed(slack, store, *texts)

        async with listening(slack, after, store, limits=limits, budgets=Slots(1)):
            await until(lambda: after.texts == texts[:UNLISTED_MOST])
            await until_heard(store)

        assert len(reads(slack)) == 1


async def test_a_conversation_that_cannot_be_read_stops_no_other(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    after = FakeQueue()
    async with quiet() as slack:
        await used(store, ("D0GONE", ""))
        await missed(slack, store, "two")

        async with listening(slack, after, store):
            await until(lambda: after.texts == ["two"])
            await until_heard(store)

        assert len(reads(slack)) == 2
    assert ["D0GONE" in warning for warning in warnings(caplog)] == [True]


async def test_a_process_that_ends_while_catching_up_leaves_it_to_the_next(store: Store) -> None:
    limits = replace(LIMITS, claim_seconds=1)
    after = FakeQueue()
    async with quiet() as slack:
        await missed(slack, store, "two")
        slack.fail("conversations.history", status=500, times=1000)
        async with listening(slack, FakeQueue(), store, limits=limits):
            await until(lambda: reads(slack))
        slack.heal()

        async with listening(slack, after, store, limits=limits):
            await until(lambda: after.texts == ["two"])


async def test_catching_up_begins_again_if_the_sockets_are_lost_meanwhile(store: Store) -> None:
    limits = replace(LIMITS, reconnect=Backoff(0.05, 0.05))
    after = FakeQueue()
    async with quiet() as slack:
        await used(store, (slack.channel_id, "1700000000.000100"))
        dm = await missed(slack, store, "two")
        slack.fail("conversations.replies", status=500, times=1000)
        async with listening(slack, after, store, limits=limits):
            await until(lambda: after.texts == ["two"])
            slack.fail("apps.connections.open", status=500, times=1000)
            await slack.cut()
            await until(lambda: slack.sockets == 0)
            await slack.say(dm, slack.user("Ann"), "three")
            await lost(slack, events=2)
            await asyncio.sleep(0.1)

            slack.heal()
            await until(lambda: after.texts == ["two", "three"])


async def test_a_later_outage_is_read_anew_if_another_process_ended_the_first(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with quiet() as slack:
        await missed(slack, store, "two")
        slack.fail("conversations.history", status=500, times=1000)

        async with listening(slack, FakeQueue(), store):
            await until(lambda: reads(slack))
            await store.command("DEL", store.key("slack", TEAM, "looking"))
            await passed(store, 3)
            await until_heard(store)
            await passed(store, 60)
            slack.heal()
            await until_heard(store)

    begun = [one for one in caplog.messages if one.startswith("Slack outage")]
    assert len(begun) == 2


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
