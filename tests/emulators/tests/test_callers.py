"""An emulator tells of each call whose work is done, before its answer, and who has made it."""

from __future__ import annotations

import asyncio

import aiohttp

from tests.emulators.discord import DiscordEmulator
from tests.emulators.faults import Faults
from tests.emulators.slack import SlackEmulator
from tests.support.outage import Wire


async def test_discord_tells_of_a_call_before_its_answer() -> None:
    async with DiscordEmulator() as discord, aiohttp.ClientSession() as session:
        where = f"{discord.api_url}/channels/{discord.channel_id}/messages"
        headers = {"Authorization": f"Bot {discord.token}"}
        seen: list[tuple[str, int | None, list[str]]] = []
        discord.watch(lambda call: seen.append((call.call, call.status, texts(discord))))
        discord.latency = 0.2

        asking = asyncio.create_task(session.post(where, json={"content": "one"}, headers=headers))
        while not seen:
            await asyncio.sleep(0.005)
        was_answered = asking.done()
        (await asking).close()

    call = f"POST /channels/{discord.channel_id}/messages"
    assert seen == [(call, 200, ["one"])]
    assert not was_answered


async def test_slack_tells_of_a_call_before_its_answer() -> None:
    async with SlackEmulator() as slack, aiohttp.ClientSession() as session:
        headers = {"Authorization": f"Bearer {slack.bot_token}"}
        seen: list[tuple[str, int | None]] = []
        slack.watch(lambda call: seen.append((call.call, call.status)))
        slack.latency = 0.2

        asking = asyncio.create_task(session.post(f"{slack.api_url}auth.test", headers=headers))
        while not seen:
            await asyncio.sleep(0.005)
        was_answered = asking.done()
        (await asking).close()

    assert seen == [("auth.test", 200)]
    assert not was_answered


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


def test_a_fault_tells_how_many_calls_are_still_to_go_wrong() -> None:
    faults = Faults()
    fault = faults.add("POST /a", times=3)

    faults.strike("POST /a")

    assert fault.times == 2


def texts(discord: DiscordEmulator) -> list[str]:
    return [one.text for one in discord.screen(discord.channel_id)]
