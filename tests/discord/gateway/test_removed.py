"""A server that removes the bot is forgotten within a day, and no other one ever is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from bot.access.rules import AccessRules
from bot.concurrency import running
from bot.store import Store
from bot.turns.forgetting import named
from tests.emulators.discord import DiscordEmulator
from tests.support.at_work import make_queue
from tests.support.discord_platform import FAST, after_a_session, logged_in, running_process
from tests.support.fakes import NotedIntake, RefusingStore
from tests.support.stored import stored
from tests.support.waiting import until

DAY_MS = 24 * 3600 * 1000


async def due(store: Store, emulator: DiscordEmulator) -> float | None:
    """Return in how many ms the emulator's server begins to be forgotten; None if it is not."""
    seconds, microseconds = await store.command("TIME")
    job = named("server", "discord", emulator.guild_id)
    at = await store.command("ZSCORE", store.key("forgetting"), job)
    return None if at is None else float(at) - int(seconds) * 1000 - int(microseconds) / 1000


async def until_true(check: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(60):
        while not await check():
            await asyncio.sleep(0.01)


async def servers(store: Store) -> set[str]:
    names = await store.command("KEYS", store.key("servers", "discord", "*"))
    return {one for name in names for one in await store.command("SMEMBERS", name)}


async def until_due(store: Store, emulator: DiscordEmulator) -> None:
    await until_true(lambda: due(store, emulator))
    left = await due(store, emulator)
    # Within a day, with the time that it takes.
    assert left is not None
    assert DAY_MS / 2 < left <= DAY_MS - 3600 * 1000


async def until_known(store: Store, emulator: DiscordEmulator) -> None:
    async def is_known() -> bool:
        return emulator.guild_id in await servers(store)

    await until_true(is_known)


@asynccontextmanager
async def at_work(store: Store, emulator: DiscordEmulator) -> AsyncIterator[NotedIntake]:
    intake = NotedIntake(store)
    async with running_process(emulator, intake, store):
        yield intake


async def test_a_server_that_removes_the_bot_is_to_be_forgotten(store: Store) -> None:
    async with DiscordEmulator() as emulator, at_work(store, emulator):
        await until_known(store, emulator)
        assert await due(store, emulator) is None

        await emulator.remove_bot()

        await until_due(store, emulator)
        assert await servers(store) == set()


async def test_a_server_that_adds_the_bot_again_is_kept(store: Store) -> None:
    async with DiscordEmulator() as emulator, at_work(store, emulator):
        await emulator.remove_bot()
        await until_due(store, emulator)

        await emulator.add_bot()

        await until_known(store, emulator)
        assert await due(store, emulator) is None


async def test_an_outage_of_a_server_is_no_removal(store: Store) -> None:
    async with DiscordEmulator() as emulator, at_work(store, emulator) as intake:
        ada = emulator.user("Ada")
        await until_known(store, emulator)

        await emulator.tell("GUILD_DELETE", {"id": emulator.guild_id, "unavailable": True})
        await emulator.tell("GUILD_DELETE", {"id": emulator.guild_id, "unavailable": False})
        await emulator.say(emulator.dm(ada), ada, "why?")
        # What came before the question is handled.
        await until(lambda: intake.turns)

        assert await due(store, emulator) is None
        assert emulator.guild_id in await servers(store)


async def test_a_server_that_removed_the_bot_while_it_was_off_is_to_be_forgotten(
    store: Store,
) -> None:
    async with after_a_session(store) as (emulator, _):
        emulator.let_bot(leave=True)

        async with at_work(store, emulator):
            await until_due(store, emulator)

    assert await servers(store) == set()


async def test_a_session_without_a_store_leaves_what_is_gone_to_the_next(
    store: RefusingStore, caplog: pytest.LogCaptureFixture
) -> None:
    async with after_a_session(store) as (emulator, _):
        emulator.let_bot(leave=True)
        store.refused.add("SMEMBERS")
        async with at_work(store, emulator):
            await until(lambda: store.refusals)
        store.refused.clear()
        assert await due(store, emulator) is None
        emulator.clock.advance(3600)

        async with at_work(store, emulator):
            await until_due(store, emulator)

    assert "Traceback" not in caplog.text


async def test_a_server_that_was_added_again_while_the_bot_was_off_is_kept(store: Store) -> None:
    async with DiscordEmulator(gateway=FAST) as emulator:
        async with at_work(store, emulator):
            await emulator.remove_bot()
            await until_due(store, emulator)
        emulator.clock.advance(3600)
        emulator.let_bot(leave=False)

        async with at_work(store, emulator):
            await until_known(store, emulator)

        assert await due(store, emulator) is None


@pytest.mark.parametrize("status", [200, 403, 500])
async def test_a_list_without_a_server_forgets_none_that_discord_knows(
    store: Store, status: int
) -> None:
    async with after_a_session(store) as (emulator, ada):
        emulator.greet(guilds=[])
        asked = f"GET /guilds/{emulator.guild_id}"
        if status != 200:
            body = {"message": "no", "code": 40001}
            emulator.fail(asked, status=status, body=body, times=100)

        async with at_work(store, emulator) as intake:
            await until(lambda: asked in [f"{it.method} {it.path}" for it in emulator.requests])
            await emulator.say(emulator.dm(ada), ada, "why?")
            await until(lambda: intake.turns)

        assert await due(store, emulator) is None
        assert emulator.guild_id in await servers(store)


async def test_a_shard_asks_for_no_server_of_another(store: Store) -> None:
    async with after_a_session(store) as (emulator, _):
        emulator.let_bot(leave=True)
        own = (int(emulator.guild_id) >> 22) % 2

        async with running_process(emulator, NotedIntake(store), store, shards=((1 - own,), 2)):
            pass
        assert await due(store, emulator) is None
        async with running_process(emulator, NotedIntake(store), store, shards=((own,), 2)):
            await until_due(store, emulator)


async def test_a_server_that_is_left_by_itself_is_to_be_forgotten(store: Store) -> None:
    intake = NotedIntake(store, access=AccessRules(servers=frozenset({"123456789012345678"})))
    async with (
        DiscordEmulator() as emulator,
        logged_in(emulator, leaves_other_servers=True) as platform,
        running(platform.listener.listen(intake, store=store)),
    ):
        await until_due(store, emulator)


async def test_a_removal_is_kept_while_the_store_is_away(store: RefusingStore) -> None:
    async with DiscordEmulator() as emulator, at_work(store, emulator):
        await until_known(store, emulator)
        store.refused.add(store.key("forgetting"))

        await emulator.remove_bot()

        await until(lambda: store.refusals > 1)
        store.refused.clear()
        await until_due(store, emulator)


async def test_what_was_said_in_a_removed_server_is_gone_when_its_time_comes(store: Store) -> None:
    async with DiscordEmulator() as emulator, at_work(store, emulator) as intake:
        ada = emulator.user("Ada")
        await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} zebra?")
        await until(lambda: intake.turns)
        await make_queue(store).changes.forget(intake.turns[0].id)
        await emulator.remove_bot()
        await until_due(store, emulator)
    queue = make_queue(store)
    # Nobody takes it before.
    assert await queue.forgetting.claim() is None

    job = named("server", "discord", emulator.guild_id)
    await store.command("ZADD", store.key("forgetting"), "XX", 0, job)
    assert await queue.forgetting.claim() == job
    # What has begun is not cancelled.
    await queue.forgetting.cancel(job)
    await queue.forgetting.carry_out(job)

    assert [one for one in await stored(store) if emulator.guild_id in one] == []
