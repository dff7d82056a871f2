"""What goes wrong on purpose goes wrong as often as it was asked to, and each call is told of."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from tests.emulators.discord import DiscordEmulator
from tests.emulators.faults import Faults
from tests.emulators.slack import SlackEmulator
from tests.support.outage import Wire


def struck(faults: Faults, *calls: str) -> list[int | None]:
    """Return the status with which each call goes wrong; None for those that go well."""
    found = [faults.strike(call) for call in calls]
    return [None if fault is None else fault.status for fault in found]


@pytest.mark.parametrize(
    ("asked", "calls", "found"),
    [
        ([], "/a /a", [None, None]),
        ([("/a", {"status": 503})], "/a /a", [503, None]),
        (
            [("/a", {"status": 503, "times": 2, "after": 2})],
            "/a /a /a /a /a",
            [None, None, 503, 503, None],
        ),
        # Calls of others do not count.
        ([("/a", {"status": 503, "after": 1})], "/b /b /a /b /a", [None, None, None, None, 503]),
        # In the order in which they were asked for.
        ([("/a", {"times": 2}), ("/a", {"status": 429})], "/a /a /a /a", [500, 500, 429, None]),
        # One that waits counts the calls that went well, together with others.
        ([("/a", {"after": 1}), ("/a", {"status": 429})], "/a /a /a /a", [429, None, 500, None]),
        (
            [("/a", {"after": 1}), ("/a", {"status": 429, "after": 2})],
            "/a /a /a /a",
            [None, 500, None, 429],
        ),
        # A regular expression, found anywhere in the call.
        ([("a$", {})], "/a/messages /a", [None, 500]),
        ([("^a", {})], "/a", [None]),
        ([("/[0-9]+/m", {})], "/a/m /12/m", [None, 500]),
    ],
)
def test_faults_strike_as_often_and_as_late_as_asked(
    asked: list[tuple[str, dict[str, Any]]], calls: str, found: list[int | None]
) -> None:
    faults = Faults()
    for call, terms in asked:
        faults.add(call, **terms)

    assert struck(faults, *calls.split()) == found


def test_a_fault_that_never_struck_was_asked_for_in_vain_until_it_is_healed() -> None:
    faults = Faults()
    often = faults.add("/a", times=9)
    faults.add("/b", after=1)
    faults.strike("/a")
    faults.strike("/b")
    assert (faults.in_vain(), often.times) == (["/b"], 8)

    faults.heal()

    assert (faults.in_vain(), struck(faults, "/a", "/b")) == ([], [None, None])


async def test_watchers_see_a_call_before_its_answer() -> None:
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
