"""A new process goes on with the session of the one before, through discord.py."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.discord.gateway.session_store import SESSION_SECONDS, SavedSession, Session
from adapters.discord.tuning import Tuning
from bot.concurrency import running
from bot.errors import StoreUnavailable
from bot.store import Store
from tests.emulators.clock import Clock
from tests.emulators.discord import DiscordEmulator
from tests.emulators.model import ModelEmulator
from tests.support.discord_platform import (
    FAST,
    QUICK,
    SLOW_STARTS,
    Hidden,
    logged_in,
    make_hidden_session,
    our_thread,
    running_process,
    said,
    saved,
    until_heard,
    until_saved,
)
from tests.support.fakes import FakeQueue, door
from tests.support.outage import Wire
from tests.support.process import DiscordDm, DiscordSlash, bot, discord_variables
from tests.support.service import serving
from tests.support.waiting import until


async def until_saved_is(store: Store, session_id: str | None) -> None:
    async with asyncio.timeout(60):
        while (await saved(store)).get("id") != session_id:
            await asyncio.sleep(0.01)


async def test_a_new_process_goes_on_where_the_old_one_stopped(store: Store) -> None:
    old, new = FakeQueue(), FakeQueue()
    async with DiscordEmulator() as emulator:
        ada = emulator.user("Ada")
        dm = emulator.dm(ada)
        async with running_process(emulator, old, store):
            await emulator.say(dm, ada, "one")
            await until(lambda: old.turns)
        await emulator.say(dm, ada, "two")

        async with running_process(emulator, new, store):
            await until(lambda: new.turns)
            await emulator.say(dm, ada, "three")
            await until(lambda: len(new.turns) > 1)

        assert new.texts == ["two", "three"]
        assert (emulator.sessions, emulator.resumes) == (1, 1)


async def test_what_was_heard_but_not_admitted_is_told_to_the_next_process(store: Store) -> None:
    old, new = FakeQueue(), FakeQueue()
    async with DiscordEmulator() as emulator:
        ada = emulator.user("Ada")
        dm = emulator.dm(ada)
        async with running_process(emulator, old, store):
            await until_saved(store, 1)
            old.refuses = StoreUnavailable("away")
            await emulator.say(dm, ada, "one")
            await emulator.say(emulator.channel_id, ada, "of no concern")
            await until(lambda: old.refusals)

        async with running_process(emulator, new, store):
            await until(lambda: new.turns)

        assert (old.texts, new.texts) == ([], ["one"])
        assert emulator.sessions == 1


async def test_a_deletion_that_was_not_heeded_is_told_to_the_next_process(store: Store) -> None:
    old, new = FakeQueue(), FakeQueue()
    async with DiscordEmulator() as emulator:
        ada = emulator.user("Ada")
        dm = emulator.dm(ada)
        async with running_process(emulator, old, store):
            said = await emulator.say(dm, ada, "one")
            await until_heard(store, said)
            old.refuses = StoreUnavailable("away")
            await emulator.delete(said)
            await until(lambda: old.refusals)

        async with running_process(emulator, new, store):
            await until(lambda: new.forgotten)

        assert new.forgotten == [f"discord:{said}"]


async def test_a_command_that_was_not_admitted_is_told_to_the_next_process(store: Store) -> None:
    old, new = FakeQueue(), FakeQueue()
    old.open.clear()
    async with DiscordEmulator() as emulator:
        ada = emulator.user("Ada")
        async with running_process(emulator, old, store):
            await until_saved(store, 1)
            await emulator.slash(emulator.channel_id, ada, "ask", question="why?")
            await until(lambda: old.turns)

        async with running_process(emulator, new, store):
            await until(lambda: new.turns)

        assert new.texts == ["why?"]


async def test_what_was_admitted_is_not_told_again(store: Store) -> None:
    old, new = FakeQueue(), FakeQueue()
    async with DiscordEmulator() as emulator:
        ada = emulator.user("Ada")
        dm = emulator.dm(ada)
        async with running_process(emulator, old, store):
            for text in ("one", "two"):
                await emulator.say(dm, ada, text)
            await until(lambda: len(old.turns) > 1)

        async with running_process(emulator, new, store):
            await emulator.say(dm, ada, "three")
            await until(lambda: new.turns)

        assert new.asked == [new.turns[0].id]


async def test_a_thread_is_followed_after_a_resume_without_a_mention(store: Store) -> None:
    old, new = FakeQueue(), FakeQueue()
    async with DiscordEmulator() as emulator:
        ada = emulator.user("Ada")
        async with running_process(emulator, old, store) as platform:
            await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")
            await until(lambda: old.turns)
            thread = await our_thread(emulator, platform, old)

        async with running_process(emulator, new, store):
            await emulator.say(emulator.channel_id, ada, "among people")
            for text in ("two", "three"):
                await emulator.say(thread, ada, text)
            await until(lambda: len(new.turns) > 1)

        assert new.texts == ["two", "three"]
        assert {turn.key for turn in new.turns} == {old.turns[0].key}
        looked_up = [one.call for one in emulator.requests if one.call == f"GET /channels/{thread}"]
        assert len(looked_up) == 1


async def test_not_without_end_is_remembered_what_a_channel_is(store: Store) -> None:
    new = FakeQueue()
    async with DiscordEmulator() as emulator:
        ada = emulator.user("Ada")
        async with running_process(emulator, FakeQueue(), store):
            begun = [await emulator.say(emulator.channel_id, ada, "x") for _ in range(2)]
            one, other = [await emulator.open_thread(each, ada, "y") for each in begun]
            await until_heard(store, begun[-1])

        async with running_process(emulator, new, store, tuning=replace(QUICK, remembered=1)):
            for place in (one, other, one):
                said = await emulator.say(place, ada, f"{emulator.bot_mention} why?")
                await until_heard(store, said)

        assert len(new.turns) == 3
        looks = [one.call for one in emulator.requests if one.call.startswith("GET /channels/")]
        assert looks.count(f"GET /channels/{one}") == 2


async def test_what_discord_does_not_let_us_read_is_told_to_the_next_process(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    old, blind, new = FakeQueue(), FakeQueue(), FakeQueue()
    async with DiscordEmulator() as emulator:
        ada = emulator.user("Ada")
        async with running_process(emulator, old, store) as platform:
            await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")
            await until(lambda: old.turns)
            thread = await our_thread(emulator, platform, old)
        emulator.fail("GET /channels/", status=503, times=1000)
        async with running_process(emulator, blind, store):
            await emulator.say(thread, ada, "two")
            dm = await emulator.say(emulator.dm(ada), ada, "three")
            await until(lambda: int(thread) in lookups_failed(caplog))
            await until(lambda: blind.turns)
        emulator.heal()

        async with running_process(emulator, new, store):
            await until(lambda: len(new.turns) > 1)

        assert blind.texts == ["three"]
        assert (sorted(new.texts), new.asked.count(f"discord:{dm}")) == (["three", "two"], 1)
        assert (emulator.sessions, emulator.resumes) == (1, 2)


def lookups_failed(caplog: pytest.LogCaptureFixture) -> list[object]:
    """Return the channels of which the log says that their questions wait."""
    warned = [one for one in caplog.records if one.name.endswith("inbox")]
    return [one.args[0] for one in warned if isinstance(one.args, tuple) and one.args]


async def test_the_saved_session_expires_and_is_no_secret_of_the_log(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with DiscordEmulator() as emulator, running_process(emulator, FakeQueue(), store):
        await until_saved(store, 1)
        (name,) = await store.command("KEYS", store.key("gateway", "*", "session"))

        seconds = await store.command("TTL", name)

        assert 0 < seconds <= 300
        secret = (await saved(store))["id"]
        ours = [one.getMessage() for one in caplog.records if one.name.startswith("adapters")]
        assert not any(secret in line for line in ours)


async def test_a_session_is_saved_for_the_first_time_before_its_process_can_grow_old(
    store: Store,
) -> None:
    async with (
        DiscordEmulator() as emulator,
        running_process(emulator, FakeQueue(), store, tuning=replace(QUICK, save_every=3600.0)),
    ):
        async with asyncio.timeout(60):
            while not await saved(store):
                await asyncio.sleep(0.01)

        assert (await saved(store))["id"] == emulator.listeners[0].session_id
    assert Tuning().save_every <= 0.5


async def test_a_quiet_session_is_saved_again_before_it_expires(store: Store) -> None:
    async with (
        DiscordEmulator() as emulator,
        running_process(emulator, FakeQueue(), store, tuning=replace(QUICK, renew_after=0.05)),
    ):
        await until_saved(store, 1)
        (name,) = await store.command("KEYS", store.key("gateway", "*", "session"))

        await store.command("DEL", name)
        await until_saved(store, 1)

        assert (await saved(store))["id"] == emulator.listeners[0].session_id
    assert Tuning().renew_after < SESSION_SECONDS / 10


async def test_a_dm_is_noted_though_nothing_in_it_is_admitted(store: Store) -> None:
    intake = FakeQueue()
    async with (
        DiscordEmulator() as emulator,
        running_process(emulator, intake, store, tuning=replace(QUICK, renew_after=3600.0)),
    ):
        await until_saved(store, 1)
        intake.refuses = StoreUnavailable("away")
        people = [emulator.user(name) for name in ("Ada", "Bob")]
        for person in people:
            await emulator.say(emulator.dm(person), person, "why?")

        noted: list[str] = []
        async with asyncio.timeout(60):
            while len(noted) < 2:
                await asyncio.sleep(0.01)
                for key in await store.command("KEYS", store.key("gateway", "*", "dms")):
                    noted = await store.command("ZRANGE", key, 0, -1)

        assert noted == [emulator.dm(person) for person in people]


async def test_an_address_of_somebody_else_gets_no_token(store: Store) -> None:
    visits: list[object] = []

    def note(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visits.append(writer)
        writer.close()

    thief = await asyncio.start_server(note, "127.0.0.1", 0)
    port = thief.sockets[0].getsockname()[1]
    async with thief, DiscordEmulator() as emulator:
        async with running_process(emulator, FakeQueue(), store):
            await until_saved(store, 1)
        (name,) = await store.command("KEYS", store.key("gateway", "*", "session"))
        await store.command("HSET", name, "url", f"ws://127.0.0.1:{port}/")

        async with running_process(emulator, FakeQueue(), store):
            assert (emulator.sessions, emulator.resumes) == (1, 1)
    assert not visits


async def test_an_address_that_does_not_answer_is_left_for_the_first_one(store: Store) -> None:
    async with DiscordEmulator() as emulator:
        async with running_process(emulator, FakeQueue(), store):
            await until_saved(store, 1)
        (name,) = await store.command("KEYS", store.key("gateway", "*", "session"))
        gone = emulator.gateway_url.replace("/gateway", "/nowhere")
        await store.command("HSET", name, "url", gone)

        async with running_process(emulator, FakeQueue(), store):
            assert (emulator.sessions, emulator.resumes) == (1, 1)


async def test_a_session_is_resumed_at_its_own_address(store: Store) -> None:
    async with DiscordEmulator() as emulator:
        async with running_process(emulator, FakeQueue(), store):
            await until_saved(store, 1)
        nowhere = emulator.gateway_url.replace("/gateway", "/nowhere")
        async with (
            logged_in(emulator, gateway_url=nowhere) as platform,
            running(platform.listener.listen(FakeQueue().intake, store=store)),
        ):
            await until(lambda: emulator.resumes)

        assert (emulator.sessions, emulator.resumes) == (1, 1)


async def test_a_session_with_other_intents_is_not_resumed(store: Store) -> None:
    async with DiscordEmulator(gateway=FAST) as emulator:
        async with running_process(emulator, FakeQueue(), store):
            await until_saved(store, 1)
        (name,) = await store.command("KEYS", store.key("gateway", "*", "session"))
        await store.command("HSET", name, "intents", "1")

        async with running_process(emulator, FakeQueue(), store):
            assert (emulator.sessions, emulator.resumes) == (2, 0)


async def test_intents_that_discord_refuses_let_the_next_session_wait_no_longer(
    store: Store,
) -> None:
    async with (
        DiscordEmulator(message_content=False, gateway=FAST) as emulator,
        running_process(emulator, FakeQueue(), store, tuning=SLOW_STARTS),
    ):
        await until(lambda: emulator.listeners)

        assert emulator.sessions == 2


async def test_without_message_content_the_session_goes_on_as_well(store: Store) -> None:
    new = FakeQueue()
    async with DiscordEmulator(message_content=False) as emulator:
        ada = emulator.user("Ada")
        async with running_process(emulator, FakeQueue(), store):
            await until_saved(store, 1)
        await emulator.say(emulator.dm(ada), ada, "one")

        async with running_process(emulator, new, store):
            await until(lambda: new.turns)

        # Each process asks for the content first.
        assert (emulator.sessions, emulator.resumes) == (3, 1)


async def test_a_session_that_redis_could_not_tell_of_is_resumed_when_it_can(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    new = FakeQueue()
    async with DiscordEmulator(gateway=FAST) as emulator:
        ada, hidden = await make_hidden_session(emulator, store)
        async with running_process(emulator, new, store):
            await emulator.say(emulator.dm(ada), ada, "two")
            await until(lambda: new.texts == ["two"])
            assert (emulator.sessions, emulator.resumes) == (2, 0)

            await hidden.back()
            await until(lambda: "one" in new.texts)
            await emulator.say(emulator.dm(ada), ada, "three")
            await until(lambda: "three" in new.texts)
            await until_saved(store, int(hidden.former["seq"]) + 3)

        assert (emulator.sessions, emulator.resumes) == (2, 1)
        assert (await saved(store))["id"] == hidden.former["id"]
    assert any(one.levelno == logging.WARNING for one in caplog.records)


async def test_what_waits_of_both_sessions_is_told_to_the_next_process(store: Store) -> None:
    stuck, new = FakeQueue(), FakeQueue()
    async with DiscordEmulator(gateway=FAST) as emulator:
        ada, hidden = await make_hidden_session(emulator, store)
        async with running_process(emulator, stuck, store):
            for text in ("two", "three", "four"):
                await emulator.say(emulator.dm(ada), ada, text)
            await until(lambda: len(stuck.turns) == 3)
            # What waits has a higher number in its session than "one" has in the other.
            stuck.open.clear()
            await emulator.say(emulator.dm(ada), ada, "five")
            await until(lambda: len(stuck.turns) == 4)
            await hidden.back()
            await until(lambda: emulator.resumes == 1)
            await asyncio.sleep(0.2)  # ten looks at what is to be saved

        async with running_process(emulator, new, store):
            await until(lambda: {"one", "five"} <= {*new.texts})


async def test_a_process_that_ends_before_it_resumes_the_former_session_leaves_it_to_the_next(
    store: Store,
) -> None:
    middle, new = FakeQueue(), FakeQueue()
    async with DiscordEmulator(gateway=FAST) as emulator, Wire(emulator.gateway_url) as wire:
        ada, hidden = await make_hidden_session(emulator, store)
        async with running_process(
            emulator, middle, store, tuning=replace(QUICK, close_within=60.0), gateway_url=wire.url
        ):
            await emulator.say(emulator.dm(ada), ada, "two")
            await until(lambda: middle.texts == ["two"])
            # Discord does not answer: the process cannot leave its session in time.
            wire.hold()
            await hidden.back()
            async with asyncio.timeout(60):
                while (await saved(store))["holder"] == hidden.former["holder"]:
                    await asyncio.sleep(0.01)

        async with running_process(emulator, new, store):
            await until(lambda: new.texts == ["one", "two"])


class Deaf(SavedSession):
    """Hears no answer when it asks for the session of an earlier process."""

    async def take(self, intents: int) -> Session | None:
        await super().take(intents)
        raise StoreUnavailable("the answer was lost")


async def test_a_session_that_was_taken_without_an_answer_is_not_written_over(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake = FakeQueue()
    async with DiscordEmulator(gateway=FAST) as emulator:
        ada = emulator.user("Ada")
        async with running_process(emulator, FakeQueue(), store):
            await until_saved(store, 1)
        former = await saved(store)
        monkeypatch.setattr("adapters.discord.gateway.listen.SavedSession", Deaf)
        async with running_process(emulator, intake, store):
            await emulator.say(emulator.dm(ada), ada, "one")
            await until(lambda: intake.turns)

        kept = await saved(store)
        assert kept.pop("holder") != former.pop("holder")
        assert kept == former


def errors(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [one for one in caplog.records if one.levelno == logging.ERROR]


async def test_a_session_that_redis_tells_of_late_is_resumed_though_no_other_may_begin(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    new, rules = FakeQueue(), replace(FAST, session_starts=1)
    async with DiscordEmulator(gateway=rules) as emulator:
        _, hidden = await make_hidden_session(emulator, store)

        async def come_back() -> None:
            await until(lambda: errors(caplog))
            await hidden.back()

        coming, token = asyncio.create_task(come_back()), emulator.token
        async with running_process(emulator, new, store):
            await until(lambda: new.turns)
            # That one was found lets nobody begin another when it has ended.
            await emulator.invalidate()
            await until(lambda: len(errors(caplog)) == 2)
            await asyncio.sleep(0.1)
        await coming

        assert emulator.token == token
        assert (emulator.sessions, emulator.resumes) == (1, 1)


async def test_a_session_that_redis_tells_of_late_is_resumed_in_the_pause_before_another(
    store: Store,
) -> None:
    new = FakeQueue()
    async with DiscordEmulator(gateway=FAST) as emulator:
        _, hidden = await make_hidden_session(emulator, store)
        async with running_process(emulator, new, store, tuning=SLOW_STARTS):
            await emulator.invalidate()
            await until(lambda: emulator.listeners[1].ended)
            await hidden.back()
            await until(lambda: new.turns)

        assert (emulator.sessions, emulator.resumes) == (2, 1)


async def test_if_the_former_session_has_ended_another_begins(store: Store) -> None:
    new = FakeQueue()
    async with DiscordEmulator(gateway=FAST) as emulator:
        ada, hidden = await make_hidden_session(emulator, store)
        await hidden.spoil()
        async with running_process(emulator, new, store):
            await emulator.say(emulator.dm(ada), ada, "two")
            await until(lambda: new.texts == ["two"])

            await hidden.back()
            await until(lambda: not emulator.listeners[1].connected)
            await emulator.say(emulator.dm(ada), ada, "three")
            await until(lambda: "three" in new.texts and emulator.sessions == 3)
            await until_saved_is(store, emulator.listeners[-1].session_id)


async def test_a_session_that_has_ended_is_resumed_by_no_later_process(store: Store) -> None:
    new, clock = FakeQueue(), Clock()
    async with DiscordEmulator(gateway=FAST, clock=clock) as emulator:
        ada = emulator.user("Ada")
        async with running_process(emulator, FakeQueue(), store):
            await until_heard(store, await emulator.say(emulator.dm(ada), ada, "one"))
        clock.advance(3600)
        async with (
            logged_in(emulator, tuning=SLOW_STARTS) as platform,
            running(platform.listener.listen(door(FakeQueue()), store=store)),
        ):
            await until(lambda: len(emulator.handshakes) == 2)
            await until_saved_is(store, None)

        async with running_process(emulator, new, store, tuning=SLOW_STARTS):
            await emulator.say(emulator.dm(ada), ada, "two")
            await until(lambda: "two" in new.texts)

        assert [handshake.seq is None for handshake in emulator.handshakes] == [True, False, True]


async def test_what_waits_in_a_session_that_is_left_is_told_to_the_next_process(
    store: Store,
) -> None:
    stuck, new = FakeQueue(), FakeQueue()
    async with DiscordEmulator(gateway=FAST) as emulator:
        ada, hidden = await make_hidden_session(emulator, store)
        await hidden.spoil()
        async with running_process(emulator, stuck, store):
            await emulator.say(emulator.dm(ada), ada, "two")
            await until(lambda: stuck.turns)
            stuck.open.clear()
            await emulator.say(emulator.dm(ada), ada, "three")
            await until(lambda: len(stuck.turns) == 2)
            await hidden.back()
            await until(lambda: emulator.sessions == 3)
            await asyncio.sleep(0.2)  # ten looks at what is to be saved

        async with running_process(emulator, new, store):
            await until(lambda: "three" in new.texts)


async def test_what_waits_of_a_former_session_that_ends_is_told_to_the_next_process(
    store: Store,
) -> None:
    stuck, new = FakeQueue(), FakeQueue()
    async with DiscordEmulator(gateway=FAST) as emulator:
        ada, hidden = await make_hidden_session(emulator, store)
        async with running_process(emulator, stuck, store):
            await emulator.say(emulator.dm(ada), ada, "two")
            await until(lambda: "two" in stuck.texts)
            stuck.open.clear()
            await hidden.back()
            await until(lambda: "one" in stuck.texts)
            await emulator.invalidate()
            await until(lambda: emulator.sessions == 3)
            await asyncio.sleep(0.2)  # ten looks at what is to be saved

        async with running_process(emulator, new, store):
            await until(lambda: "one" in new.texts)


async def test_a_process_does_not_go_back_to_a_session_of_its_own_that_has_ended(
    store: Store,
) -> None:
    intake = FakeQueue()
    async with DiscordEmulator(gateway=FAST) as emulator:
        ada, hidden = emulator.user("Ada"), Hidden(store, emulator)
        async with running_process(emulator, intake, store):
            await until_saved(store, 1)
            await hidden.hide()
            await emulator.invalidate()
            await until(lambda: len(emulator.listeners) == 2)
            await emulator.say(emulator.dm(ada), ada, "one")
            await until(lambda: intake.turns)
            await hidden.back()
            await until_saved_is(store, emulator.listeners[1].session_id)

            assert (await saved(store))["id"] == emulator.listeners[1].session_id
        assert emulator.sessions == 2


async def test_what_waits_of_a_session_that_has_ended_numbers_nothing_of_the_next(
    store: Store,
) -> None:
    intake = FakeQueue()
    async with DiscordEmulator(gateway=FAST) as emulator:
        ada = emulator.user("Ada")
        async with running_process(emulator, intake, store):
            for text in ("one", "two", "three"):
                await until_heard(store, await emulator.say(emulator.dm(ada), ada, text))
            intake.open.clear()
            await emulator.say(emulator.dm(ada), ada, "four")
            await until(lambda: len(intake.turns) == 4)
            await emulator.invalidate()
            await until(lambda: len(emulator.listeners) == 2)
            await until_saved_is(store, emulator.listeners[1].session_id)
            await asyncio.sleep(0.2)  # ten looks at what is to be saved

            # What was missed between the two is not looked for yet.
            assert (await saved(store))["id"] == emulator.listeners[1].session_id
            assert (await saved(store))["servers"]
            intake.open.set()


async def test_a_session_that_redis_tells_of_late_is_not_forgotten_while_discord_is_away(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    new = FakeQueue()
    async with DiscordEmulator(gateway=FAST) as emulator:
        _, hidden = await make_hidden_session(emulator, store)
        async with running_process(emulator, new, store):
            emulator.refuse_connections()
            await hidden.back()
            await until(lambda: caplog.records)
            emulator.accept_connections()
            await until(lambda: new.turns)

        assert (emulator.sessions, emulator.resumes) == (2, 1)


async def test_a_command_that_both_sessions_tell_of_is_asked_once(store: Store) -> None:
    new = FakeQueue()
    async with DiscordEmulator(gateway=FAST) as emulator:
        ada, hidden = emulator.user("Ada"), Hidden(store, emulator)
        async with running_process(emulator, FakeQueue(), store):
            await until_saved(store, 1)
        await hidden.hide()
        async with running_process(emulator, new, store):
            asked = await emulator.slash(emulator.channel_id, ada, "ask", question="why?")
            await until(lambda: emulator.original(asked))
            await hidden.back()
            await until(lambda: len(new.asked) > 1)
            await emulator.say(emulator.dm(ada), ada, "on")
            await until(lambda: "on" in new.texts)

        shown = emulator.original(asked)
        assert (new.texts, new.asked.count(f"discord:{asked}")) == (["why?", "on"], 2)
        assert shown
        assert not shown.ephemeral


async def test_each_shard_resumes_the_session_that_redis_could_not_tell_of(store: Store) -> None:
    new, rules = FakeQueue(), replace(FAST, shards=2, max_concurrency=2)
    async with DiscordEmulator(gateway=rules) as emulator:
        ada = emulator.user("Ada")
        hidden = [Hidden(store, emulator, f"{number}/2", "session") for number in (0, 1)]
        async with running_process(emulator, FakeQueue(), store, shards=((0, 1), 2)):
            async with asyncio.timeout(60):
                while len(await store.command("KEYS", store.key("gateway", "*", "session"))) < 2:
                    await asyncio.sleep(0.01)
        for one in hidden:
            await one.hide()
        async with running_process(emulator, new, store, shards=((0, 1), 2)):
            await until(lambda: emulator.sessions == 4)
            for one in hidden:
                await one.back()
            await until(lambda: emulator.resumes == 2)
            await emulator.say(emulator.dm(ada), ada, "one")
            await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} two")
            await until(lambda: {"one", "two"} <= {*new.texts})

            assert [one.connected for one in emulator.listeners] == [True, True, False, False]


async def test_a_session_that_redis_tells_of_late_is_resumed_with_fewer_intents_as_well(
    store: Store,
) -> None:
    new = FakeQueue()
    async with DiscordEmulator(message_content=False, gateway=FAST) as emulator:
        _, hidden = await make_hidden_session(emulator, store)
        async with running_process(emulator, new, store):
            await until(lambda: emulator.sessions == 4)
            await hidden.back()
            await until(lambda: "one" in new.texts)

        assert emulator.resumes == 1


async def test_where_no_session_was_left_a_redis_that_was_away_changes_nothing(
    store: Store,
) -> None:
    intake = FakeQueue()
    async with DiscordEmulator() as emulator:
        ada, hidden = emulator.user("Ada"), Hidden(store, emulator)
        await hidden.hide()
        async with running_process(emulator, intake, store):
            await emulator.say(emulator.dm(ada), ada, "one")
            await until(lambda: intake.turns)
            await hidden.back()
            await until_saved(store, 1)

        assert (emulator.sessions, emulator.resumes) == (1, 0)


async def test_what_is_said_while_a_killed_process_is_away_is_answered(
    own_store: Store, data_dir: Path
) -> None:
    async with DiscordEmulator() as emulator, ModelEmulator() as model:
        variables, way = discord_variables(emulator, model), DiscordDm(emulator)
        theirs = variables | {"REDIS_URL": own_store.url}
        async with bot(data_dir=data_dir, variables=theirs) as first:
            await asyncio.wait_for(emulator.connected.wait(), 60)
            await way.ask("one")
            await until(lambda: way.finals() == said("one"))
            await until_heard(own_store, emulator.screen(way.channel)[0].id)
            first.kill()
            await first.process.wait()
        await way.ask("two")

        async with serving(own_store, variables=variables):
            await until(lambda: way.finals() == said("one", "two"))

    assert (emulator.sessions, emulator.resumes) == (1, 1)


async def test_a_command_outlives_the_process_that_heard_it(
    own_store: Store, data_dir: Path
) -> None:
    text = "a b c d e f g h i j k l m n o p q r s t"
    async with DiscordEmulator() as emulator, ModelEmulator() as model:
        variables, way = discord_variables(emulator, model), DiscordSlash(emulator)
        theirs, model.delay = variables | {"REDIS_URL": own_store.url}, 0.2
        async with bot(data_dir=data_dir, variables=theirs) as first:
            await asyncio.wait_for(emulator.connected.wait(), 60)
            await way.ask(text)
            await until(lambda: way.answers() and len(way.answers()[0][1]) > 1)
            first.kill()
            await first.process.wait()
        model.delay = 0
        async with serving(own_store, variables=variables):
            await until(lambda: way.finals() == said(text))

    # In the same message, by the token that the first process was told.
    assert any(one.call.startswith("PATCH /webhooks/") for one in emulator.requests[-5:])
