"""discord.py 2.7.1 as the platform uses it: its own rate limits hold nothing back."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

import pytest

from adapters.discord import DiscordPlatform
from bot.domain import Turn
from tests.emulators.discord import DiscordEmulator
from tests.support.discord_platform import channel_turn, dm_turn, logged_in, page
from tests.support.waiting import until


async def post_one(platform: DiscordPlatform, turn: Turn) -> float:
    """Return the seconds that the call took."""
    async with platform.surface(turn) as surface:
        began = time.perf_counter()
        await surface.post(page("because"))
        return time.perf_counter() - began


async def test_calls_go_out_together_and_end_with_their_answers() -> None:
    async with DiscordEmulator(latency=0.5) as emulator, logged_in(emulator) as platform:
        # As many as empty the bucket, and none of them is known before.
        people = [emulator.user("Ada") for _ in range(emulator.limits.create[0])]
        said = [await emulator.say(emulator.channel_id, one, "why?") for one in people]
        turns = [channel_turn(emulator, one, opens_thread=False) for one in said]

        seconds = await asyncio.gather(*(post_one(platform, turn) for turn in turns))

        assert len(seconds) == 5
        assert max(seconds) < 0.9


async def test_the_edit_that_empties_a_bucket_ends_with_its_answer() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        async with platform.surface(dm_turn(emulator)) as surface:
            shown = await surface.post(page("0"))
            began = time.perf_counter()

            for number in range(emulator.limits.edit[0]):
                await surface.edit(shown, page(f"{number}"))

        assert time.perf_counter() - began < 1


async def test_replies_that_begin_together_in_a_channel_type_once() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        said = await emulator.say(emulator.channel_id, emulator.user("Ada"), "why?")
        turn = channel_turn(emulator, said, opens_thread=False)

        async with AsyncExitStack() as stack:
            for _ in range(20):
                await stack.enter_async_context(platform.surface(turn))
            await stack.enter_async_context(platform.surface(dm_turn(emulator)))
            await until(lambda: len(emulator.typing) > 1)

        assert emulator.typing.count(emulator.channel_id) == 1


async def test_typing_is_shown_until_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.discord.reply.open._TYPING_PAUSE", 0.02)
    monkeypatch.setattr("adapters.discord.reply.open._TYPING_GAP", 0.01)
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        async with platform.surface(dm_turn(emulator)):
            await until(lambda: len(emulator.typing) > 2)
        shown = len(emulator.typing)

        await asyncio.sleep(0.1)

        assert len(emulator.typing) == shown
