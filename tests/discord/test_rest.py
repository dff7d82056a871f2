"""discord.py 2.7.1 as the platform uses it: its own rate limits hold nothing back."""

from __future__ import annotations

import asyncio
import inspect
from contextlib import AsyncExitStack

from discord.http import HTTPClient, Route
from discord.webhook.async_ import AsyncDeferredLock

from adapters.discord.platform import DiscordPlatform
from adapters.discord.tuning import Tuning
from bot.domain import Turn
from tests.emulators.discord import DiscordEmulator
from tests.support.discord_platform import channel_turn, dm_turn, logged_in, page
from tests.support.waiting import until


def test_the_library_is_as_its_internals_were_read() -> None:
    """`rest.py` leans on these: after a change read the library anew."""
    request = inspect.getsource(HTTPClient.request)
    route = inspect.signature(Route).parameters

    assert "ratelimit = self.get_ratelimit(key)" in request
    assert "async with ratelimit:" in request
    assert "kwargs['data'] = utils._to_json(kwargs.pop('json'))" in request
    assert list(route)[:2] == ["method", "path"]
    assert Route.BASE.endswith("/v10")
    # Why its webhooks are not used.
    assert "await asyncio.sleep(self.delta)" in inspect.getsource(AsyncDeferredLock)


async def post_one(emulator: DiscordEmulator, platform: DiscordPlatform, turn: Turn) -> int:
    """Return how many messages had arrived when this one was answered."""
    async with platform.surface(turn) as surface:
        await surface.post(page("because"))
        return len([one for one in emulator.requests if one.call.startswith("POST /channels")])


async def test_calls_go_out_together_and_end_with_their_answers() -> None:
    async with DiscordEmulator(latency=0.5) as emulator, logged_in(emulator) as platform:
        # As many as empty the bucket for an hour, and none of them is known before.
        emulator.limits.create = (5, 3600.0)
        people = [emulator.user("Ada") for _ in range(5)]
        said = [await emulator.say(emulator.channel_id, one, "why?") for one in people]
        turns = [channel_turn(emulator, one, opens_thread=False) for one in said]

        async with asyncio.timeout(60):
            arrived = await asyncio.gather(*(post_one(emulator, platform, it) for it in turns))

        assert min(arrived) >= 5


async def test_the_edit_that_empties_a_bucket_ends_with_its_answer() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        emulator.limits.edit = (5, 3600.0)
        async with asyncio.timeout(60), platform.surface(dm_turn(emulator)) as surface:
            shown = await surface.post(page("0"))

            for number in range(5):
                await surface.edit(shown, page(f"{number}"))


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


async def test_typing_is_shown_until_the_end() -> None:
    tuning = Tuning(typing_every=0.02, typing_gap=0.01)
    async with DiscordEmulator() as emulator, logged_in(emulator, tuning=tuning) as platform:
        async with platform.surface(dm_turn(emulator)):
            await until(lambda: len(emulator.typing) > 2)
        await asyncio.sleep(0.2)  # one may be on its way
        shown = len(emulator.typing)

        await asyncio.sleep(0.1)

        assert len(emulator.typing) == shown
