"""An emulator tells of each call whose work is done, before its answer, and who has made it."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp

from tests.emulators.discord import DiscordEmulator
from tests.emulators.slack import SlackEmulator
from tests.support.outage import Wire


async def test_a_call_is_told_of_before_its_answer() -> None:
    async with (
        DiscordEmulator(latency=0.2) as discord,
        SlackEmulator(latency=0.2) as slack,
        aiohttp.ClientSession() as session,
    ):
        path = f"/channels/{discord.channel_id}/messages"
        asked: list[tuple[DiscordEmulator | SlackEmulator, str, str, str]] = [
            (discord, discord.api_url + path, "Bot " + discord.token, f"POST {path}"),
            (slack, f"{slack.api_url}auth.test", "Bearer " + slack.bot_token, "auth.test"),
        ]
        for emulator, url, token, name in asked:
            seen: list[Any] = []
            emulator.watch(seen.append)
            headers = {"Authorization": token}
            asking = asyncio.create_task(session.post(url, json={"content": "x"}, headers=headers))
            while not seen:
                await asyncio.sleep(0.005)

            assert not asking.done()
            assert [(call.call, call.status) for call in seen] == [(name, 200)]
            (await asking).close()
        slack.violations.clear()  # auth.test has no content
    assert [one.text for one in discord.screen(discord.channel_id)] == ["x"]


async def test_the_wire_by_which_a_call_came_is_known() -> None:
    async with (
        SlackEmulator() as slack,
        Wire(slack.api_url) as one,
        Wire(slack.api_url) as other,
        aiohttp.ClientSession() as session,
    ):
        headers = {"Authorization": f"Bearer {slack.bot_token}"}
        async with session.post(f"{one.url}auth.test", headers=headers):
            port = slack.requests[-1].port

            came_by = [one.carries(port), other.carries(port)]

        cut = [await one.cut(), await other.cut()]

    assert came_by == [True, False]
    assert cut == [1, 0]
