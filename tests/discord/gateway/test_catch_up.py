"""What was missed is looked for where the session is gone, through discord.py."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Literal

import pytest

from adapters.discord.tuning import Tuning
from bot.concurrency import Backoff
from bot.domain import Turn
from bot.errors import StoreUnavailable, WriteRefused
from bot.store import Store
from tests.emulators.clock import Clock
from tests.emulators.discord import DiscordEmulator
from tests.emulators.discord.objects import STAGE, VOICE
from tests.support.discord_platform import (
    FAST,
    KILLED,
    QUICK,
    Hidden,
    after_a_session,
    our_thread,
    running_process,
    saved,
    until_heard,
    until_pending,
    until_saved,
)
from tests.support.fakes import FakeQueue
from tests.support.outage import full
from tests.support.waiting import until


async def test_what_was_missed_is_caught_up_when_the_session_is_gone(store: Store) -> None:
    old, new, clock = FakeQueue(), FakeQueue(), Clock()
    async with DiscordEmulator(clock=clock, gateway=FAST) as emulator:
        ada = emulator.user("Ada")
        dm = emulator.dm(ada)
        async with running_process(emulator, old, store) as platform:
            await emulator.say(dm, ada, "hello")
            await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")
            await until(lambda: len(old.turns) > 1)
            thread = await our_thread(emulator, platform, old)
        await emulator.say(thread, ada, "two")
        await emulator.say(thread, ada, "three")
        await emulator.say(emulator.channel_id, ada, "among people")
        await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} four")
        await emulator.say(dm, ada, "five")
        clock.advance(3600)

        async with running_process(emulator, new, store):
            await until(lambda: "five" in new.texts)

        # What the old process admitted, the queue would know.
        unknown = [text for text in new.texts if text not in old.texts]
        assert unknown == ["two", "three", "four", "five"]
        assert emulator.sessions == 2


async def test_what_was_missed_comes_before_what_is_said_now(store: Store) -> None:
    old, new, clock = FakeQueue(), FakeQueue(), Clock()
    async with DiscordEmulator(clock=clock, gateway=FAST, latency=0.05) as emulator:
        ada = emulator.user("Ada")
        async with running_process(emulator, old, store) as platform:
            await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")
            await until(lambda: old.turns)
            thread = await our_thread(emulator, platform, old)
        await emulator.say(thread, ada, "two")
        clock.advance(3600)

        async with running_process(emulator, new, store):
            await emulator.say(thread, ada, "three")
            await until(lambda: len(new.turns) > 2)

        assert [text for text in new.texts if text != "one"] == ["two", "three"]


class Picky(FakeQueue):
    """Never takes the question "one"."""

    async def admit(self, turn: Turn, **_: object) -> bool:
        if turn.text == "one":
            raise WriteRefused("this one never")
        return await super().admit(turn)


async def test_a_missed_question_that_cannot_be_taken_loses_no_other(store: Store) -> None:
    new = Picky()
    async with after_a_session(store) as (emulator, ada):
        for text in ("one", "two", "three"):
            await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} {text}")

        async with running_process(emulator, new, store):
            await until(lambda: len(new.turns) > 1)

        assert new.texts == ["two", "three"]


async def test_nobody_is_answered_who_does_not_wait_any_more(store: Store) -> None:
    old, new, clock = FakeQueue(), FakeQueue(), Clock()
    async with DiscordEmulator(clock=clock, gateway=FAST) as emulator:
        ada = emulator.user("Ada")
        said = await emulator.say(emulator.dm(ada), ada, "zero")
        async with running_process(emulator, old, store):
            said = await emulator.say(emulator.dm(ada), ada, "one")
            await until(lambda: old.turns)
            await until_heard(store, said)
        await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} two")
        clock.advance(3600)

        async with running_process(
            emulator, new, store, tuning=replace(QUICK, answers_wanted_for=-60.0)
        ):
            await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} three")
            await until(lambda: new.turns)

        assert new.texts == ["three"]


async def test_what_bots_wrote_meanwhile_is_no_question(store: Store) -> None:
    new = FakeQueue()
    async with after_a_session(store) as (emulator, ada):
        robot = emulator.user("Robot", bot=True)
        for person, text in ((robot, "one"), (ada, "two")):
            await emulator.say(emulator.channel_id, person, f"{emulator.bot_mention} {text}")

        async with running_process(emulator, new, store):
            await until(lambda: new.turns)

        assert new.texts == ["two"]


async def test_a_bot_that_starts_for_the_first_time_answers_nothing_old(store: Store) -> None:
    intake = FakeQueue()
    async with DiscordEmulator() as emulator:
        ada = emulator.user("Ada")
        await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")

        async with running_process(emulator, intake, store):
            await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} two")
            await until(lambda: intake.turns)

        assert intake.texts == ["two"]


async def test_a_quiet_bot_has_listened_all_the_same(store: Store) -> None:
    new = FakeQueue()
    async with after_a_session(store) as (emulator, ada):
        await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")

        async with running_process(emulator, new, store):
            await until(lambda: new.turns)

        assert new.texts == ["one"]


async def test_a_session_that_discord_ends_while_we_listen_is_caught_up(store: Store) -> None:
    intake = FakeQueue()
    async with DiscordEmulator(gateway=FAST) as emulator:
        ada = emulator.user("Ada")
        async with running_process(emulator, intake, store):
            said = await emulator.say(emulator.dm(ada), ada, "one")
            await until_heard(store, said)

            emulator.refuse_connections()
            await emulator.invalidate()
            await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} two")
            emulator.accept_connections()
            await until(lambda: len(intake.turns) > 1)

        assert intake.texts == ["one", "two"]
        assert emulator.sessions == 2


async def test_a_catch_up_looks_at_fifty_places_and_no_more(store: Store) -> None:
    assert Tuning().catch_up_channels == 50
    new = FakeQueue()
    async with after_a_session(store) as (emulator, ada):
        for number in range(5):
            place = emulator.channel(f"channel-{number}")
            await emulator.say(place, ada, f"{emulator.bot_mention} {number}")

        async with running_process(
            emulator, new, store, tuning=replace(QUICK, catch_up_channels=3)
        ):
            await until(lambda: len(new.turns) > 2)
            await emulator.say(emulator.dm(ada), ada, "now")
            await until(lambda: len(new.turns) > 3)

        assert new.texts == ["4", "3", "2", "now"]


async def test_a_catch_up_reads_fifty_places_dms_included(store: Store) -> None:
    old, new, clock = FakeQueue(), FakeQueue(), Clock()
    async with DiscordEmulator(clock=clock, gateway=FAST) as emulator:
        emulator.limits.everything = (10**6, 1.0)
        ada = emulator.user("Ada")
        dm = emulator.dm(ada)
        async with running_process(emulator, old, store):
            await until_heard(store, await emulator.say(dm, ada, "hello"))
        for number in range(60):
            place = emulator.channel(f"channel-{number}")
            await emulator.say(place, ada, f"{emulator.bot_mention} {number}")
        await emulator.say(dm, ada, "now")
        clock.advance(3600)

        async with running_process(emulator, new, store):
            await until(lambda: "now" in new.texts)

        # A slow machine may ask for a place again.
        looks = {one.path for one in emulator.requests if one.call.startswith("GET /channels")}
        assert len([path for path in looks if path.endswith("/messages")]) == 50
        assert [one for one in new.texts if one != "hello"] == [*map(str, range(59, 10, -1)), "now"]


async def test_all_that_was_missed_in_a_place_is_read_page_by_page(store: Store) -> None:
    new = FakeQueue()
    async with after_a_session(store) as (emulator, ada):
        for number in range(230):
            called = f"{emulator.bot_mention} {number}" if number % 45 == 0 else "among people"
            await emulator.say(emulator.channel_id, ada, called)

        async with running_process(emulator, new, store):
            await until(lambda: len(new.turns) > 5)

        assert new.texts == ["0", "45", "90", "135", "180", "225"]


async def test_of_more_than_can_be_read_in_a_place_the_newest_is(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    assert Tuning().page_size * Tuning().catch_up_pages == 1000
    new = FakeQueue()
    async with after_a_session(store) as (emulator, ada):
        for number in range(8):
            await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} {number}")

        async with running_process(
            emulator, new, store, tuning=replace(QUICK, page_size=2, catch_up_pages=3)
        ):
            await until(lambda: "7" in new.texts)

        assert new.texts == list("234567")
    warned = [one.args for one in caplog.records if one.levelno == logging.WARNING]
    assert warned == [(int(emulator.channel_id), 6)]


async def test_a_place_where_much_was_said_holds_up_no_other_and_keeps_its_order(
    store: Store,
) -> None:
    new, clock = FakeQueue(), Clock()
    slow = replace(QUICK, page_size=2, catch_up_retry=Backoff(0.01, 0.01))
    async with DiscordEmulator(clock=clock, gateway=FAST) as emulator:
        ada = emulator.user("Ada")
        quiet = emulator.channel("quiet")
        async with running_process(emulator, FakeQueue(), store):
            await until_saved(store, 1)
        await emulator.say(quiet, ada, f"{emulator.bot_mention} quiet")
        for number in range(7):
            await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} {number}")
        clock.advance(3600)
        pages = f"GET /channels/{emulator.channel_id}/messages"
        emulator.fail(pages, status=503, times=1000, after=1)

        async with running_process(emulator, new, store, tuning=slow):
            await until(lambda: new.turns)
            emulator.heal()
            await until(lambda: len(new.turns) > 7)

        assert new.texts == ["quiet", *"0123456"]


async def test_a_process_that_ends_during_its_catch_up_does_so_quietly(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    async with DiscordEmulator(clock=clock, gateway=FAST) as emulator:
        ada = emulator.user("Ada")
        dm = emulator.dm(ada)
        async with running_process(emulator, FakeQueue(), store):
            await until_heard(store, await emulator.say(dm, ada, "one"))
        for number in range(20):
            clock.advance(3600)
            async with running_process(emulator, FakeQueue(), store):
                await asyncio.sleep(number / 1000)

    assert not [one for one in caplog.records if one.exc_info]


@pytest.mark.parametrize("kind", [VOICE, STAGE])
async def test_what_was_missed_in_the_chat_of_a_voice_channel_is_caught_up(
    store: Store, kind: Literal[2, 13]
) -> None:
    new, clock = FakeQueue(), Clock()
    async with DiscordEmulator(clock=clock, gateway=FAST) as emulator:
        ada = emulator.user("Ada")
        hall = emulator.channel("hall", kind=kind)
        async with running_process(emulator, FakeQueue(), store):
            await until_saved(store, 1)
        await emulator.say(hall, ada, f"{emulator.bot_mention} one")
        clock.advance(3600)

        async with running_process(emulator, new, store):
            await until(lambda: new.turns)

        assert new.texts == ["one"]


async def test_a_place_that_cannot_be_read_hides_no_other(store: Store) -> None:
    new = FakeQueue()
    async with after_a_session(store) as (emulator, ada):
        await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")
        closed = emulator.channel("closed")
        await emulator.say(closed, ada, f"{emulator.bot_mention} two")
        emulator.fail(f"GET /channels/{closed}/messages", status=403)

        async with running_process(emulator, new, store):
            await until(lambda: new.turns)

        assert new.texts == ["one"]


async def test_a_store_that_is_away_during_the_catch_up_loses_nothing(store: Store) -> None:
    new = FakeQueue()
    async with after_a_session(store) as (emulator, ada):
        before = await saved(store)
        await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")
        new.refuses = StoreUnavailable("away")

        async with running_process(emulator, new, store):
            await until(lambda: new.refusals > 1)
            # Who comes after us, should we end now, has to catch up as well.
            await until_pending(store, but=before["id"])
            new.refuses = None
            await until(lambda: new.turns)

        assert new.texts == ["one"]


async def test_what_the_first_process_ever_heard_before_it_was_killed_is_answered(
    store: Store,
) -> None:
    old, new, clock = FakeQueue(), FakeQueue(), Clock()
    old.refuses = StoreUnavailable("not yet")
    async with DiscordEmulator(clock=clock, gateway=FAST) as emulator:
        ada = emulator.user("Ada")
        async with running_process(emulator, old, store, tuning=KILLED):
            await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")
            await until(lambda: old.refusals)
        clock.advance(3600)

        async with running_process(emulator, new, store):
            await until(lambda: new.turns)

        assert new.texts == ["one"]


async def test_what_the_first_process_ever_heard_while_redis_was_away_is_answered(
    store: Store,
) -> None:
    old, new, clock = FakeQueue(), FakeQueue(), Clock()
    async with DiscordEmulator(clock=clock, gateway=FAST) as emulator:
        ada, hidden = emulator.user("Ada"), Hidden(store, emulator, "heard")
        await hidden.hide()
        async with running_process(emulator, old, store, tuning=KILLED):
            await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")
            old.open.clear()
            await hidden.back()
            await until(lambda: old.turns)
        clock.advance(3600)

        async with running_process(
            emulator, new, store, tuning=replace(QUICK, catch_up_overlap=0.0)
        ):
            await until(lambda: new.turns)

        assert new.texts == ["one"]


@pytest.mark.parametrize("seconds", [0, 3600])
async def test_what_the_first_process_ever_heard_while_redis_was_full_is_answered(
    seconds: float, own_store: Store
) -> None:
    old, new, clock = FakeQueue(), FakeQueue(), Clock()
    old.refuses = StoreUnavailable("full")
    async with DiscordEmulator(clock=clock, gateway=FAST) as emulator:
        ada = emulator.user("Ada")
        async with (
            full(own_store),
            running_process(emulator, old, own_store, tuning=replace(QUICK, last_save_within=0.0)),
        ):
            # Else its catch-up might find the question, too.
            await until_saved(own_store, 0)
            await emulator.say(emulator.dm(ada), ada, "one")
            await until(lambda: old.refusals)
            await until_saved(own_store, 1)
        clock.advance(seconds)

        async with running_process(emulator, new, own_store):
            await until(lambda: new.turns)

        assert new.texts == ["one"]


async def test_what_a_process_heard_that_was_killed_in_its_catch_up_is_answered(
    store: Store,
) -> None:
    old, new, clock = FakeQueue(), FakeQueue(), Clock()
    old.refuses = StoreUnavailable("not yet")
    async with DiscordEmulator(clock=clock, gateway=FAST) as emulator:
        ada, bob = emulator.user("Ada"), emulator.user("Bob")
        async with running_process(emulator, FakeQueue(), store):
            await until_saved(store, 1)
        await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")
        clock.advance(3600)
        async with running_process(emulator, old, store):
            await until(lambda: old.refusals)
            # Nobody has heard of this DM before.
            await emulator.say(emulator.dm(bob), bob, "two")
            async with asyncio.timeout(60):
                while not await store.command("KEYS", store.key("gateway", "*", "dms")):
                    await asyncio.sleep(0.01)
        clock.advance(3600)

        async with running_process(emulator, new, store):
            await until(lambda: len(new.turns) > 1)

        assert new.texts == ["one", "two"]


async def test_a_catch_up_that_takes_long_goes_on(store: Store) -> None:
    new = FakeQueue()
    async with after_a_session(store) as (emulator, ada):
        for number in range(6):
            place = emulator.channel(f"channel-{number}")
            await emulator.say(place, ada, f"{emulator.bot_mention} {number}")

        async with running_process(emulator, new, store, tuning=replace(QUICK, catch_up_pass=0.0)):
            await until(lambda: len(new.turns) > 5)

        assert sorted(new.texts) == list("012345")


async def test_a_place_that_cannot_be_read_now_is_read_later(store: Store) -> None:
    new, clock = FakeQueue(), Clock()
    async with DiscordEmulator(clock=clock, gateway=FAST) as emulator:
        ada = emulator.user("Ada")
        dm = emulator.dm(ada)
        async with running_process(emulator, FakeQueue(), store):
            await until_heard(store, await emulator.say(dm, ada, "hello"))
        before = await saved(store)
        await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")
        await emulator.say(dm, ada, "two")
        emulator.fail("GET /channels/", "drop", times=1000)
        clock.advance(3600)

        async with running_process(
            emulator, new, store, tuning=replace(QUICK, catch_up_retry=Backoff(0.01, 0.01))
        ):
            await emulator.say(emulator.channel("open"), ada, f"{emulator.bot_mention} three")
            await until(lambda: new.turns)
            # Who comes after us, should we end now, has to catch up as well.
            await until_pending(store, but=before["id"])
            emulator.heal()
            await until(lambda: len([one for one in new.texts if one != "hello"]) > 2)

        texts = [one for one in new.texts if one != "hello"]
        assert (texts[0], sorted(texts[1:])) == ("three", ["one", "two"])


async def test_a_place_that_cannot_be_read_on_is_given_up_with_what_was_found(
    store: Store,
) -> None:
    patient = replace(QUICK, page_size=1, catch_up_retry=Backoff(0.01, 0.01))
    old, new = FakeQueue(), FakeQueue()
    async with after_a_session(store) as (emulator, ada):
        before = await saved(store)
        for text in ("one", "two"):
            await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} {text}")
        failing = emulator.fail("GET /channels/.*/messages", status=503, times=10_000, after=1)
        async with running_process(emulator, old, store, tuning=patient):
            # Several tries, and many moments at which the session could have been saved.
            await until(lambda: failing.times < 9_998)
            await until_pending(store, but=before["id"])
        emulator.heal()
        emulator.fail("GET /channels/.*/messages", status=503, times=10_000, after=1)
        async with running_process(emulator, new, store, tuning=replace(patient, catch_up_for=0.5)):
            await until(lambda: new.turns)
            await until_saved(store, 1)

    assert (old.texts, new.texts) == ([], ["two"])


async def test_a_look_that_its_client_did_not_outlive_is_taken_by_the_next_one(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    new = FakeQueue()
    async with after_a_session(store) as (emulator, ada):
        await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")
        emulator.fail("GET /channels/", status=503, times=1000)
        async with running_process(
            emulator, new, store, tuning=replace(QUICK, client_pause=0.0, catch_up_overlap=0.0)
        ):
            await until(lambda: any("messages" in one.path for one in emulator.requests))
            await emulator.say(emulator.dm(ada), ada, "two")
            await until(lambda: new.turns)
            # A greeting without a session ends the client: it is read before it is parsed.
            await emulator.tell("READY", {})
            await until(lambda: any(one.exc_info for one in caplog.records))
            emulator.heal()
            await until(lambda: "one" in new.texts)


async def test_a_server_that_is_shown_late_is_looked_through(store: Store) -> None:
    new = FakeQueue()
    late = replace(FAST, shown_after=0.5)
    async with after_a_session(store, rules=late) as (emulator, ada):
        await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")

        async with running_process(emulator, new, store, tuning=replace(QUICK, servers_within=0.0)):
            await until(lambda: new.turns)

        assert new.texts == ["one"]


async def test_a_server_that_is_not_shown_at_all_holds_nothing_up_for_long(store: Store) -> None:
    away = replace(FAST, shown_after=3600.0)
    impatient = replace(QUICK, servers_within=0.0, late_servers_within=0.1)

    async with (
        DiscordEmulator(gateway=away) as emulator,
        running_process(emulator, FakeQueue(), store, tuning=impatient),
    ):
        await until_saved(store, 1)

        assert emulator.listeners[0].session_id == (await saved(store))["id"]
