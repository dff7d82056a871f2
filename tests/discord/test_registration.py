"""The commands are registered at each start."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import pytest

from adapters.discord.registration import register
from adapters.discord.rest import RestClient, fail_at_once, logged_in
from adapters.discord.settings import DiscordSettings
from bot.concurrency import Backoff
from bot.errors import StoreUnavailable
from bot.store import Store
from tests.emulators.discord import DiscordEmulator
from tests.support.discord_platform import QUICK, running_process
from tests.support.fakes import FakeQueue, RefusingStore
from tests.support.waiting import until


def a_client(emulator: DiscordEmulator) -> AbstractAsyncContextManager[RestClient]:
    own = DiscordSettings(token=emulator.token, api_url=emulator.api_url)
    return logged_in(own, trace=fail_at_once())


def puts(emulator: DiscordEmulator) -> list[str]:
    return [one.path for one in emulator.requests if one.method == "PUT"]


async def test_the_commands_are_registered_everywhere(store: Store) -> None:
    async with DiscordEmulator() as emulator, a_client(emulator) as client:
        await register(client, store, server="")

        assert puts(emulator) == [f"/applications/{emulator.application_id}/commands"]
        assert [one["name"] for one in emulator.commands] == [
            *("ask", "parley", "Ask about this", "Summarise from here")
        ]


async def test_the_commands_of_a_server_are_removed_when_they_are_registered_everywhere(
    store: Store,
) -> None:
    async with DiscordEmulator() as emulator, a_client(emulator) as client:
        await register(client, store, server=emulator.guild_id)
        there = [one["name"] for one in emulator.server_commands[emulator.guild_id]]
        contexts = [one["contexts"] for one in emulator.server_commands[emulator.guild_id]]
        everywhere = list(emulator.commands)

        await register(client, store, server="")

        assert there == ["ask", "parley", "Ask about this", "Summarise from here"]
        assert contexts == [None] * 4  # those are for what is registered everywhere
        assert everywhere == []
        assert emulator.server_commands[emulator.guild_id] == []
        assert len(emulator.commands) == 4


async def test_what_is_noted_beside_servers_is_no_server(store: Store) -> None:
    async with DiscordEmulator() as emulator, a_client(emulator) as client:
        noted = store.key("commands", emulator.application_id)
        await store.command("HSET", noted, "everywhere", "1")

        await register(client, store, server="")

        assert puts(emulator) == [f"/applications/{emulator.application_id}/commands"]


async def test_the_commands_are_registered_as_soon_as_redis_is_back(store: Store) -> None:
    tuning = replace(QUICK, register_retry=Backoff(0.01, 0.01))
    assert isinstance(store, RefusingStore)
    async with DiscordEmulator() as emulator:
        name = store.key("commands", emulator.application_id)
        store.refused.add(name)
        async with running_process(emulator, FakeQueue(), store, tuning=tuning):
            with pytest.raises(StoreUnavailable):
                await store.command("HKEYS", name)
            early = list(emulator.commands)
            store.refused.remove(name)
            await until(lambda: emulator.commands)

        assert early == []
