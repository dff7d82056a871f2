"""How soon the bot is there, and how soon a question reaches the model, on an emulated Discord.

    python -m bench.turn [TURNS]

What the rest of a turn takes, and what it costs, is measured by bench/reply.py.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from bench import figures
from tests.emulators.discord import DiscordEmulator
from tests.emulators.model import ModelEmulator
from tests.support.process import DiscordDm, bot, discord_variables
from tests.support.waiting import until


async def main(turns: int) -> None:
    with tempfile.TemporaryDirectory(prefix="parley-") as folder:
        async with ModelEmulator() as model, DiscordEmulator() as discord:
            model.answer = "Well."
            began = time.perf_counter()
            async with bot(data_dir=Path(folder), variables=discord_variables(discord, model)):
                await asyncio.wait_for(discord.connected.wait(), 15)
                started = time.perf_counter() - began
                waits = [await one_turn(discord, model, number) for number in range(turns)]
    print(figures.load())
    print(f"start to connected                   {started:.2f} s")
    both = figures.middle_and_worst(waits, unit=0.001)
    print(f"event to model request, p50 / worst  {both} ms")


async def one_turn(discord: DiscordEmulator, model: ModelEmulator, number: int) -> float:
    """Return the seconds from a person's message to the request that the model gets."""
    way = DiscordDm(discord)
    asked_at = time.monotonic()
    await way.ask(f"question {number}")
    await until(lambda: way.finals() == [model.answer], why=way.answers)
    return model.requests[-1].at - asked_at


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
