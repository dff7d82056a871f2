"""Overload, seen from outside: 200 questions at once, most of them one person's."""

from __future__ import annotations

import asyncio
import re
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.figures import resident
from bot.app.service import LIMITS
from bot.errors import PersonBusy
from bot.intake.intake import REPEAT_SECONDS
from bot.store import connect
from tests.emulators.discord import DiscordEmulator
from tests.emulators.model import ModelEmulator
from tests.support.at_work import all_ended
from tests.support.process import BotProcess, bot, counted, discord_variables
from tests.support.waiting import until

QUESTIONS, PEOPLE = 200, 10  # in all, and who asks one each; all others are one person's
ADMITTED = LIMITS.waiting_per_person
GROWTH = 40.0  # MB
COMPLETIONS = "POST /v1/chat/completions"


@asynccontextmanager
async def slow_bot(
    folder: Path,
) -> AsyncIterator[tuple[DiscordEmulator, ModelEmulator, BotProcess]]:
    async with ModelEmulator() as model, DiscordEmulator() as discord:
        model.delay = 0.3
        variables = discord_variables(discord, model)
        async with bot(data_dir=folder, variables=variables) as running:
            await asyncio.wait_for(discord.connected.wait(), 60)
            yield discord, model, running


def shown(discord: DiscordEmulator, question: str) -> list[str]:
    thread = discord.thread_of(question)
    return said(discord, thread) if thread else []


def said(discord: DiscordEmulator, channel: str) -> list[str]:
    return [one.text for one in discord.screen(channel) if one.author_id == discord.bot_id]


async def test_a_flood_is_held_back_and_whoever_asks_once_is_answered() -> None:
    with tempfile.TemporaryDirectory(prefix="parley-") as folder:
        async with slow_bot(Path(folder)) as (discord, model, running):
            before, place = resident(running.process.pid), discord.channel_id
            begun_at = time.monotonic()
            flooder, heard_all = discord.user("Flo"), asyncio.Event()
            # On a busy machine people speak slowly: nothing is answered before all have spoken.
            model.fail(
                COMPLETIONS, "late", gate=heard_all, times=LIMITS.running_per_person + PEOPLE
            )
            for number in range(QUESTIONS - PEOPLE):
                await discord.say(place, flooder, f"{discord.bot_mention} flood {number}")
            once = [
                await discord.say(place, discord.user(f"P{number}"), f"{discord.bot_mention} once")
                for number in range(PEOPLE)
            ]
            await until(lambda: len(model.requests) >= LIMITS.running_per_person + PEOPLE)
            # The rest of the flood is refused while none has ended, or more of it gets in.
            await all_turned_away(running, QUESTIONS - PEOPLE - ADMITTED)
            heard_all.set()

            await until(lambda: all(shown(discord, one) == ["You said: once"] for one in once))
            await until(lambda: len(model.requests) >= ADMITTED + PEOPLE, why=running.text)
            peak = resident(running.process.pid, peak=True)
            async with connect(url="", data_dir=Path(folder)) as store:
                await all_ended(store)

            begun = [request.messages[-1]["content"].split()[0] for request in model.requests]
            told = said(discord, place)

    # The flooder was before everybody, and had three turns at once; the others did not wait for
    # the rest of them.
    assert begun[-1] == "flood"
    assert begun.index("once") <= LIMITS.running_per_person
    # A refusal that the store did not tell in time is counted again, and one more gets in later.
    assert ADMITTED <= begun.count("flood") < 2 * ADMITTED
    # Told once for all that was refused in the same ten seconds.
    assert set(told) == {PersonBusy.apology}
    assert len(told) <= 2 + (time.monotonic() - begun_at) // REPEAT_SECONDS
    assert peak - before < GROWTH


async def all_turned_away(running: BotProcess, wanted: int) -> None:
    """Wait until so many questions were refused, or dropped while the store stood still."""
    async with asyncio.timeout(60):
        while await counted(running, "parley_refusals_total") + dropped(running) < wanted:
            await asyncio.sleep(0.05)


def dropped(running: BotProcess) -> int:
    return sum(map(int, re.findall(r"Dropped (\d+) events", running.text())))
