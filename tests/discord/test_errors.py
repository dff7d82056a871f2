"""Discord's refusals are told in the words of the core."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from adapters.discord.rest import translated
from bot.errors import MessageGone, PlaceGone, SurfaceError, WriteDelayed, WriteFailed, WriteRefused
from tests.emulators.discord import DiscordEmulator
from tests.emulators.faults import How
from tests.support.discord_platform import dm_turn, logged_in, page


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, 50035, WriteRefused),
        (401, 0, WriteFailed),
        (403, 0, WriteFailed),
        (403, 40333, WriteFailed),
        (403, 50001, PlaceGone),
        (403, 50007, PlaceGone),
        (403, 50013, PlaceGone),
        (403, 160005, PlaceGone),
        (404, 10003, PlaceGone),
        (404, 10008, MessageGone),
        (500, 0, WriteFailed),
        (503, 0, WriteFailed),
        (None, 0, WriteFailed),
    ],
)
async def test_a_refusal_is_told_in_the_words_of_the_core(
    status: int | None, code: int, expected: type[SurfaceError]
) -> None:
    async with (
        DiscordEmulator() as emulator,
        logged_in(emulator) as platform,
        platform.surface(dm_turn(emulator)) as surface,
    ):
        shown = await surface.post(page("one"))
        body = {"code": code, "message": "no"}
        how: How = "status" if status else "drop"
        emulator.fail("PATCH .*/messages", how, status=status or 500, body=body)

        with pytest.raises(expected):
            await surface.edit(shown, page("one two"))


async def test_a_page_of_a_proxy_is_a_passing_failure() -> None:
    async with (
        DiscordEmulator() as emulator,
        logged_in(emulator) as platform,
        platform.surface(dm_turn(emulator)) as surface,
    ):
        emulator.fail("POST .*/messages", status=403, body="<html>Access denied</html>")

        with pytest.raises(WriteFailed):
            await surface.post(page("one"))


async def test_a_person_who_takes_no_messages_is_named_to_the_operator() -> None:
    async with (
        DiscordEmulator() as emulator,
        logged_in(emulator) as platform,
        platform.surface(dm_turn(emulator)) as surface,
    ):
        body = {"code": 50007, "message": "no"}
        emulator.fail("POST .*/messages", status=403, body=body)

        with pytest.raises(PlaceGone, match="takes no direct messages"):
            await surface.post(page("one"))


async def test_the_address_of_a_failed_call_is_not_told() -> None:
    with pytest.raises(WriteFailed) as told:
        async with translated():
            raise aiohttp.InvalidURL("https://discord.com/api/webhooks/1/token-of-a-command")

    assert "token-of-a-command" not in str(told.value)


async def test_a_call_that_hangs_ends() -> None:
    with pytest.raises(WriteFailed):
        async with translated(0.01):
            await asyncio.Event().wait()


async def test_a_full_bucket_is_told_at_once_with_the_time_to_wait() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        async with platform.surface(dm_turn(emulator)) as surface:
            shown = await surface.post(page("one"))
            emulator.fail("PATCH .*/messages", status=429, retry_after=7)

            with pytest.raises(WriteDelayed) as delayed:
                await surface.edit(shown, page("one two"))

        assert delayed.value.retry_after == 7
