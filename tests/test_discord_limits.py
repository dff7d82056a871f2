"""Discord's rate limits, kept before they are reached and learnt from its answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from adapters.discord.errors import fail_at_once
from adapters.discord.limits import EVERYTHING, counted, edit_budget
from bot.budget import EditBudgets
from bot.errors import WriteDelayed
from bot.store import Store
from tests.emulators.discord import DiscordEmulator


@asynccontextmanager
async def calling(
    emulator: DiscordEmulator, budgets: EditBudgets
) -> AsyncIterator[aiohttp.ClientSession]:
    """Call the API as the platform does, without a library between."""
    async with aiohttp.ClientSession(
        headers={"Authorization": f"Bot {emulator.token}"},
        trace_configs=[counted(fail_at_once(), budgets)],
    ) as session:
        yield session


async def get(session: aiohttp.ClientSession, emulator: DiscordEmulator, path: str) -> int:
    async with session.get(emulator.api_url + path) as answer:
        return answer.status


async def test_all_processes_together_keep_to_the_global_limit(store: Store) -> None:
    async with (
        DiscordEmulator() as emulator,
        calling(emulator, EditBudgets(store=store)) as one,
        calling(emulator, EditBudgets(store=store)) as other,
    ):
        most, _ = emulator.limits.everything
        began = time.perf_counter()
        asked = [get(session, emulator, "/users/@me") for session in (one, other) * most]

        assert set(await asyncio.gather(*asked)) == {200}

        assert time.perf_counter() - began > 1
        assert not any(request.limited for request in emulator.requests)


async def test_requests_of_interactions_do_not_wait_for_the_others(store: Store) -> None:
    budgets = EditBudgets(store=store)
    await budgets.pause(EVERYTHING, 60)
    async with DiscordEmulator() as emulator, calling(emulator, budgets) as session:
        began = time.perf_counter()

        assert await get(session, emulator, "/webhooks/1/token/messages/@original") == 404

        assert time.perf_counter() - began < 1


async def test_a_global_refusal_holds_every_request(store: Store) -> None:
    budgets = EditBudgets(store=store)
    async with DiscordEmulator() as emulator, calling(emulator, budgets) as session:
        emulator.fail(
            "GET /users/@me",
            status=429,
            retry_after=1,
            headers={"X-RateLimit-Global": "true", "Retry-After": "1"},
        )
        with pytest.raises(WriteDelayed):
            await get(session, emulator, "/users/@me")
        began = time.perf_counter()

        assert await get(session, emulator, f"/channels/{emulator.channel_id}") == 200

        assert time.perf_counter() - began > 0.8


async def test_the_answer_that_opens_a_window_tells_how_large_it_is(store: Store) -> None:
    budgets = EditBudgets(store=store)
    async with DiscordEmulator() as emulator, calling(emulator, budgets) as session:
        emulator.limits.create = (1, 0.7)
        path = f"/channels/{emulator.channel_id}/messages"
        async with session.post(emulator.api_url + path, json={"content": "one"}) as answer:
            assert answer.status == 200
        budget = edit_budget("post", emulator.channel_id)
        deadline = asyncio.get_running_loop().time() + 5
        await budgets.final(budget, deadline=deadline)
        began = time.perf_counter()

        await budgets.final(budget, deadline=deadline)

        assert 0.5 < time.perf_counter() - began < 2
