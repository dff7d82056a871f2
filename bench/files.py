"""How late fifty answers are while hostile files are read beside them, and without.

    python -m bench.files

The bot runs as a process and answers fifty people in DMs of an emulated Discord. In every other
round each of the hostile files of tests/app/test_hostile_files.py is sent in a further DM at the
same moment. Needs requirements-files.txt. Prints percentiles of the delay of a token, in
milliseconds: the mean of each answer, over all answers of the rounds.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop

from bench import figures
from bench.scene import play, settled
from bench.stage import DiscordStage, Question, a_stage
from tests.app.test_hostile_files import FILES
from tests.support.process import BotProcess, bot

PEOPLE, ROUNDS = 50, 3
_HOSTILE = 100_000  # the number of the first question with a file
_IDLE = 1.5  # seconds


class Dms(DiscordStage):
    """Everybody asks in a DM; `files` are sent beside, each in a DM of its own."""

    files: Sequence[tuple[str, bytes]] = ()

    async def ask(self, numbers: Sequence[int]) -> list[Question]:
        for number, file in enumerate(self.files, _HOSTILE + numbers[0] * len(FILES)):
            await self._say(number, file)
        return [await self._say(number) for number in numbers]

    async def _say(self, number: int, *files: tuple[str, bytes]) -> Question:
        person = self.discord.user(f"Person {number}")
        place, at = self.discord.dm(person), time.monotonic()
        said = await self.discord.say(place, person, f"question {number}", files=files)
        return Question(number, at, place, said)

    def _channel(self, question: Question) -> str:
        return question.channel


async def main() -> None:
    delays: dict[str, list[float]] = {"alone": [], "beside hostile files": []}
    async with a_stage("discord", "one channel") as stage:
        assert isinstance(stage, DiscordStage)
        dms = Dms(stage.discord, stage.model, "one channel")
        with tempfile.TemporaryDirectory(prefix="parley-") as folder:
            async with bot(data_dir=Path(folder), variables=dms.variables()) as running:
                await dms.connected()
                await settled(dms, await dms.ask([0]))
                await asyncio.sleep(_IDLE)
                for number in range(2 * ROUNDS):
                    kind = list(delays)[number % 2]
                    dms.files = list(FILES.items()) if number % 2 else []
                    delays[kind] += await _round(dms, running, number)
    for kind, found in delays.items():
        cuts = statistics.quantiles(found, n=100)
        shown = (f"p{at} {cuts[at - 1] * 1000:.0f}" for at in (50, 95, 99))
        print(f"{kind}: {len(found)} answers, delay of a token in ms: {', '.join(shown)}")


async def _round(dms: Dms, running: BotProcess, number: int) -> list[float]:
    first = 1 + number * PEOPLE
    scene = await play(dms, running.process.pid, range(first, first + PEOPLE), idle=0.0)
    if scene.incomplete:
        print(f"{scene.incomplete} answers are not whole", file=sys.stderr)
    peak = figures.resident(running.process.pid, peak=True)
    print(f"round {number}: {scene.delay:.3f} s, {peak:.0f} MB at most", file=sys.stderr)
    # The last hostile file may still be read.
    await asyncio.sleep(12.0 if dms.files else _IDLE)
    return [one.fresh.mean for one in scene.answers if one.fresh]


if __name__ == "__main__":
    uvloop.run(main())
