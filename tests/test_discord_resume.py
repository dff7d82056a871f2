"""Discord's sessions go on over processes, and what was missed is heard, through discord.py."""

from __future__ import annotations

import asyncio
import gc
import inspect
import re
import tempfile
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import aiohttp
import discord
import pytest
import yarl
from discord.gateway import DiscordWebSocket, ReconnectWebSocket

from adapters.discord import DiscordPlatform, connect, missed
from adapters.discord.backlog import Backlog, Errand
from adapters.discord.connection import OURS, Session
from adapters.discord.journal import Journal, held
from adapters.discord.platform import Shards
from adapters.discord.saved import SavedSession
from bot.domain import Turn
from bot.errors import CannotStart, StoreUnavailable, WriteRefused
from bot.history import History
from bot.intake import Intake
from bot.store import Store
from bot.store import connect as connect_store
from bot.turns import Limits, TurnQueue
from tests.emulators.clock import Clock
from tests.emulators.discord import DiscordEmulator, GatewayRules
from tests.emulators.discord.objects import STAGE, VOICE
from tests.emulators.model import ModelEmulator
from tests.fakes import FakeIntake, NoLimits
from tests.process import DiscordDm, DiscordMention, DiscordSlash, bot, discord_variables
from tests.waiting import until

FAST = GatewayRules(identify_seconds=0.0)


@pytest.fixture(autouse=True)
def haste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.discord.shard._START_PAUSE", (0.0, 0.0))
    monkeypatch.setattr("adapters.discord.shard._SAVE_SECONDS", 0.02)


@asynccontextmanager
async def a_process(
    emulator: DiscordEmulator, intake: Intake, store: Store, *, shards: Shards | None = None
) -> AsyncIterator[DiscordPlatform]:
    """Listen like a process of its own, which ends as one does on SIGTERM."""
    heard = emulator.sessions + emulator.resumes
    async with connect(
        token=emulator.token,
        api_url=emulator.api_url,
        gateway_url=emulator.gateway_url,
        threads=True,
        budgets=NoLimits(),
    ) as platform:
        task = asyncio.create_task(platform.listen(intake, store=store, shards=shards))
        try:
            await until(lambda: emulator.sessions + emulator.resumes > heard or task.done())
            yield platform
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def saved(store: Store, *words: str) -> dict[str, str]:
    for name in await store.command("KEYS", store.key("gateway", "*", "session")):
        return dict(await store.command("HGETALL", name))
    return {}


async def until_saved(store: Store, seq: int) -> None:
    async with asyncio.timeout(60):
        while int((await saved(store)).get("seq", 0)) < seq:
            await asyncio.sleep(0.01)


async def until_heard(store: Store, message: str) -> None:
    """Wait until it is saved that this message was dealt with."""
    async with asyncio.timeout(60):
        while True:
            for name in await store.command("KEYS", store.key("gateway", "*", "heard")):
                heard = await store.command("HVALS", name)
                if heard and max(map(int, heard)) >= int(message):
                    return
            await asyncio.sleep(0.01)


def a_queue(store: Store, worker: str) -> TurnQueue:
    limits = Limits(waiting_per_thread=9, waiting_per_person=9, waiting=9, running_per_person=9)
    return TurnQueue(
        store=store, worker=worker, limits=limits, lease_seconds=3.0, keep_seconds=60.0
    )


def an_intake(store: Store, worker: str) -> Intake:
    history = History(store=store, keep_seconds=60.0)
    return Intake(queue=a_queue(store, worker), history=history)


async def our_thread(
    emulator: DiscordEmulator, platform: DiscordPlatform, turns: FakeIntake
) -> str:
    """Return a thread that the bot opened, for the last turn in a channel."""
    turn = next(each for each in reversed(turns.turns) if each.place["opens_thread"])
    async with platform.surface(turn):
        return emulator.thread_of(turn.id.removeprefix("discord:")) or ""


# A new process resumes


async def test_a_new_process_goes_on_where_the_old_one_stopped(store: Store) -> None:
    old, new = FakeIntake(), FakeIntake()
    async with DiscordEmulator() as emulator:
        ada = emulator.user("Ada")
        dm = emulator.dm(ada)
        async with a_process(emulator, old, store):
            await emulator.say(dm, ada, "one")
            await until(lambda: old.turns)
        await emulator.say(dm, ada, "two")

        async with a_process(emulator, new, store):
            await until(lambda: new.turns)
            await emulator.say(dm, ada, "three")
            await until(lambda: len(new.turns) > 1)

        assert new.texts == ["two", "three"]
        assert (emulator.sessions, emulator.resumes) == (1, 1)


async def test_what_was_heard_but_not_admitted_is_told_to_the_next_process(store: Store) -> None:
    old, new = FakeIntake(), FakeIntake()
    async with DiscordEmulator() as emulator:
        ada = emulator.user("Ada")
        dm = emulator.dm(ada)
        async with a_process(emulator, old, store):
            await until_saved(store, 1)
            old.refuses = StoreUnavailable("away")
            await emulator.say(dm, ada, "one")
            await emulator.say(emulator.channel_id, ada, "of no concern")
            await until(lambda: old.refusals)

        async with a_process(emulator, new, store):
            await until(lambda: new.turns)

        assert (old.texts, new.texts) == ([], ["one"])
        assert emulator.sessions == 1


async def test_a_deletion_that_was_not_heeded_is_told_to_the_next_process(store: Store) -> None:
    old, new = FakeIntake(), FakeIntake()
    async with DiscordEmulator() as emulator:
        ada = emulator.user("Ada")
        dm = emulator.dm(ada)
        async with a_process(emulator, old, store):
            said = await emulator.say(dm, ada, "one")
            await until_heard(store, said)
            old.refuses = StoreUnavailable("away")
            await emulator.delete(said)
            await until(lambda: old.refusals)

        async with a_process(emulator, new, store):
            await until(lambda: new.forgotten)

        assert new.forgotten == [f"discord:{said}"]


