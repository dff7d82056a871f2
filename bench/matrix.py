"""How soon an answer is in a room of a real Synapse, beside what the homeserver alone takes.

    python -m bench.matrix [ANSWERS]

The limit is an account that answers each message with one word, at once, over the same API. `make
synapse` installs the homeserver.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import figures
from bot.concurrency import running
from tests.emulators.model import ModelEmulator
from tests.support.process import bot, model_variables
from tests.support.synapse import Member, running_synapse

SECONDS = 3.0  # that an answer grows
TEXT = " ".join(["The river rises in the hills and runs past mills, gardens and small towns."] * 8)


class Eyes:
    """What a person sees of others, as soon as their homeserver tells it.

    One for a person: Synapse answers their first `/sync` again as it did a minute before.
    """

    def __init__(self, person: Member) -> None:
        self._person, self._since = person, ""

    async def news(self) -> list[tuple[float, dict[str, Any]]]:
        """Return the messages of others since the last call, each with the time of its arrival."""
        query: dict[str, str | int] = {"timeout": 30_000 if self._since else 0}
        found = await self._person.call(
            "GET", "sync", **query, **({"since": self._since} if self._since else {})
        )
        self._since, at = found["next_batch"], time.monotonic()
        rooms = found.get("rooms", {}).get("join", {}).values()
        events = [one for room in rooms for one in room["timeline"]["events"]]
        is_new = [one for one in events if one["sender"] != self._person.user_id]
        return [(at, one["content"]) for one in is_new if one["type"] == "m.room.message"]


async def main(answers: int) -> None:
    with tempfile.TemporaryDirectory(prefix="parley-") as folder:
        at = Path(folder) / "synapse"
        at.mkdir()
        async with running_synapse(at) as synapse, ModelEmulator() as model:
            model.answer, model.delay = TEXT, SECONDS * model.chunk / len(TEXT)
            ann, ben = await synapse.person("ann"), await synapse.person("ben")
            parley = await synapse.person("parley")
            variables = {
                "MATRIX_HOMESERVER": synapse.url,
                "MATRIX_TOKEN": parley.token,
                **model_variables(model),
            }
            async with bot("matrix", "worker", data_dir=Path(folder), variables=variables):
                eyes = Eyes(ann)
                limits = await echoes(ann, ben, eyes, answers)
                room = await ann.create_room(parley)
                while (await ann.members(room))[parley.user_id] != "join":
                    await asyncio.sleep(0.1)
                found = [await one_answer(ann, eyes, parley, room, model) for _ in range(answers)]
    limit = statistics.median(limits)
    print(figures.load())
    print(f"question to one word at once, p50 / worst {shown(limits)} ms")
    firsts, ends, edits = zip(*found, strict=True)
    for what, values in (("question to first text", firsts), ("last token to whole answer", ends)):
        ratio = statistics.median(values) / limit
        print(f"{what}, p50 / worst {shown(values)} ms: {ratio:.1f} times that")
    print(f"edits of an answer of {SECONDS:.0f} s: {max(edits)} at most")


def shown(seconds: Sequence[float]) -> str:
    return figures.middle_and_worst(seconds, unit=0.001)


async def echoes(ann: Member, ben: Member, eyes: Eyes, times: int) -> list[float]:
    """Return the seconds after which a message is answered by an account that only says "yes"."""
    room = await ann.create_room(ben)
    await ben.join(room)
    waits = list[float]()

    async def echo() -> None:
        ears = Eyes(ben)
        while True:
            for _ in await ears.news():
                await ben.say(room, "yes")

    await eyes.news()
    async with running(echo()):
        for number in range(times + 1):
            sent = time.monotonic()
            await ann.say(room, "why?")
            while not (found := await eyes.news()):
                pass
            waits += [found[0][0] - sent] if number else []  # not while Ben reads of the room
    return waits


async def one_answer(
    ann: Member, eyes: Eyes, parley: Member, room: str, model: ModelEmulator
) -> tuple[float, float, int]:
    """Return the seconds to the first text and from the last token to the end, and the edits."""
    first, edits = 0.0, -1
    asked = time.monotonic()
    await ann.say(room, "why?", to=[parley])
    while True:
        for at, content in await eyes.news():
            first, edits = first or at - asked, edits + 1
            if content.get("m.new_content", content)["body"] == TEXT:
                return first, at - model.requests[-1].deltas[-1].at, edits


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10))
