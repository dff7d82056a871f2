"""Processes that are killed while files are fetched, read, stored and asked about.

KILLS in the environment says how many of them, as many in each gap; the default is for every day.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("pypdf", reason="reading needs requirements-files.txt")
pytest.importorskip("openpyxl", reason="the samples need requirements-files.txt")

from bot.concurrency import running
from tests.chaos.fleet import Crew, Fleet, Server, fleet, server
from tests.chaos.talks import number_of, question
from tests.emulators.discord import DiscordEmulator
from tests.emulators.model import ModelEmulator
from tests.emulators.slack import SlackEmulator
from tests.files.samples import pdf, shown
from tests.support.process import (
    BotProcess,
    DiscordDm,
    SlackDm,
    alive,
    children,
    discord_variables,
    slack_variables,
)
from tests.support.waiting import until

KILLS = int(os.environ.get("KILLS", "4"))
PEOPLE = 4  # on each platform
MOST = 3  # kills for one question
ROLES = (("discord", "slack", "worker"), ("discord", "slack", "worker"), ("worker",))
LONGEST = 10  # questions of a conversation
THINKING = 0.1  # seconds, of the model
# A process that stands still for longer, and has lost its turn, may fetch a file once more.
LEASE = 2.0  # seconds
PATIENCE = 240.0  # seconds until a kill has struck
# Of a person: a question that no process has heard comes again from Slack after a minute and five.
UNHEARD = 400.0
RNG = random.Random(KILLS)
# Further pages, so that a file is read for long enough to be seen on a busy machine.
LONG = [shown(f"Page {number} says nothing.") for number in range(2, 80)]


class Killer:
    """Kills processes in four gaps of their work on a question.

    `numbers` has the question of each message, and `saved` how often the file of a question had
    been fetched when its text was stored first. Each method waits for its moment and returns
    whether it has killed; it has not if the moment had passed. A question whose processes were all
    killed would be given up, so none is struck more than MOST times.
    """

    def __init__(
        self, discord: DiscordEmulator, slack: SlackEmulator, store: Server, bots: Fleet
    ) -> None:
        self.numbers: dict[str, int] = {}
        self.saved: dict[int, int] = {}
        self.answered: set[int] = set()
        self._discord = discord
        self._slack = slack
        self._store = store
        self._bots = bots
        self._killed = Counter[int]()

    def fetches(self) -> Counter[int]:
        """Return how often the file of each question was fetched."""
        names = (*self._discord.cdn.fetched, *self._slack.files.fetched)
        return Counter(int(name[5:-4]) for name in names)

    async def note_saved(self) -> None:
        async for turn in self._store.saved_files():
            said = turn.rpartition(":")[2]
            await until(lambda: said in self.numbers)  # noqa: B023
            number = self.numbers[said]
            self.saved.setdefault(number, self.fetches()[number])

    async def fetching(self) -> bool:
        """Kill while the platform has begun to send a file, and holds it back."""
        gate, before = asyncio.Event(), self.fetches()
        self._discord.cdn.gate = self._slack.files.gate = gate
        try:
            await until(lambda: self.fetches() - before)
            found = await self._at_work_on({*(self.fetches() - before)})
            return found is not None and await self._kill(found)
        finally:
            self._discord.cdn.gate = self._slack.files.gate = None
            gate.set()

    async def reading(self) -> bool:
        """Kill while a child process reads."""
        one, child, _ = await self._reader()
        with suppress(ProcessLookupError):
            # Else it might have ended when its parent is killed.
            os.kill(child, signal.SIGSTOP)
        if not alive(child):
            return False
        await self._kill(one)
        with suppress(ProcessLookupError):  # it ends with its fork server
            os.kill(child, signal.SIGCONT)
        return True

    async def storing(self) -> bool:
        """Kill when a child has ended and the store has not told of its text."""
        one, child, unsaved = await self._reader()
        one.pause()
        # After a longer pause, another process would take the turn.
        with suppress(TimeoutError):
            await until(lambda: not alive(child), within=LEASE / 6)
        has_ended = not alive(child)
        one.wake()
        await asyncio.sleep(RNG.choice((0, 0.005)))
        is_stored = unsaved & self.saved.keys()
        return has_ended and not is_stored and await self._kill(one)

    async def asking(self) -> bool:
        """Kill when the store has told of a text, and the answer is not shown."""
        before = {*self.saved}
        await until(lambda: self.saved.keys() - before)
        asked = self.saved.keys() - before
        await asyncio.sleep(RNG.uniform(0, THINKING))
        found = await self._at_work_on(asked)
        return found is not None and not asked & self.answered and await self._kill(found)

    async def _reader(self) -> tuple[BotProcess, int, Set[int]]:
        """Return a process, its child that reads, and its questions without a stored text."""
        while True:
            await asyncio.sleep(0.02)
            for one in self._bots.up():
                pid, saved = one.process.pid, {*self.saved}
                found = await asyncio.to_thread(_readers, pid)
                held = await self._store.held_by(pid)
                if found and held and self._may_strike(held):
                    return one, found[0], held - saved

    async def _at_work_on(self, numbers: Set[int]) -> BotProcess | None:
        for one in self._bots.up():
            held = await self._store.held_by(one.process.pid)
            if held & numbers and self._may_strike(held):
                return one
        return None

    def _may_strike(self, held: Set[int]) -> bool:
        return all(self._killed[number] < MOST for number in held)

    async def _kill(self, one: BotProcess) -> bool:
        one.kill()
        await one.process.wait()
        self._killed.update(await self._store.held_by(one.process.pid))
        return True


def _readers(pid: int) -> list[int]:
    """Return the ids of the copies of the fork server of a process."""
    servers = children("bot.files.fork_server", parent=pid)
    return [one for it in servers for one in children("bot.files.fork_server", parent=it)]


async def until_last(talk: DiscordDm | SlackDm, answer: str, *, why: str) -> None:
    def shown_last() -> bool:
        # Below it may be said what had no room.
        return [one.partition("\n")[0] for one in talk.finals()[-1:]] == [answer]

    await until(shown_last, within=UNHEARD, why=lambda: (why, talk.finals()[-2:]))


async def test_no_kill_loses_a_file_and_none_is_fetched_after_it_was_stored(
    data_dir: Path, model: ModelEmulator
) -> None:
    discord, slack = DiscordEmulator(), SlackEmulator()
    struck = Counter[str]()

    def answer(messages: Sequence[Mapping[str, str]]) -> str:
        text = messages[-1]["content"]
        words = re.findall(r"\| The word is (\w+)", text)
        return f"{number_of(text)}: {' '.join(words)}."

    model.answer, model.first_delay = answer, THINKING
    async with discord, slack, server(data_dir) as store:
        variables = discord_variables(discord, model) | slack_variables(slack, model)
        variables["REDIS_URL"] = f"unix://{store.socket}"
        variables["LEASE_SECONDS"] = str(LEASE)
        async with fleet(data_dir, [Crew(roles, variables, {}) for roles in ROLES]) as bots:
            await until(lambda: len(bots.up()) == len(ROLES), why=lambda: bots.texts)
            await until(lambda: discord.connected.is_set() and slack.connected.is_set())
            numbers = iter(range(1, 10_000))
            is_over = asyncio.Event()
            killer = Killer(discord, slack, store, bots)
            gaps = (killer.fetching, killer.reading, killer.storing, killer.asking)

            async def ask(begin: Callable[[], DiscordDm | SlackDm]) -> None:
                asked = 0
                while not is_over.is_set():
                    if asked % LONGEST == 0:
                        talk = begin()
                    platform = discord if isinstance(talk, DiscordDm) else slack
                    asked, number = asked + 1, next(numbers)
                    pages = [shown(f"The word is w{number}."), *LONG]
                    file = f"file-{number}.pdf", pdf(pages)
                    text = question(number)
                    said = await platform.say(talk.channel, talk.person, text, files=(file,))
                    killer.numbers[said] = number
                    await until_last(talk, f"{number}: w{number}.", why=f"{said} of {text}")
                    killer.answered.add(number)

            async def kill() -> None:
                plan = [gaps[at % len(gaps)] for at in range(KILLS)]
                for strike in RNG.sample(plan, k=KILLS):
                    # redis-py 8.1 may swallow the cancellation of `asyncio.timeout`.
                    deadline = time.monotonic() + PATIENCE
                    while not await strike():
                        assert time.monotonic() < deadline, f"no kill while {strike.__name__}"
                        assert not noting.done(), noting
                    struck[strike.__name__] += 1
                    await bots.hears()
                is_over.set()

            kinds = partial(DiscordDm, discord), partial(SlackDm, slack)
            async with running(killer.note_saved()) as noting, asyncio.TaskGroup() as group:
                group.create_task(kill())
                for begin in kinds * PEOPLE:
                    group.create_task(ask(begin))
            logs = "\n".join(bots.texts)

    fetches = killer.fetches()
    again = [number for number, times in killer.saved.items() if fetches[number] > times]
    assert not again
    assert killer.answered <= killer.saved.keys()
    assert all(struck[gap.__name__] for gap in gaps[:KILLS])
    assert "Traceback" not in logs
    print(
        f"kills: {dict(struck)} · {len(killer.answered)} answers · {fetches.total()} fetches · "
        f"{len(again)} after the store"
    )