async def test_a_command_that_was_not_admitted_is_told_to_the_next_process(store: Store) -> None:
    old, new = FakeIntake(), FakeIntake()
    old.open.clear()
    async with DiscordEmulator() as emulator:
        ada = emulator.user("Ada")
        async with a_process(emulator, old, store):
            await until_saved(store, 1)
            await emulator.slash(emulator.channel_id, ada, "ask", prompt="why?")
            await until(lambda: old.turns)

        async with a_process(emulator, new, store):
            await until(lambda: new.turns)

        assert new.texts == ["why?"]


async def test_what_was_admitted_is_not_told_again(store: Store) -> None:
    old, new = FakeIntake(), FakeIntake()
    async with DiscordEmulator() as emulator:
        ada = emulator.user("Ada")
        dm = emulator.dm(ada)
        async with a_process(emulator, old, store):
            for text in ("one", "two"):
                await emulator.say(dm, ada, text)
            await until(lambda: len(old.turns) > 1)

        async with a_process(emulator, new, store):
            await emulator.say(dm, ada, "three")
            await until(lambda: new.turns)

        assert new.asked == [new.turns[0].id]


async def test_a_thread_is_followed_after_a_resume_without_a_mention(store: Store) -> None:
    old, new = FakeIntake(), FakeIntake()
    async with DiscordEmulator() as emulator:
        ada = emulator.user("Ada")
        async with a_process(emulator, old, store) as platform:
            await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")
            await until(lambda: old.turns)
            thread = await our_thread(emulator, platform, old)

        async with a_process(emulator, new, store):
            await emulator.say(emulator.channel_id, ada, "among people")
            for text in ("two", "three"):
                await emulator.say(thread, ada, text)
            await until(lambda: len(new.turns) > 1)

        assert new.texts == ["two", "three"]
        assert {turn.key for turn in new.turns} == {old.turns[0].key}
        looked_up = [one.call for one in emulator.requests if one.call == f"GET /channels/{thread}"]
        assert len(looked_up) == 1


