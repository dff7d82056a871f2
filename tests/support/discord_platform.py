"""The platform against the emulator, and the turns that tests of it are about."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from adapters.discord import DiscordPlatform, connect
from adapters.discord.address import ChannelAddress
from adapters.discord.tuning import Tuning
from bot.domain import Page, Person, Place, ThreadKey, Turn
from bot.reply.edit_budget import EditBudgets
from bot.store import Store
from tests.emulators.discord import DiscordEmulator
from tests.support.fakes import EmptyStore, FakeIntake, NoLimits


@asynccontextmanager
async def logged_in(
    emulator: DiscordEmulator,
    *,
    threads: bool = True,
    store: Store | None = None,
    gateway_url: str = "",
    budgets: EditBudgets | None = None,
    tuning: Tuning | None = None,
) -> AsyncIterator[DiscordPlatform]:
    async with connect(
        token=emulator.token,
        api_url=emulator.api_url,
        gateway_url=gateway_url or emulator.gateway_url,
        threads=threads,
        budgets=budgets or (EditBudgets(store=store) if store else NoLimits()),
        tuning=tuning,
    ) as platform:
        yield platform


@asynccontextmanager
async def listening(
    emulator: DiscordEmulator,
    intake: FakeIntake,
    *,
    threads: bool = True,
    tuning: Tuning | None = None,
) -> AsyncIterator[DiscordPlatform]:
    async with logged_in(emulator, threads=threads, tuning=tuning) as platform:
        task = asyncio.create_task(platform.listen(intake, store=EmptyStore()))
        try:
            async with asyncio.timeout(60):
                await emulator.connected.wait()
            yield platform
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def turn_at(place: Place, *, turn_id: str = "discord:1", text: str = "why?") -> Turn:
    key = ThreadKey("discord", "1", "2", "3")
    return Turn(turn_id, key, Person("9", "Ada"), text, place, time.time())


def channel_turn(emulator: DiscordEmulator, question: str, *, opens_thread: bool = True) -> Turn:
    place = ChannelAddress(int(emulator.channel_id), int(question), opens_thread=opens_thread)
    return turn_at(place.to_json(), turn_id=f"discord:{question}")


def dm_turn(emulator: DiscordEmulator) -> Turn:
    channel = emulator.dm(emulator.user("Ada"))
    return turn_at(ChannelAddress(int(channel), None, opens_thread=False).to_json())


def page(text: str, *, number: int = 0, final: bool = False, last: bool = False) -> Page:
    return Page(number, text, final or last, last=last)


def snowflake_of(moment: float) -> int:
    return int((moment - 1_420_070_400) * 1000) << 22
