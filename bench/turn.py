"""What one turn and an idle bot cost, with the bot as a process on an emulated Discord.

    python -m bench.turn [TURNS]

Prints medians over all turns; a memory figure stands beside what the libraries alone take.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.emulators.discord import DiscordEmulator
from tests.emulators.model import ModelEmulator
from tests.emulators.timeline import freshness
from tests.process import DiscordDm, bot, discord_variables
from tests.waiting import until

LIBRARIES = "import discord, huggingface_hub, redis.asyncio, aiohttp.web, prometheus_client, uvloop"


async def main(turns: int) -> None:
    with tempfile.TemporaryDirectory(prefix="parley-") as folder:
        async with ModelEmulator() as model, DiscordEmulator() as discord:
            model.answer = "The quick brown fox jumps over the lazy dog. " * 4
            model.first_delay, model.delay = 0.05, 0.01
            began = time.perf_counter()
            async with bot(
                data_dir=Path(folder), variables=discord_variables(discord, model)
            ) as running:
                await asyncio.wait_for(discord.connected.wait(), 15)
                started = time.perf_counter() - began
                await asyncio.sleep(1)
                idle = resident(running.process.pid)
                figures = [await one_turn(discord, model, number) for number in range(turns)]
    print(f"start to connected             {started:.2f} s")
    print(f"idle process                   {idle:.0f} MB")
    print(f"its libraries alone            {libraries():.0f} MB")
    for name, values in zip(NAMES, zip(*figures, strict=True), strict=True):
        print(f"{name:<30} p50 {statistics.median(values) * 1000:.1f} ms  "
              f"worst {max(values) * 1000:.1f} ms")  # fmt: skip


NAMES = ("event to model request", "first token to first visible", "last token to final")


async def one_turn(
    discord: DiscordEmulator, model: ModelEmulator, number: int
) -> tuple[float, float, float]:
    way = DiscordDm(discord)
    asked_at = time.monotonic()
    await way.ask(f"question {number}")
    await until(lambda: way.finals() == [str(model.answer).strip()], why=way.answers)
    asked = model.requests[-1]
    ours = {shown.id for shown in way.shown()}
    seen = [moment for moment in discord.timeline(way.channel) if moment.message in ours]
    fresh = freshness(asked.deltas, seen)
    assert fresh.last is not None
    return asked.at - asked_at, fresh.first, fresh.last


def resident(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def libraries() -> float:
    code = f"{LIBRARIES}\nprint(open('/proc/self/status').read())"
    out = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    (line,) = [line for line in out.stdout.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