async def test_what_discord_does_not_let_us_read_is_told_to_the_next_process(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    old, blind, new = FakeIntake(), FakeIntake(), FakeIntake()
    async with DiscordEmulator() as emulator:
        ada = emulator.user("Ada")
        async with a_process(emulator, old, store) as platform:
            await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")
            await until(lambda: old.turns)
            thread = await our_thread(emulator, platform, old)
        emulator.fail("GET /channels/", status=503, times=1000)
        async with a_process(emulator, blind, store):
            await emulator.say(thread, ada, "two")
            dm = await emulator.say(emulator.dm(ada), ada, "three")
            await until(lambda: f"questions in channel {thread} wait for Discord" in caplog.text)
            await until(lambda: blind.turns)
        emulator.heal()

        async with a_process(emulator, new, store):
            await until(lambda: len(new.turns) > 1)

        assert blind.texts == ["three"]
        assert (sorted(new.texts), new.asked.count(f"discord:{dm}")) == (["three", "two"], 1)
        assert (emulator.sessions, emulator.resumes) == (1, 2)


async def test_the_saved_session_expires_and_is_no_secret_of_the_log(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with DiscordEmulator() as emulator, a_process(emulator, FakeIntake(), store):
        await until_saved(store, 1)
        (name,) = await store.command("KEYS", store.key("gateway", "*", "session"))

        seconds = await store.command("TTL", name)

        assert 0 < seconds <= 300
        secret = (await saved(store))["id"]
        ours = [one.getMessage() for one in caplog.records if one.name.startswith("adapters")]
        assert not any(secret in line for line in ours)


async def test_an_address_of_somebody_else_gets_no_token(store: Store) -> None:
    visits: list[object] = []

    def note(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visits.append(writer)
        writer.close()

    thief = await asyncio.start_server(note, "127.0.0.1", 0)
    port = thief.sockets[0].getsockname()[1]
    async with thief, DiscordEmulator() as emulator:
        async with a_process(emulator, FakeIntake(), store):
            await until_saved(store, 1)
        (name,) = await store.command("KEYS", store.key("gateway", "*", "session"))
        await store.command("HSET", name, "url", f"ws://127.0.0.1:{port}/")

        async with a_process(emulator, FakeIntake(), store):
            assert (emulator.sessions, emulator.resumes) == (1, 1)
    assert not visits


async def test_an_address_that_does_not_answer_is_left_for_the_first_one(store: Store) -> None:
    async with DiscordEmulator() as emulator:
        async with a_process(emulator, FakeIntake(), store):
            await until_saved(store, 1)
        (name,) = await store.command("KEYS", store.key("gateway", "*", "session"))
        gone = emulator.gateway_url.replace("/gateway", "/nowhere")
        await store.command("HSET", name, "url", gone)

        async with a_process(emulator, FakeIntake(), store):
            assert (emulator.sessions, emulator.resumes) == (1, 1)


async def test_a_session_is_resumed_at_its_own_address(store: Store) -> None:
    async with DiscordEmulator() as emulator:
        async with a_process(emulator, FakeIntake(), store):
            await until_saved(store, 1)
        async with connect(
            token=emulator.token,
            api_url=emulator.api_url,
            gateway_url=emulator.gateway_url.replace("/gateway", "/nowhere"),
            threads=True,
            budgets=NoLimits(),
        ) as platform:
            task = asyncio.create_task(platform.listen(FakeIntake(), store=store))
            try:
                await until(lambda: emulator.resumes)
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

        assert (emulator.sessions, emulator.resumes) == (1, 1)


async def test_a_session_with_other_intents_is_not_resumed(store: Store) -> None:
    async with DiscordEmulator(gateway=FAST) as emulator:
        async with a_process(emulator, FakeIntake(), store):
            await until_saved(store, 1)
        (name,) = await store.command("KEYS", store.key("gateway", "*", "session"))
        await store.command("HSET", name, "intents", "1")

        async with a_process(emulator, FakeIntake(), store):
            assert (emulator.sessions, emulator.resumes) == (2, 0)


async def test_without_message_content_the_session_goes_on_as_well(store: Store) -> None:
    new = FakeIntake()
    async with DiscordEmulator(message_content=False) as emulator:
        ada = emulator.user("Ada")
        async with a_process(emulator, FakeIntake(), store):
            await until_saved(store, 1)
        await emulator.say(emulator.dm(ada), ada, "one")

        async with a_process(emulator, new, store):
            await until(lambda: new.turns)

        # Each process asks for the content first.
        assert (emulator.sessions, emulator.resumes) == (3, 1)


async def test_a_lost_redis_only_means_a_session_of_its_own(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    intake = FakeIntake()
    async with DiscordEmulator() as emulator:
        (name,) = [store.key("gateway", emulator.application_id, "all", "session")]
        await store.command("SET", name, "not a hash")  # as good as a Redis that refuses

        async with a_process(emulator, intake, store):
            ada = emulator.user("Ada")
            await emulator.say(emulator.dm(ada), ada, "one")
            await until(lambda: intake.turns)

        assert emulator.sessions == 1
    assert "the gateway's session is not known" in caplog.text


# The session is gone


async def test_what_was_missed_is_caught_up_when_the_session_is_gone(store: Store) -> None:
    old, new, clock = FakeIntake(), FakeIntake(), Clock()
    async with DiscordEmulator(clock=clock, gateway=FAST) as emulator:
        ada = emulator.user("Ada")
        dm = emulator.dm(ada)
        async with a_process(emulator, old, store) as platform:
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

        async with a_process(emulator, new, store):
            await until(lambda: "five" in new.texts)

        # What the old process admitted, the queue would know.
        unknown = [text for text in new.texts if text not in old.texts]
        assert unknown == ["two", "three", "four", "five"]
        assert emulator.sessions == 2


async def test_what_was_missed_comes_before_what_is_said_now(store: Store) -> None:
    old, new, clock = FakeIntake(), FakeIntake(), Clock()
    async with DiscordEmulator(clock=clock, gateway=FAST, latency=0.05) as emulator:
        ada = emulator.user("Ada")
        async with a_process(emulator, old, store) as platform:
            await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")
            await until(lambda: old.turns)
            thread = await our_thread(emulator, platform, old)
        await emulator.say(thread, ada, "two")
        clock.advance(3600)

        async with a_process(emulator, new, store):
            await emulator.say(thread, ada, "three")
            await until(lambda: len(new.turns) > 2)

        assert [text for text in new.texts if text != "one"] == ["two", "three"]


class Picky(FakeIntake):
    """Never takes the question "one"."""

    async def admit(self, turn: Turn) -> bool:
        if turn.text == "one":
            raise WriteRefused("this one never")
        return await super().admit(turn)


async def test_a_missed_question_that_cannot_be_taken_loses_no_other(store: Store) -> None:
    new, clock = Picky(), Clock()
    async with DiscordEmulator(clock=clock, gateway=FAST) as emulator:
        ada = emulator.user("Ada")
        async with a_process(emulator, FakeIntake(), store):
            await until_saved(store, 1)
        for text in ("one", "two", "three"):
            await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} {text}")
        clock.advance(3600)

        async with a_process(emulator, new, store):
            await until(lambda: len(new.turns) > 1)

        assert new.texts == ["two", "three"]


async def test_nobody_is_answered_who_does_not_wait_any_more(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.discord.missed.PATIENCE", -60.0)
    old, new, clock = FakeIntake(), FakeIntake(), Clock()
    async with DiscordEmulator(clock=clock, gateway=FAST) as emulator:
        ada = emulator.user("Ada")
        said = await emulator.say(emulator.dm(ada), ada, "zero")
        async with a_process(emulator, old, store):
            said = await emulator.say(emulator.dm(ada), ada, "one")
            await until(lambda: old.turns)
            await until_heard(store, said)
        await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} two")
        clock.advance(3600)

        async with a_process(emulator, new, store):
            await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} three")
            await until(lambda: new.turns)

        assert new.texts == ["three"]


async def test_a_bot_that_starts_for_the_first_time_answers_nothing_old(store: Store) -> None:
    intake = FakeIntake()
    async with DiscordEmulator() as emulator:
        ada = emulator.user("Ada")
        await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")

        async with a_process(emulator, intake, store):
            await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} two")
            await until(lambda: intake.turns)

        assert intake.texts == ["two"]


async def test_a_quiet_bot_has_listened_all_the_same(store: Store) -> None:
    new, clock = FakeIntake(), Clock()
    async with DiscordEmulator(clock=clock, gateway=FAST) as emulator:
        ada = emulator.user("Ada")
        async with a_process(emulator, FakeIntake(), store):
            await until_saved(store, 1)
        await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")
        clock.advance(3600)

        async with a_process(emulator, new, store):
            await until(lambda: new.turns)

        assert new.texts == ["one"]


async def test_a_session_that_discord_ends_while_we_listen_is_caught_up(store: Store) -> None:
    intake = FakeIntake()
    async with DiscordEmulator(gateway=FAST) as emulator:
        ada = emulator.user("Ada")
        async with a_process(emulator, intake, store):
            said = await emulator.say(emulator.dm(ada), ada, "one")
            await until_heard(store, said)

            emulator.refuse_connections()
            await emulator.invalidate()
            await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} two")
            emulator.accept_connections()
            await until(lambda: len(intake.turns) > 1)

        assert intake.texts == ["one", "two"]
        assert emulator.sessions == 2


