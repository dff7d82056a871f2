"""Several processes, and several shards, listen at once, through discord.py."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import time
from dataclasses import replace
from functools import partial
from typing import ClassVar

import aiohttp
import pytest
from prometheus_client import REGISTRY

from adapters.discord.gateway.session_store import SavedSession, Session
from adapters.discord.gateway.shard import start_pause
from adapters.discord.tuning import Tuning
from bot.concurrency import Backoff
from bot.domain import Turn
from bot.errors import CannotStart
from bot.intake.intake import Intake
from bot.store import Store
from bot.turns.queue import TurnQueue
from bot.turns.records import History
from bot.turns.script import Limits
from tests.emulators.clock import Clock
from tests.emulators.discord import DiscordEmulator, GatewayRules
from tests.emulators.model import ModelEmulator
from tests.support.discord_platform import (
    FAST,
    QUICK,
    SLOW_STARTS,
    Hidden,
    Shards,
    listening,
    logged_in,
    running_process,
    said,
    saved,
    snowflake_of,
    until_heard,
    until_saved,
)
from tests.support.fakes import FakeQueue
from tests.support.outage import Wire
from tests.support.process import DiscordDm, DiscordMention, discord_variables
from tests.support.service import serving
from tests.support.waiting import until


def make_queue(store: Store, worker: str) -> TurnQueue:
    limits = Limits(waiting_per_thread=9, waiting_per_person=9, waiting=9, running_per_person=9)
    return TurnQueue(
        store=store, worker=worker, limits=limits, lease_seconds=3.0, keep_seconds=60.0
    )


def make_intake(store: Store, worker: str) -> Intake:
    history = History(store=store, keep_seconds=60.0)
    return Intake(queue=make_queue(store, worker), history=history)


async def test_two_gateways_at_once_admit_each_turn_once(store: Store) -> None:
    queue = make_queue(store, "w")
    async with DiscordEmulator(gateway=FAST) as emulator:
        ada = emulator.user("Ada")
        dm = emulator.dm(ada)
        async with running_process(emulator, make_intake(store, "a"), store):
            await until_saved(store, 1)
            async with running_process(emulator, make_intake(store, "b"), store):
                await until(lambda: [one.connected for one in emulator.listeners] == [True, True])

                for text in ("one", "two", "three"):
                    await emulator.say(dm, ada, text)
                async with asyncio.timeout(60):
                    while (await queue.load([])).open < 3:
                        await asyncio.sleep(0.01)

            await emulator.say(dm, ada, "four")
            async with asyncio.timeout(60):
                while (await queue.load([])).open < 4:
                    await asyncio.sleep(0.01)

        assert (await queue.load([])).open == 4
        assert len(emulator.screen(dm)) == 4


async def test_two_processes_do_not_take_a_session_from_each_other_for_ever(store: Store) -> None:
    old, new = FakeQueue(), FakeQueue()
    async with DiscordEmulator(gateway=FAST) as emulator, running_process(emulator, old, store):
        ada = emulator.user("Ada")
        await until_saved(store, 1)
        async with running_process(emulator, new, store):
            await until(lambda: [one.connected for one in emulator.listeners] == [True, True])
            await emulator.disconnect()
            await until(lambda: [one.resumes for one in emulator.listeners] == [2, 1])

            said = await emulator.say(emulator.dm(ada), ada, "one")
            await until(lambda: old.turns and new.turns)

            # The one that took the session is the one that saves it.
            await until_heard(store, said)
            assert (await saved(store))["id"] == emulator.listeners[0].session_id
        assert emulator.sessions == 2


async def test_two_processes_to_which_redis_tells_late_of_a_session_come_to_rest(
    store: Store,
) -> None:
    intakes = [FakeQueue(), FakeQueue()]
    async with DiscordEmulator(gateway=FAST) as emulator:
        ada, hidden = emulator.user("Ada"), Hidden(store, emulator)
        async with running_process(emulator, FakeQueue(), store):
            await until_saved(store, 1)
        await hidden.hide()
        async with (
            running_process(emulator, intakes[0], store),
            running_process(emulator, intakes[1], store),
        ):
            await emulator.say(emulator.dm(ada), ada, "one")
            await hidden.back()
            await until(lambda: emulator.resumes > 1)
            await until(lambda: [one.connected for one in emulator.listeners].count(True) == 2)
            resumes = emulator.resumes
            await emulator.say(emulator.dm(ada), ada, "two")
            await until(lambda: all("two" in one.texts for one in intakes))

            assert (await saved(store))["id"] == emulator.listeners[0].session_id
            assert emulator.resumes == resumes < 5
        assert all("one" in one.texts for one in intakes)


class Lingering(FakeQueue):
    """Takes its time to let go of an admission."""

    async def admit(self, turn: Turn, **_: object) -> bool:
        try:
            return await super().admit(turn)
        finally:
            await asyncio.sleep(0.2)


async def test_a_shard_that_ends_first_cuts_no_other_off(store: Store) -> None:
    before = open_connectors()  # of whole sessions of tests
    intake = Lingering()
    intake.open.clear()
    rules = GatewayRules(shards=2, max_concurrency=2)
    async with DiscordEmulator(gateway=rules) as emulator:
        ada = emulator.user("Ada")
        async with running_process(emulator, intake, store, shards=((0, 1), 2)):
            await until(lambda: len(emulator.listeners) == 2)
            await emulator.slash(emulator.channel_id, ada, "ask", question="why?")
            await until(lambda: intake.turns)

        still_open = [one for one in open_connectors() if one not in before]
        assert not still_open, [gc.get_referrers(one) for one in still_open]


def open_connectors() -> list[aiohttp.TCPConnector]:
    everything = gc.get_objects()
    return [one for one in everything if isinstance(one, aiohttp.TCPConnector) and not one.closed]


def make_saved_session(store: Store, name: str) -> SavedSession:
    return SavedSession(store=store, application="1", shard="all", holder=name)


async def test_an_old_process_does_not_write_over_the_session_of_the_new_one(store: Store) -> None:
    old, new = make_saved_session(store, "old"), make_saved_session(store, "new")
    session = Session("secret", 7, "ws://here")
    await old.save(session, intents=1, newest=100)
    await new.take(1)
    await new.save(replace(session, seq=9), intents=1, newest=300)

    written = await old.save(replace(session, seq=8), intents=1, newest=200)

    assert not written
    assert await old.is_taken(session)
    assert (await saved(store))["holder"] == "new"
    assert await new.take(1) == replace(session, seq=9)
    assert await new.last_handled(or_else=1) == 300


async def test_a_process_that_has_heard_nothing_yet_forgets_not_how_far_the_bot_was_heard(
    store: Store,
) -> None:
    one = make_saved_session(store, "one")
    await one.save(Session("secret", 7, "ws://here"), intents=1, newest=100)

    await one.save(Session("secret", 8, "ws://here"), intents=1, newest=0)

    assert await one.last_handled(or_else=200) == 100


async def test_how_far_the_bot_was_heard_and_its_dms_expire_a_week_after_their_last_use(
    store: Store,
) -> None:
    one, week = make_saved_session(store, "one"), 7 * 24 * 3600
    heard, dms = store.key("gateway", "1", "heard"), store.key("gateway", "1", "dms")

    await one.last_handled(or_else=100)
    one.note_dm(1, 2)
    await one.save_dms()
    first = [await store.command("TTL", name) for name in (heard, dms)]
    await store.command("EXPIRE", heard, 60)
    await one.save(Session("secret", 7, "ws://here"), intents=1, newest=100)

    assert all(0 < seconds <= week for seconds in first)
    assert 60 < await store.command("TTL", heard) <= week


async def test_the_dms_that_were_used_last_are_kept(store: Store) -> None:
    one = make_saved_session(store, "one")

    for number in range(30):
        one.note_dm(number, 1000 - number)
        await one.save_dms()

    assert await one.dms() == list(range(20))


async def test_the_shards_of_two_processes_hear_everything_once(store: Store) -> None:
    intakes = [FakeQueue(), FakeQueue()]
    rules = GatewayRules(shards=4, max_concurrency=4, needs_sharding=True)
    async with DiscordEmulator(gateway=rules) as emulator:
        ada = emulator.user("Ada")
        async with (
            running_process(emulator, intakes[0], store, shards=((0, 1), 4)),
            running_process(emulator, intakes[1], store, shards=((2, 3), 4)),
        ):
            await until(lambda: len(emulator.listeners) == 4)
            await emulator.say(emulator.dm(ada), ada, "one")
            await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} two")
            await until(lambda: len(intakes[0].turns + intakes[1].turns) > 1)

        heard = sorted(one.text for one in intakes[0].turns + intakes[1].turns)
        assert heard == ["one", "two"]
        # A process registers the commands, not each of its shards, unless another one has.
        assert len([one for one in emulator.requests if one.path.endswith("/commands")]) in (1, 2)
        assert sorted(one.shard for one in emulator.listeners) == [(n, 4) for n in range(4)]


async def test_each_shard_resumes_its_own_session(store: Store) -> None:
    new = FakeQueue()
    rules = GatewayRules(shards=2, max_concurrency=2)
    async with DiscordEmulator(gateway=rules) as emulator:
        ada = emulator.user("Ada")
        async with running_process(emulator, FakeQueue(), store, shards=((0, 1), 2)):
            await until(lambda: len(emulator.listeners) == 2)
            async with asyncio.timeout(60):
                while len(await store.command("KEYS", store.key("gateway", "*", "session"))) < 2:
                    await asyncio.sleep(0.01)
        await emulator.say(emulator.dm(ada), ada, "one")
        await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} two")

        async with running_process(emulator, new, store, shards=((0, 1), 2)):
            await until(lambda: len(new.turns) > 1)

        assert sorted(new.texts) == ["one", "two"]
        assert (emulator.sessions, emulator.resumes) == (2, 2)


@pytest.mark.parametrize(
    ("before", "after"), [(None, ((0, 1), 2)), (((0, 1), 2), ((0, 1, 2), 3)), (((0, 1), 2), None)]
)
async def test_another_number_of_shards_catches_up(
    store: Store, before: Shards | None, after: Shards | None
) -> None:
    old, new, clock = FakeQueue(), FakeQueue(), Clock()
    rules = GatewayRules(shards=2, max_concurrency=3, identify_seconds=0.0)
    async with DiscordEmulator(clock=clock, gateway=rules) as emulator:
        ada = emulator.user("Ada")
        dm = emulator.dm(ada)
        async with running_process(emulator, old, store, shards=before):
            await emulator.say(dm, ada, "zero")
            await until(lambda: old.turns)
            async with asyncio.timeout(60):
                while len(await heard_by(store)) < len(before[0] if before else (0,)):
                    await asyncio.sleep(0.01)
        earlier = len(emulator.requests)
        await emulator.say(dm, ada, "one")
        await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} two")
        clock.advance(3600)

        async with running_process(emulator, new, store, shards=after):
            await until(lambda: {"one", "two"} <= {*new.texts})
            shards = after[1] if after else 1
            await until(lambda: len([one for one in emulator.listeners if one.connected]) == shards)
            async with asyncio.timeout(60):
                while len(await heard_by(store)) < shards:
                    await asyncio.sleep(0.01)

        assert emulator.resumes == 0
        # By the shard to which DMs come.
        calls = [one.call for one in emulator.requests[earlier:]]
        assert calls.count(f"GET /channels/{dm}") == 1


async def test_what_is_said_while_only_another_shard_listens_is_caught_up(store: Store) -> None:
    old, new, both = FakeQueue(), FakeQueue(), ((0, 1), 2)
    rules = GatewayRules(shards=2, max_concurrency=2, identify_seconds=0.0)
    async with DiscordEmulator(gateway=rules) as emulator:
        ada = emulator.user("Ada")
        dm = emulator.dm(ada)
        async with running_process(emulator, old, store, shards=both):
            await emulator.say(dm, ada, "zero")
            await until(lambda: old.turns)
            async with asyncio.timeout(60):
                while len(await heard_by(store)) < 2:
                    await asyncio.sleep(0.01)
        emulator.clock.advance(3600)
        # Shard 0, to which DMs come, has to wait for its start; shard 1 has not.
        waits = store.key("gateway", emulator.application_id, "start", "0")
        await store.command("SET", waits, "1")

        async with running_process(emulator, new, store, shards=both, hearing=1):
            await until(lambda: [one.shard for one in emulator.listeners if one.connected])
            listening = [one.shard for one in emulator.listeners if one.connected]
            await emulator.say(dm, ada, "one")
            await store.command("DEL", waits)
            # What was handled just before is found once more, and the queue knows it.
            await until(lambda: new.texts[-1:] == ["one"])

        assert listening == [(1, 2)]
        assert emulator.resumes == 0


async def heard_by(store: Store) -> list[str]:
    """Return the shards of which it is saved how far they were heard."""
    for name in await store.command("KEYS", store.key("gateway", "*", "heard")):
        return list(await store.command("HKEYS", name))
    return []


async def test_a_shard_that_is_new_goes_on_where_the_slowest_other_was(store: Store) -> None:
    def shard(name: str) -> SavedSession:
        return SavedSession(store=store, application="1", shard=name, holder="it")

    first = await shard("0/2").last_handled(or_else=300)
    await shard("0/2").save(Session("a", 1, ""), intents=1, newest=500)
    await shard("1/2").save(Session("b", 1, ""), intents=1, newest=400)
    inherited = await shard("0/3").last_handled(or_else=900)
    # It is kept: the first one's process may end before it has caught up.
    await shard("0/2").save(Session("a", 2, ""), intents=1, newest=700)
    await shard("1/2").save(Session("b", 2, ""), intents=1, newest=600)

    assert (first, inherited) == (0, 400)
    assert await shard("0/3").last_handled(or_else=900) == 400
    assert await shard("1/2").last_handled(or_else=900) == 600


async def test_shards_that_may_not_begin_at_once_begin_one_after_the_other(store: Store) -> None:
    rules = GatewayRules(shards=2, max_concurrency=1, identify_seconds=0.5)
    tuning = replace(QUICK, start_spacing=0.6)
    async with (
        DiscordEmulator(gateway=rules) as emulator,
        running_process(emulator, FakeQueue(), store, shards=((0, 1), 2), tuning=tuning),
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
        logged_in(emulator, shards=shards) as platform,
    ):
        with pytest.raises(CannotStart, match=sentence):
            await platform.listener.listen(FakeQueue().intake, store=store)


class NotedBackoff(Backoff):
    """Makes no pause, and notes after how many losses one was asked for."""

    noted: ClassVar[list[int]] = []

    def delay(self, failures: int) -> float:
        self.noted.append(failures)
        return 0.0


async def test_a_gateway_that_cannot_be_reached_is_tried_after_longer_and_longer_pauses(
    store: Store,
) -> None:
    NotedBackoff.noted.clear()
    tuning = replace(QUICK, reconnect=NotedBackoff(1.0, 1.0))
    async with DiscordEmulator() as emulator:
        emulator.refuse_connections()

        async def let_in() -> None:
            await until(lambda: len(NotedBackoff.noted) > 2)
            emulator.accept_connections()

        opening = asyncio.create_task(let_in())
        async with running_process(emulator, FakeQueue(), store, tuning=tuning):
            await opening

    # The first that is lost is opened again at once.
    assert NotedBackoff.noted[:3] == [1, 2, 3]


async def test_a_gateway_that_takes_a_connection_and_says_nothing_is_given_up_in_time(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    tuning = replace(QUICK, open_within=0.5, reconnect=Backoff(0.01, 0.01))
    async with DiscordEmulator() as emulator, Wire(emulator.gateway_url) as wire:
        wire.hold()

        async def mend() -> None:
            await until(lambda: caplog.records)
            await wire.mend()

        mending = asyncio.create_task(mend())
        async with running_process(
            emulator, FakeQueue(), store, gateway_url=wire.url, tuning=tuning
        ):
            await mending

        assert emulator.sessions == 1


async def test_no_pause_before_another_session_is_without_end(store: Store) -> None:
    tuning = replace(QUICK, start_pause=(3600.0, 3600.0), longest_start_pause=0.01)
    async with (
        DiscordEmulator(gateway=FAST) as emulator,
        running_process(emulator, FakeQueue(), store, tuning=tuning),
    ):
        await emulator.invalidate()

        await until(lambda: len(emulator.listeners) == 2)


def test_sessions_that_discord_ends_begin_anew_after_longer_and_longer_pauses() -> None:
    tuning = Tuning(start_pause=(1.0, 1.0))

    pauses = [start_pause(starts, tuning) for starts in range(9)]

    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 90.0, 90.0]
    assert all(1 <= start_pause(0, Tuning()) <= 5 for _ in range(100))


def has_begun(emulator: DiscordEmulator, sessions: int) -> bool:
    return len(emulator.listeners) == sessions


async def test_sessions_that_began_long_ago_lengthen_no_pause(store: Store) -> None:
    # With all of them counted, the last pause would take days.
    tuning = replace(
        QUICK,
        start_pause=(0.01, 0.01),
        longest_start_pause=math.inf,
        calm_after=0.0,
        reconnect=Backoff(0.0, 0.0),
    )
    async with (
        DiscordEmulator(gateway=FAST) as emulator,
        running_process(emulator, FakeQueue(), store, tuning=tuning),
    ):
        for number in range(2, 26):
            await emulator.invalidate()
            await until(partial(has_begun, emulator, number))


async def test_a_session_that_could_not_begin_lets_the_next_one_wait_no_longer(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    async with DiscordEmulator() as emulator:
        emulator.refuse_connections()

        async def let_in() -> None:
            await until(lambda: caplog.records)
            emulator.accept_connections()

        opening = asyncio.create_task(let_in())
        async with running_process(emulator, FakeQueue(), store, tuning=SLOW_STARTS):
            await opening

        assert emulator.sessions == 1


async def test_a_bot_that_may_begin_no_more_sessions_waits_and_keeps_its_token(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    rules = GatewayRules(session_starts=1, identify_seconds=0.0)
    async with DiscordEmulator(clock=clock, gateway=rules) as emulator:
        token = emulator.token
        async with running_process(emulator, FakeQueue(), store):
            await emulator.invalidate()
            await until(lambda: any(one.levelno == logging.ERROR for one in caplog.records))

        assert (emulator.token, emulator.sessions) == (token, 1)


async def test_operators_see_which_shard_is_gone_and_how_many_sessions_may_begin(
    store: Store,
) -> None:
    def shown(name: str, shard: int) -> float | None:
        return REGISTRY.get_sample_value(f"parley_discord_{name}", {"shard": str(shard)})

    rules = replace(FAST, session_starts=500, max_concurrency=2)
    async with (
        DiscordEmulator(clock=Clock(), gateway=rules) as emulator,
        running_process(emulator, FakeQueue(), store, shards=((0, 1), 2)),
    ):
        await until(lambda: [shown("shard_connected", it) for it in (0, 1)] == [1, 1])
        assert {shown("session_starts_remaining", shard) for shard in (0, 1)} <= {500, 499}

        emulator.refuse_connections()
        await emulator.cut()

        await until(lambda: [shown("shard_connected", it) for it in (0, 1)] == [0, 0])


async def test_an_old_and_a_new_deployment_overlap_without_a_double_answer(
    own_store: Store,
) -> None:
    async with DiscordEmulator(gateway=FAST) as emulator, ModelEmulator() as model:
        # No lease ends on a slow machine: then the model would be asked again.
        variables = discord_variables(emulator, model) | {"LEASE_SECONDS": "10"}
        way, other = DiscordDm(emulator), DiscordMention(emulator)
        async with serving(own_store, variables=variables) as old:
            await until(emulator.connected.is_set)
            await way.ask("one")
            await until(lambda: way.finals() == said("one"))
            await until_saved(own_store, 1)
            async with serving(own_store, variables=variables):
                await until(lambda: emulator.resumes and len(emulator.listeners) == 2)
                await until(lambda: all(one.connected for one in emulator.listeners))
                await way.ask("two")
                await other.ask("three")
                await until(lambda: way.finals()[1:] == said("two"))
                await until(lambda: other.finals() == said("three"))
                old.stop.set()
                await way.ask("four")
                await old.task
                await other.ask("five")
                await until(lambda: other.finals() == said("three", "five"))
                await until(lambda: way.finals() == said("one", "two", "four"))

    asked = [one.messages[-1]["content"] for one in model.requests]
    assert sorted(asked) == ["five", "four", "one", "three", "two"]


async def test_processes_with_ranges_of_shards_hear_everything_once(own_store: Store) -> None:
    rules = GatewayRules(shards=4, max_concurrency=4, needs_sharding=True)
    async with DiscordEmulator(gateway=rules) as emulator, ModelEmulator() as model:
        ways = [DiscordDm(emulator), DiscordMention(emulator)]
        variables = discord_variables(emulator, model)
        async with (
            serving(own_store, "discord", variables=variables | {"DISCORD_SHARDS": "0-1/4"}),
            serving(own_store, "discord", variables=variables | {"DISCORD_SHARDS": "2-3/4"}),
            serving(own_store, "worker", variables=variables),
        ):
            await until(lambda: len(emulator.listeners) == 4)
            for way in ways:
                await way.ask("one")
            await until(lambda: all(way.finals() == said("one") for way in ways))

        assert sorted(one.shard for one in emulator.listeners) == [(n, 4) for n in range(4)]
        assert len(model.requests) == 2


@pytest.mark.parametrize("wrong", ["garbage", "", "-1", "9" * 400])
async def test_a_record_of_the_gateway_that_cannot_be_read_counts_as_none(
    store: Store, wrong: str
) -> None:
    holder = make_saved_session(store, "new")
    await holder.save(Session("secret", 7, "ws://here"), intents=1, newest=300)
    holder.note_dm(5, 6)
    await holder.save_dms()
    (session,) = await store.command("KEYS", store.key("gateway", "*", "session"))
    await store.command("HSET", session, "seq", wrong)
    await store.command("HSET", session.replace("all:session", "heard"), "all", wrong)
    await store.command("ZADD", session.replace("all:session", "dms"), 9, wrong)

    assert await holder.take(1) is None
    assert await holder.last_handled(or_else=1) == 0
    assert await holder.last_handled(or_else=2) == 1
    assert await holder.dms() == [5]


@pytest.mark.parametrize("days_ahead", [2, 50_000])
async def test_a_message_of_the_future_was_not_heard(store: Store, days_ahead: int) -> None:
    holder, now = make_saved_session(store, "new"), snowflake_of(time.time())
    ahead = snowflake_of(time.time() + days_ahead * 86400)
    await holder.save(Session("secret", 7, "ws://here"), intents=1, newest=ahead)

    assert await holder.last_handled(or_else=now) == 0
    assert await holder.last_handled(or_else=now + 1) == now


async def test_the_library_does_not_wait_for_servers_in_a_task_of_its_own() -> None:
    intake = FakeQueue()
    async with DiscordEmulator() as emulator, listening(emulator, intake):
        ada = emulator.user("Ada")
        await emulator.say(emulator.dm(ada), ada, "hello?")
        await until(lambda: intake.turns)
        tasks = [repr(one.get_coro()) for one in asyncio.all_tasks()]

    assert not [one for one in tasks if "_delay_ready" in one]


def test_the_id_of_a_session_is_not_shown() -> None:
    assert "own" not in repr(Session("own", 3, ""))