async def test_a_catch_up_looks_at_fifty_places_and_no_more(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert missed.PLACES == 50
    monkeypatch.setattr(missed, "PLACES", 3)
    new, clock = FakeIntake(), Clock()
    async with DiscordEmulator(clock=clock, gateway=FAST) as emulator:
        ada = emulator.user("Ada")
        async with a_process(emulator, FakeIntake(), store):
            await until_saved(store, 1)
        for number in range(5):
            place = emulator.channel(f"channel-{number}")
            await emulator.say(place, ada, f"{emulator.bot_mention} {number}")
        clock.advance(3600)

        async with a_process(emulator, new, store):
            await until(lambda: len(new.turns) > 2)
            await emulator.say(emulator.dm(ada), ada, "now")
            await until(lambda: len(new.turns) > 3)

        assert new.texts == ["4", "3", "2", "now"]


async def test_a_catch_up_makes_fifty_requests_for_messages_dms_included(store: Store) -> None:
    old, new, clock = FakeIntake(), FakeIntake(), Clock()
    async with DiscordEmulator(clock=clock, gateway=FAST) as emulator:
        emulator.limits.everything = (10**6, 1.0)
        ada = emulator.user("Ada")
        dm = emulator.dm(ada)
        async with a_process(emulator, old, store):
            await until_heard(store, await emulator.say(dm, ada, "hello"))
        for number in range(60):
            place = emulator.channel(f"channel-{number}")
            await emulator.say(place, ada, f"{emulator.bot_mention} {number}")
        await emulator.say(dm, ada, "now")
        clock.advance(3600)

        async with a_process(emulator, new, store):
            await until(lambda: "now" in new.texts)

        looks = [one for one in emulator.requests if one.call.startswith("GET /channels")]
        assert len([one for one in looks if one.path.endswith("/messages")]) == 50
        assert [one for one in new.texts if one != "hello"] == [*map(str, range(59, 10, -1)), "now"]


async def test_all_that_was_missed_in_a_place_is_read_page_by_page(store: Store) -> None:
    new, clock = FakeIntake(), Clock()
    async with DiscordEmulator(clock=clock, gateway=FAST) as emulator:
        ada = emulator.user("Ada")
        async with a_process(emulator, FakeIntake(), store):
            await until_saved(store, 1)
        for number in range(230):
            called = f"{emulator.bot_mention} {number}" if number % 45 == 0 else "among people"
            await emulator.say(emulator.channel_id, ada, called)
        clock.advance(3600)

        async with a_process(emulator, new, store):
            await until(lambda: len(new.turns) > 5)

        assert new.texts == ["0", "45", "90", "135", "180", "225"]


async def test_of_more_than_can_be_read_in_a_place_the_newest_is(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert missed._PAGE * missed._PAGES == 1000
    monkeypatch.setattr(missed, "_PAGE", 2)
    monkeypatch.setattr(missed, "_PAGES", 3)
    new, clock = FakeIntake(), Clock()
    async with DiscordEmulator(clock=clock, gateway=FAST) as emulator:
        ada = emulator.user("Ada")
        async with a_process(emulator, FakeIntake(), store):
            await until_saved(store, 1)
        for number in range(8):
            await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} {number}")
        clock.advance(3600)

        async with a_process(emulator, new, store):
            await until(lambda: "7" in new.texts)

        assert new.texts == list("234567")
    assert f"of channel {emulator.channel_id} only the last 6 messages are read" in caplog.text


async def test_a_place_where_much_was_said_holds_up_no_other_and_keeps_its_order(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(missed, "_PAGE", 1)
    monkeypatch.setattr(missed, "_TOGETHER", 0.35)
    monkeypatch.setattr("adapters.discord.gateway._LOOK_AGAIN", 0.0)
    new, clock = FakeIntake(), Clock()
    async with DiscordEmulator(clock=clock, gateway=FAST) as emulator:
        ada = emulator.user("Ada")
        quiet = emulator.channel("quiet")
        async with a_process(emulator, FakeIntake(), store):
            await until_saved(store, 1)
        await emulator.say(quiet, ada, f"{emulator.bot_mention} quiet")
        for number in range(7):
            await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} {number}")
        clock.advance(3600)
        emulator.latency = 0.1

        async with a_process(emulator, new, store):
            await until(lambda: len(new.turns) > 7)

        assert new.texts == ["quiet", *"0123456"]


async def test_a_process_that_ends_during_its_catch_up_does_so_quietly(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    async with DiscordEmulator(clock=clock, gateway=FAST) as emulator:
        ada = emulator.user("Ada")
        dm = emulator.dm(ada)
        async with a_process(emulator, FakeIntake(), store):
            await until_heard(store, await emulator.say(dm, ada, "one"))
        for number in range(20):
            clock.advance(3600)
            async with a_process(emulator, FakeIntake(), store):
                await asyncio.sleep(number / 1000)

    assert not [one for one in caplog.records if one.exc_info]


@pytest.mark.parametrize("kind", [VOICE, STAGE])
async def test_what_was_missed_in_the_chat_of_a_voice_channel_is_caught_up(
    store: Store, kind: Literal[2, 13]
) -> None:
    new, clock = FakeIntake(), Clock()
    async with DiscordEmulator(clock=clock, gateway=FAST) as emulator:
        ada = emulator.user("Ada")
        hall = emulator.channel("hall", kind=kind)
        async with a_process(emulator, FakeIntake(), store):
            await until_saved(store, 1)
        await emulator.say(hall, ada, f"{emulator.bot_mention} one")
        clock.advance(3600)

        async with a_process(emulator, new, store):
            await until(lambda: new.turns, within=10)

        assert new.texts == ["one"]


async def test_a_place_that_cannot_be_read_hides_no_other(store: Store) -> None:
    new, clock = FakeIntake(), Clock()
    async with DiscordEmulator(clock=clock, gateway=FAST) as emulator:
        ada = emulator.user("Ada")
        async with a_process(emulator, FakeIntake(), store):
            await until_saved(store, 1)
        await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")
        closed = emulator.channel("closed")
        await emulator.say(closed, ada, f"{emulator.bot_mention} two")
        emulator.fail(f"GET /channels/{closed}/messages", status=403)
        clock.advance(3600)

        async with a_process(emulator, new, store):
            await until(lambda: new.turns)

        assert new.texts == ["one"]


async def test_a_store_that_is_away_during_the_catch_up_loses_nothing(store: Store) -> None:
    new, clock = FakeIntake(), Clock()
    async with DiscordEmulator(clock=clock, gateway=FAST) as emulator:
        ada = emulator.user("Ada")
        async with a_process(emulator, FakeIntake(), store):
            await until_saved(store, 1)
        before = await saved(store)
        await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")
        clock.advance(3600)
        new.refuses = StoreUnavailable("away")

        async with a_process(emulator, new, store):
            await until(lambda: new.refusals > 1)
            # Who comes after us, should we end now, has to catch up as well.
            assert (await saved(store))["id"] == before["id"]
            new.refuses = None
            await until(lambda: new.turns)

        assert new.texts == ["one"]


# A process that is killed on the way


def as_if_killed(patch: pytest.MonkeyPatch) -> None:
    """Let processes from now on save no session, neither while they listen nor at their end."""
    patch.setattr("adapters.discord.shard._FIRST_SAVE_SECONDS", 3600.0)
    patch.setattr("adapters.discord.shard._LAST_SAVE", 0.0)


async def test_what_the_first_process_ever_heard_before_it_was_killed_is_answered(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, clock = FakeIntake(), FakeIntake(), Clock()
    old.refuses = StoreUnavailable("not yet")
    async with DiscordEmulator(clock=clock, gateway=FAST) as emulator:
        ada = emulator.user("Ada")
        with monkeypatch.context() as patch:
            as_if_killed(patch)
            async with a_process(emulator, old, store):
                await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")
                await until(lambda: old.refusals)
        clock.advance(3600)

        async with a_process(emulator, new, store):
            await until(lambda: new.turns)

        assert new.texts == ["one"]


async def test_what_a_process_heard_that_was_killed_in_its_catch_up_is_answered(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, clock = FakeIntake(), FakeIntake(), Clock()
    old.refuses = StoreUnavailable("not yet")
    async with DiscordEmulator(clock=clock, gateway=FAST) as emulator:
        ada, bob = emulator.user("Ada"), emulator.user("Bob")
        async with a_process(emulator, FakeIntake(), store):
            await until_saved(store, 1)
        await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")
        clock.advance(3600)
        async with a_process(emulator, old, store):
            await until(lambda: old.refusals)
            # Nobody has heard of this DM before.
            await emulator.say(emulator.dm(bob), bob, "two")
            async with asyncio.timeout(60):
                while not await store.command("KEYS", store.key("gateway", "*", "dms")):
                    await asyncio.sleep(0.01)
        clock.advance(3600)

        async with a_process(emulator, new, store):
            await until(lambda: len(new.turns) > 1)

        assert new.texts == ["one", "two"]


async def test_a_catch_up_that_takes_long_goes_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(missed, "_TOGETHER", 0.25)
    monkeypatch.setattr("adapters.discord.gateway._LOOK_AGAIN", 0.0)
    new, clock = FakeIntake(), Clock()
    async with DiscordEmulator(clock=clock, gateway=FAST) as emulator:
        ada = emulator.user("Ada")
        async with a_process(emulator, FakeIntake(), store):
            await until_saved(store, 1)
        for number in range(6):
            place = emulator.channel(f"channel-{number}")
            await emulator.say(place, ada, f"{emulator.bot_mention} {number}")
        clock.advance(3600)
        emulator.latency = 0.1

        async with a_process(emulator, new, store):
            await until(lambda: len(new.turns) > 5)

        assert sorted(new.texts) == list("012345")


async def test_a_place_that_cannot_be_read_now_is_read_later(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.discord.gateway._LOOK_AGAIN", 0.01)
    new, clock = FakeIntake(), Clock()
    async with DiscordEmulator(clock=clock, gateway=FAST) as emulator:
        ada = emulator.user("Ada")
        dm = emulator.dm(ada)
        async with a_process(emulator, FakeIntake(), store):
            await until_heard(store, await emulator.say(dm, ada, "hello"))
        before = await saved(store)
        await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")
        await emulator.say(dm, ada, "two")
        emulator.fail("GET /channels/", "drop", times=1000)
        clock.advance(3600)

        async with a_process(emulator, new, store):
            await emulator.say(emulator.channel("open"), ada, f"{emulator.bot_mention} three")
            await until(lambda: new.turns)
            # Who comes after us, should we end now, has to catch up as well.
            assert (await saved(store))["id"] == before["id"]
            emulator.heal()
            await until(lambda: len([one for one in new.texts if one != "hello"]) > 2)

        assert [one for one in new.texts if one != "hello"] == ["three", "one", "two"]


async def test_a_server_that_is_shown_late_is_looked_through(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(missed, "_SHOWN_LOOKS", 1)
    monkeypatch.setattr("adapters.discord.gateway._LOOK_AGAIN", 0.01)
    new, clock = FakeIntake(), Clock()
    late = replace(FAST, shown_after=0.5)
    async with DiscordEmulator(clock=clock, gateway=late) as emulator:
        ada = emulator.user("Ada")
        async with a_process(emulator, FakeIntake(), store):
            await until_saved(store, 1)
        await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")
        clock.advance(3600)

        async with a_process(emulator, new, store):
            await until(lambda: new.turns)

        assert new.texts == ["one"]


async def test_a_server_that_is_not_shown_at_all_holds_nothing_up_for_long(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(missed, "_SHOWN_LOOKS", 1)
    monkeypatch.setattr(missed, "_SHOWN_WITHIN", 0.1)
    monkeypatch.setattr("adapters.discord.gateway._LOOK_AGAIN", 0.01)
    away = replace(FAST, shown_after=3600.0)

    async with (
        DiscordEmulator(gateway=away) as emulator,
        a_process(emulator, FakeIntake(), store),
    ):
        await until_saved(store, 1)

        assert emulator.listeners[0].session_id == (await saved(store))["id"]


# Several processes


async def test_two_gateways_at_once_admit_each_turn_once(store: Store) -> None:
    queue = a_queue(store, "w")
    async with DiscordEmulator(gateway=FAST) as emulator:
        ada = emulator.user("Ada")
        dm = emulator.dm(ada)
        async with a_process(emulator, an_intake(store, "a"), store):
            await until_saved(store, 1)
            async with a_process(emulator, an_intake(store, "b"), store):
                await until(lambda: [one.connected for one in emulator.listeners] == [True, True])

                for text in ("one", "two", "three"):
                    await emulator.say(dm, ada, text)
                async with asyncio.timeout(60):
                    while await queue.depth() < 3:
                        await asyncio.sleep(0.01)

            await emulator.say(dm, ada, "four")
            async with asyncio.timeout(60):
                while await queue.depth() < 4:
                    await asyncio.sleep(0.01)

        assert await queue.depth() == 4
        assert len(emulator.screen(dm)) == 4


async def test_two_processes_do_not_take_a_session_from_each_other_for_ever(store: Store) -> None:
    old, new = FakeIntake(), FakeIntake()
    async with DiscordEmulator(gateway=FAST) as emulator, a_process(emulator, old, store):
        ada = emulator.user("Ada")
        await until_saved(store, 1)
        async with a_process(emulator, new, store):
            await until(lambda: [one.connected for one in emulator.listeners] == [True, True])
            await emulator.disconnect()
            await until(lambda: [one.resumes for one in emulator.listeners] == [2, 1])

            said = await emulator.say(emulator.dm(ada), ada, "one")
            await until(lambda: old.turns and new.turns)

            # The one that took the session is the one that saves it.
            await until_heard(store, said)
            assert (await saved(store))["id"] == emulator.listeners[0].session_id
        assert emulator.sessions == 2


class Lingering(FakeIntake):
    """Takes its time to let go of an admission."""

    async def admit(self, turn: Turn) -> bool:
        try:
            return await super().admit(turn)
        finally:
            await asyncio.sleep(0.2)


async def test_a_shard_that_ends_first_cuts_no_other_off(store: Store) -> None:
    intake = Lingering()
    intake.open.clear()
    rules = GatewayRules(shards=2, max_concurrency=2)
    async with DiscordEmulator(gateway=rules) as emulator:
        ada = emulator.user("Ada")
        async with a_process(emulator, intake, store, shards=((0, 1), 2)):
            await until(lambda: len(emulator.listeners) == 2)
            await emulator.slash(emulator.channel_id, ada, "ask", prompt="why?")
            await until(lambda: intake.turns)

        everything = gc.get_objects()
        connectors = [one for one in everything if isinstance(one, aiohttp.TCPConnector)]
        assert not [one for one in connectors if not one.closed]


def a_holder(store: Store, name: str) -> SavedSession:
    return SavedSession(store=store, application="1", shard="all", holder=name)


async def test_an_old_process_does_not_write_over_the_session_of_the_new_one(store: Store) -> None:
    old, new = a_holder(store, "old"), a_holder(store, "new")
    session = Session("secret", 7, "ws://here")
    await old.save(session, intents=1, newest=100)
    await new.take(1)
    await new.save(replace(session, seq=9), intents=1, newest=300)

    written = await old.save(replace(session, seq=8), intents=1, newest=200)

    assert not written
    assert await old.is_taken(session)
    assert (await saved(store))["holder"] == "new"
    assert await new.take(1) == replace(session, seq=9)
    assert await new.heard(or_else=1) == 300


async def test_the_shards_of_two_processes_hear_everything_once(store: Store) -> None:
    intakes = [FakeIntake(), FakeIntake()]
    rules = GatewayRules(shards=4, max_concurrency=4, needs_sharding=True)
    async with DiscordEmulator(gateway=rules) as emulator:
        ada = emulator.user("Ada")
        async with (
            a_process(emulator, intakes[0], store, shards=((0, 1), 4)),
            a_process(emulator, intakes[1], store, shards=((2, 3), 4)),
        ):
            await until(lambda: len(emulator.listeners) == 4)
            await emulator.say(emulator.dm(ada), ada, "one")
            await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} two")
            await until(lambda: len(intakes[0].turns + intakes[1].turns) > 1)

        heard = sorted(one.text for one in intakes[0].turns + intakes[1].turns)
        assert heard == ["one", "two"]
        assert sorted(one.shard for one in emulator.listeners) == [(n, 4) for n in range(4)]


async def test_each_shard_resumes_its_own_session(store: Store) -> None:
    new = FakeIntake()
    rules = GatewayRules(shards=2, max_concurrency=2)
    async with DiscordEmulator(gateway=rules) as emulator:
        ada = emulator.user("Ada")
        async with a_process(emulator, FakeIntake(), store, shards=((0, 1), 2)):
            await until(lambda: len(emulator.listeners) == 2)
            async with asyncio.timeout(60):
                while len(await store.command("KEYS", store.key("gateway", "*", "session"))) < 2:
                    await asyncio.sleep(0.01)
        await emulator.say(emulator.dm(ada), ada, "one")
        await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} two")

        async with a_process(emulator, new, store, shards=((0, 1), 2)):
            await until(lambda: len(new.turns) > 1)

        assert sorted(new.texts) == ["one", "two"]
        assert (emulator.sessions, emulator.resumes) == (2, 2)


@pytest.mark.parametrize(
    ("before", "after"), [(None, ((0, 1), 2)), (((0, 1), 2), ((0, 1, 2), 3)), (((0, 1), 2), None)]
)
async def test_another_number_of_shards_catches_up(
    store: Store, before: Shards | None, after: Shards | None
) -> None:
    old, new, clock = FakeIntake(), FakeIntake(), Clock()
    rules = GatewayRules(shards=2, max_concurrency=3, identify_seconds=0.0)
    async with DiscordEmulator(clock=clock, gateway=rules) as emulator:
        ada = emulator.user("Ada")
        dm = emulator.dm(ada)
        async with a_process(emulator, old, store, shards=before):
            await emulator.say(dm, ada, "zero")
            await until(lambda: old.turns)
            async with asyncio.timeout(60):
                while len(await heard_by(store)) < len(before[0] if before else (0,)):
                    await asyncio.sleep(0.01)
        await emulator.say(dm, ada, "one")
        await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} two")
        clock.advance(3600)

        async with a_process(emulator, new, store, shards=after):
            await until(lambda: {"one", "two"} <= {*new.texts})

        assert emulator.resumes == 0


async def heard_by(store: Store) -> list[str]:
    """Return the shards of which it is saved how far they were heard."""
    for name in await store.command("KEYS", store.key("gateway", "*", "heard")):
        return list(await store.command("HKEYS", name))
    return []


async def test_a_shard_that_is_new_goes_on_where_the_slowest_other_was(store: Store) -> None:
    def shard(name: str) -> SavedSession:
        return SavedSession(store=store, application="1", shard=name, holder="it")

    first = await shard("0/2").heard(or_else=300)
    await shard("0/2").save(Session("a", 1, ""), intents=1, newest=500)
    await shard("1/2").save(Session("b", 1, ""), intents=1, newest=400)
    inherited = await shard("0/3").heard(or_else=900)
    # It is kept: the first one's process may end before it has caught up.
    await shard("0/2").save(Session("a", 2, ""), intents=1, newest=700)
    await shard("1/2").save(Session("b", 2, ""), intents=1, newest=600)

    assert (first, inherited) == (0, 400)
    assert await shard("0/3").heard(or_else=900) == 400
    assert await shard("1/2").heard(or_else=900) == 600


async def test_shards_that_may_not_begin_at_once_begin_one_after_the_other(store: Store) -> None:
    rules = GatewayRules(shards=2, max_concurrency=1, identify_seconds=5.0)
    async with (
        DiscordEmulator(gateway=rules) as emulator,
        a_process(emulator, FakeIntake(), store, shards=((0, 1), 2)),
    ):
        await until(lambda: len(emulator.listeners) == 2)

        assert emulator.sessions == 2


@pytest.mark.parametrize(
    ("rules", "shards", "sentence"),
    [
        (GatewayRules(needs_sharding=True), None, "set DISCORD_SHARDS, for example 0-1/2"),
    ],
)
async def test_shards_that_discord_refuses_are_told_by_the_name_of_their_setting(
    store: Store, rules: GatewayRules, shards: Shards | None, sentence: str
) -> None:
    async with (
        DiscordEmulator(gateway=rules) as emulator,
        connect(
            token=emulator.token,
            api_url=emulator.api_url,
            gateway_url=emulator.gateway_url,
            threads=True,
            budgets=NoLimits(),
        ) as platform,
    ):
        with pytest.raises(CannotStart, match=sentence):
            await platform.listen(FakeIntake(), store=store, shards=shards)


async def test_a_bot_that_may_begin_no_more_sessions_waits_and_keeps_its_token(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    rules = GatewayRules(session_starts=1, identify_seconds=0.0)
    async with DiscordEmulator(clock=clock, gateway=rules) as emulator:
        token = emulator.token
        async with a_process(emulator, FakeIntake(), store):
            await emulator.invalidate()
            await until(lambda: "begin no session" in caplog.text)

        assert (emulator.token, emulator.sessions) == (token, 1)


# As processes


def said(*texts: str) -> list[str]:
    """Return what the emulated model answers to these."""
    return [f"You said: {text}" for text in texts]


@pytest.mark.process
async def test_what_is_said_while_a_killed_process_is_away_is_answered() -> None:
    async with DiscordEmulator() as emulator, ModelEmulator() as model:
        variables = discord_variables(emulator, model)
        with tempfile.TemporaryDirectory(prefix="parley-") as folder:
            data_dir, way = Path(folder), DiscordDm(emulator)
            async with connect_store(url="", data_dir=data_dir) as store:
                async with bot(data_dir=data_dir, variables=variables) as first:
                    await asyncio.wait_for(emulator.connected.wait(), 60)
                    await way.ask("one")
                    await until(lambda: way.finals() == said("one"))
                    await until_heard(store, emulator.screen(way.channel)[0].id)
                    first.kill()
                    await first.process.wait()
                await way.ask("two")

                async with bot(data_dir=data_dir, variables=variables):
                    await until(lambda: way.finals() == said("one", "two"))

    assert (emulator.sessions, emulator.resumes) == (1, 1)


@pytest.mark.process
async def test_a_command_outlives_the_process_that_heard_it() -> None:
    text = "a b c d e f g h i j k l m n o p q r s t"
    async with DiscordEmulator() as emulator, ModelEmulator() as model:
        variables, model.delay = discord_variables(emulator, model), 0.2
        with tempfile.TemporaryDirectory(prefix="parley-") as folder:
            data_dir, way = Path(folder), DiscordSlash(emulator)
            async with bot(data_dir=data_dir, variables=variables) as first:
                await asyncio.wait_for(emulator.connected.wait(), 60)
                await way.ask(text)
                await until(lambda: way.answers() and len(way.answers()[0][1]) > 1)
                first.kill()
                await first.process.wait()
            model.delay = 0
            async with bot(data_dir=data_dir, variables=variables):
                await until(lambda: way.finals() == said(text))

    # In the same message, by the token that the first process was told.
    assert any(one.call.startswith("PATCH /webhooks/") for one in emulator.requests[-5:])


@pytest.mark.process
async def test_an_old_and_a_new_deployment_overlap_without_a_double_answer() -> None:
    async with DiscordEmulator(gateway=FAST) as emulator, ModelEmulator() as model:
        variables = discord_variables(emulator, model)
        with tempfile.TemporaryDirectory(prefix="parley-") as folder:
            data_dir, way, other = Path(folder), DiscordDm(emulator), DiscordMention(emulator)
            async with bot(data_dir=data_dir, variables=variables) as old:
                await asyncio.wait_for(emulator.connected.wait(), 60)
                await way.ask("one")
                await until(lambda: way.finals() == said("one"))
                async with bot(data_dir=data_dir, variables=variables):
                    await until(lambda: emulator.resumes and len(emulator.listeners) == 2)
                    await until(lambda: all(one.connected for one in emulator.listeners))
                    await way.ask("two")
                    await other.ask("three")
                    await until(lambda: way.finals()[1:] == said("two"))
                    await until(lambda: other.finals() == said("three"))
                    old.process.terminate()
                    await way.ask("four")
                    await old.process.wait()
                    await other.ask("five")
                    await until(lambda: other.finals() == said("three", "five"))
                    await until(lambda: way.finals() == said("one", "two", "four"))

    asked = [one.messages[-1]["content"] for one in model.requests]
    assert sorted(asked) == ["five", "four", "one", "three", "two"]
    assert old.process.returncode == 0


@pytest.mark.process
async def test_processes_with_ranges_of_shards_hear_everything_once() -> None:
    rules = GatewayRules(shards=4, max_concurrency=4, needs_sharding=True)
    async with DiscordEmulator(gateway=rules) as emulator, ModelEmulator() as model:
        with tempfile.TemporaryDirectory(prefix="parley-") as folder:
            data_dir, ways = Path(folder), [DiscordDm(emulator), DiscordMention(emulator)]
            variables = discord_variables(emulator, model)
            async with AsyncExitStack() as stack:
                for shards in ("0-1/4", "2-3/4"):
                    theirs = variables | {"DISCORD_SHARDS": shards}
                    running = bot("discord", data_dir=data_dir, variables=theirs)
                    await stack.enter_async_context(running)
                await stack.enter_async_context(
                    bot("worker", data_dir=data_dir, variables=variables)
                )
                await until(lambda: len(emulator.listeners) == 4)
                for way in ways:
                    await way.ask("one")
                await until(lambda: all(way.finals() == said("one") for way in ways))

        assert sorted(one.shard for one in emulator.listeners) == [(n, 4) for n in range(4)]
        assert len(model.requests) == 2


# The parts


def test_a_journal_waits_for_the_first_event_that_is_not_dealt_with() -> None:
    journal = Journal()
    releases = []
    for seq in (2, 3, 5):
        with journal.heard(seq, 10 * seq) as release:
            releases.append(held())
        release()

    releases[1]()
    between = journal.dealt_with(7), journal.newest
    releases[0]()

    assert between == (1, 0)
    assert (journal.dealt_with(7), journal.newest) == (4, 30)


def test_a_journal_hears_of_no_message_before_a_new_sessions_beginning_is_dealt_with() -> None:
    journal = Journal()
    with journal.heard(40, 400) as release:
        pending = held()
    release()

    journal.new_session()
    with journal.heard(1) as begun:
        pass
    with journal.heard(2, 500) as done:
        pass
    done()
    pending()
    between = journal.dealt_with(2), journal.newest
    begun()

    assert between == (0, 0)
    assert (journal.dealt_with(2), journal.newest) == (2, 500)


def test_a_journal_does_not_grow_while_one_event_waits() -> None:
    journal = Journal()
    with journal.heard(1, 10) as release:
        pending = held()
    release()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()

    for seq in range(2, 10_000):
        with journal.heard(seq, 10 * seq) as done:
            pass
        done()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    between = journal.dealt_with(9_999), journal.newest
    pending()

    assert grown < 100_000
    assert between == (0, 0)
    assert (journal.dealt_with(9_999), journal.newest) == (9_999, 99_990)


def test_an_event_is_released_once_however_often_it_is_told() -> None:
    journal = Journal()
    with journal.heard(2) as release:
        first, second = held(), held()

    release()
    first()
    first()

    assert journal.dealt_with(2) == 1
    second()
    assert journal.dealt_with(2) == 2


async def test_a_backlog_tells_of_each_errand_that_is_over_however_it_ended() -> None:
    backlog, over, run = Backlog(), list[str](), list[str]()

    def errand(name: str) -> Errand:
        async def go() -> None:
            run.append(name)
            if name == "refused":
                raise WriteRefused("no")

        return go

    for name in ("refused", "deleted", "second"):
        backlog.add_question(name, errand(name), place=1, done=partial(over.append, name))
    backlog.add_deletion(["deleted"], errand("deletion"), done=partial(over.append, "deletion"))
    backlog.put_first((one, errand(one), 1, partial(over.append, one)) for one in ("first", "next"))

    working = asyncio.create_task(backlog.work())
    await until(lambda: "deletion" in over)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)

    assert run == ["first", "next", "refused", "second", "deletion"]
    assert over == ["deleted", "first", "next", "refused", "second", "deletion"]


async def test_an_errand_that_is_cut_off_is_not_over() -> None:
    backlog, over = Backlog(), list[str]()
    began = asyncio.Event()

    async def hang() -> None:
        began.set()
        await asyncio.Event().wait()

    backlog.add_question("1", hang, place=1, done=partial(over.append, "1"))
    working = asyncio.create_task(backlog.work())
    await began.wait()

    working.cancel()
    await asyncio.gather(working, return_exceptions=True)

    assert not over


def test_the_library_is_as_its_internals_were_read() -> None:
    """`adapters/discord/connection.py` leans on these: after a change read the library anew.

    `Client.connect` is what ours stands in for.
    """
    opened = inspect.signature(DiscordWebSocket.from_client).parameters
    source = inspect.getsource(discord.Client.connect) + inspect.getsource(discord.Client.close)
    received = inspect.getsource(DiscordWebSocket.received_message)

    assert discord.__version__ == "2.7.1"
    assert {"initial", "gateway", "shard_id", "session", "sequence", "resume"} <= set(opened)
    assert "DiscordWebSocket.from_client(self, **ws_params)" in source
    assert "self.ws is not None and self.ws.open" in source
    assert received.index("self.sequence = seq") < received.index("self._discord_parsers[event]")
    assert "self.gateway = yarl.URL(data['resume_gateway_url'])" in received
    assert inspect.signature(DiscordWebSocket.close).parameters["code"].default == 4000
    assert ReconnectWebSocket(None, resume=False).resume is False
    assert isinstance(DiscordWebSocket.DEFAULT_GATEWAY, yarl.URL)


def test_the_librarys_connection_is_led_in_one_file() -> None:
    folder = Path(inspect.getfile(DiscordPlatform)).parent
    internals = re.compile(r"discord\.gateway\b|\._connection\.|DiscordWebSocket")

    found = [one.name for one in folder.glob("*.py") if internals.search(own(one.read_text()))]

    assert found == ["connection.py"]


def own(source: str) -> str:
    """Return a file's text without the names of our own modules."""
    return source.replace("adapters.discord", "")


async def test_a_client_has_a_parser_for_each_event_that_somebody_waits_for() -> None:
    client = discord.Client(intents=discord.Intents.none())

    assert {"READY", *OURS} <= set(client._connection.parsers)
