"""Processes that are killed while calls are asked for, allowed, made and answered.

KILLS in the environment says how often they are struck, a third of it while turns wait for a
person; the default is for every day.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

pytest.importorskip("mcp", reason="MCP servers need requirements-tools.txt")

from mcp.server.mcpserver import MCPServer

from bot.text.rounds import TOOLS_NOTICE
from tests.chaos.fleet import Crew, Fleet, OpenTurn, Server, fleet, server
from tests.chaos.talks import number_of, question
from tests.emulators.discord import DiscordEmulator
from tests.emulators.discord import Shown as DiscordShown
from tests.emulators.model import Calls, ModelEmulator
from tests.support.mcp_server import serving
from tests.support.process import BotProcess, DiscordDm, discord_variables
from tests.support.waiting import until

KILLS = int(os.environ.get("KILLS", "9"))
TURNS = 4  # for each strike
PEOPLE = 12
ROLES = (("discord", "worker"), ("discord", "worker"))
LONGEST = 10  # questions of a conversation
CONSENT = 30.0  # seconds
THINKING, CALLING, WORD = 0.3, 0.3, 0.05  # seconds, of the model, of a call and of a few letters
UNHEARD = 15.0  # seconds until a person says it again, if no process has heard it
UNANSWERED = 4.0  # seconds until a person presses again
PATIENCE = 240.0  # seconds until a kill has struck, and until a turn has ended
RNG = random.Random(KILLS)

Gap = Literal["waiting", "pressed", "thinking", "calling", "answering"]
PLAN: Sequence[Gap] = (
    *("waiting", "calling", "thinking", "pressed", "answering", "calling", "waiting"),
    *("answering", "thinking", "pressed"),
)
# Seconds in which each stage is struck.
LASTS = {"thinking": THINKING, "calling": CALLING, "answering": 10 * WORD}
NO_TOOLS = "I have no tools."  # where their server took too long to list them
Fate = Literal["allow", "deny", "silence"]
_OUTCOMES = "done|denied|not allowed in time|not known|failed"
_STEP = re.compile(rf"Calling `(\w+)` on `office`: ({_OUTCOMES})(?: \((\d) times\))?")


def fate_of(number: int) -> Fate:
    """Return what the person does who is asked in this turn."""
    return "silence" if number % 20 == 3 else "deny" if number % 6 == 4 else "allow"


def rounds_of(number: int) -> Sequence[Sequence[str]]:
    """Return the tools that the model calls in each round: `create` has effects, `send` a key."""
    if number % 40 == 7:
        return [["send"]] * 8
    match number % 5:
        case 0:
            return [["create", "send"]]
        case 1:
            return [["create"], ["send"]]
        case 2:
            return [["send"]]
    return [["create"]]


def says(messages: Sequence[Mapping[str, str]]) -> str | Calls:
    """Return what the model says: calls until it has the results of all rounds."""
    asked = max(at for at, one in enumerate(messages) if one["role"] == "user")
    text = messages[asked]["content"]
    number = number_of(text)
    done, rounds = sum("tool_calls" in one for one in messages[asked:]), rounds_of(number)
    if TOOLS_NOTICE not in messages[0]["content"] and "Result of office_" not in text:
        return f"Answer {number}: {NO_TOOLS}"
    # If it may call no more, the results stand in the question.
    if done == len(rounds) or "Result of office_" in text:
        return f"Answer {number}: " + "that is what came of it, as far as I can see. " * 2
    calls = [(f"office_{name}", f'{{"title": "{number}-{done}"}}') for name in rounds[done]]
    return Calls(calls, f"Round {done} of question {number}.")


@dataclass
class Office:
    """A server of tools; `done` counts what was done, by number of the turn, tool and title.

    It is done before the answer, which takes its time; with the same key, once. `at_work` counts
    the calls without a key that are not answered yet, by number of the turn.
    """

    done: Counter[tuple[int, str, str]] = field(default_factory=Counter)
    keys: set[str] = field(default_factory=set)
    at_work: Counter[int] = field(default_factory=Counter)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        office = MCPServer("office")

        async def run(tool: str, title: str, key: str = "") -> str:
            number = int(title.partition("-")[0])
            if key not in self.keys:
                self.done[number, tool, title] += 1
            self.keys |= {key} - {""}
            self.at_work[number] += not key
            try:
                await asyncio.sleep(CALLING)
            finally:
                self.at_work[number] -= not key
            return f"Done: {title}"

        @office.tool()
        async def create(title: str) -> str:
            """Create a ticket."""
            return await run("create", title)

        @office.tool()
        async def send(title: str, idempotency_key: str) -> str:
            """Send a letter."""
            return await run("send", title, idempotency_key)

        async with serving(office.streamable_http_app()) as url:
            yield url

    def counts(self, number: int, tool: str) -> list[int]:
        """Return how often each thing was done in a turn."""
        return [count for key, count in self.done.items() if key[:2] == (number, tool)]


def stage_of(turn: OpenTurn) -> str:
    """Return how far a turn has come: a gap, or "asking", which a call may follow."""
    done, asked = (
        {one.partition(":")[2] for one in turn.steps if one.startswith(f"{kind}:")}
        for kind in ("result", "asked")
    )
    if turn.state == "queued" and turn.asks:
        return "waiting"
    if asked - done:
        return "asking"
    return "answering" if done else "thinking"


class Killer:
    """Kills processes in the gaps of their work.

    `struck` counts in which. Nobody presses a button unless `may_press`, and
    each press sets `pressed`.
    """

    def __init__(self, office: Office, store: Server, bots: Fleet) -> None:
        self.struck = Counter[str]()
        self.killed = 0  # processes
        self.may_press, self.pressed = asyncio.Event(), asyncio.Event()
        self.may_press.set()
        self.store = store
        self._office = office
        self._bots = bots

    async def strike(self, gap: Gap) -> None:
        """Kill in a gap, however many tries it takes; those that missed are counted as well."""
        # redis-py 8.1 may swallow the cancellation of `asyncio.timeout`.
        deadline = time.monotonic() + PATIENCE
        is_of_people, struck = gap in ("waiting", "pressed"), ""
        while struck != gap:
            assert time.monotonic() < deadline, f"no kill while {gap}"
            if is_of_people:
                self.may_press.clear()
            struck = await (self._waiting(gap) if is_of_people else self._at_work(gap))
            if struck:
                self.struck[struck] += 1
                self.may_press.set()
                await self._bots.hears()
            else:
                await asyncio.sleep(0.02)

    async def _waiting(self, gap: Gap) -> str:
        """Kill all, so that people press while nobody hears it; or kill all while they press."""
        waiting = await self._waiting_turns()
        if not waiting:
            return ""
        if gap == "pressed":
            self.pressed.clear()
            self.may_press.set()
            with suppress(TimeoutError):
                await asyncio.wait_for(self.pressed.wait(), UNANSWERED)
            await asyncio.sleep(RNG.uniform(0, 0.05))
        await self._kill(*self._bots.up())
        if gap == "pressed":
            return gap if self.pressed.is_set() else "missed"
        return gap if waiting & await self._waiting_turns() else "missed"

    async def _waiting_turns(self) -> set[str]:
        """Return the turns that wait for a person who is going to answer."""
        turns = [it for it in await self.store.open_turns() if stage_of(it) == "waiting"]
        return {it.id for it in turns if fate_of(it.number) != "silence"}

    async def _at_work(self, gap: Gap) -> str:
        """Kill one process that has come so far with a turn, and no further when it is dead."""
        turns = [it for it in await self.store.open_turns() if it.state == "running"]
        up = {one.process.pid: one for one in self._bots.up()}
        found = [it for it in turns if self._stage(it) == gap and it.pid in up]
        if not found:
            return ""
        turn = RNG.choice(found)
        await asyncio.sleep(RNG.uniform(0, LASTS[gap]))
        await self._kill(up[turn.pid])
        left = [it for it in await self.store.open_turns() if it.id == turn.id]
        is_same = any((it.pid, it.steps) == (turn.pid, turn.steps) for it in left)
        return gap if is_same else "missed"

    def _stage(self, turn: OpenTurn) -> str:
        return "calling" if self._office.at_work[turn.number] else stage_of(turn)

    async def _kill(self, *victims: BotProcess) -> None:
        for one in victims:
            one.kill()
        for one in victims:
            await one.process.wait()
        self.killed += len(victims)


class Talk(DiscordDm):
    """A conversation with the bot; `asked` are the messages of its questions, by number."""

    def __init__(self, discord: DiscordEmulator) -> None:
        super().__init__(discord)
        self.asked: dict[int, str] = {}

    def messages(self) -> list[DiscordShown]:
        """Return the messages of the bot that stay."""
        return [one for one in self.shown() if not one.ephemeral]

    def answer(self, number: int) -> str:
        """Return the whole answer to a question; empty while there is none."""
        for one in self.messages():
            is_whole = not any(it.startswith("stop") for it in one.buttons)
            ends = "(Steps:" in one.text or NO_TOOLS in one.text
            if f"Answer {number}:" in one.text and ends and is_whole:
                return one.text
        return ""

    def question(self, number: int) -> tuple[str, list[str]]:
        """Return the message that asks for consent in a turn, and its buttons."""
        turn = f":discord:{self.asked[number]}"
        for one in self.messages():
            if any(it.startswith("allow-") and it.endswith(turn) for it in one.buttons):
                return one.id, list(one.buttons)
        return "", []

    async def see_through(self, number: int, killer: Killer) -> None:
        """Ask, answer what the bot asks back until it is accepted, and wait for the end."""
        await self.ask(question(number))
        self.asked[number] = self.said
        fate = fate_of(number)
        deadline, heard_by = time.monotonic() + PATIENCE, time.monotonic() + UNHEARD
        while not self.answer(number):
            assert time.monotonic() < deadline, (number, fate, self.finals()[-3:])
            if time.monotonic() > heard_by:
                # A first message to a bot that is down is not found by it later.
                if not await killer.store.knows(f"discord:{self.said}"):
                    await self.redeliver()
                heard_by = time.monotonic() + UNHEARD
            message, buttons = self.question(number)
            if not message or fate == "silence" or not killer.may_press.is_set():
                await asyncio.sleep(0.02)
                continue
            button = next(it for it in buttons if it.startswith(f"{fate}-"))
            # One in ten presses twice.
            for _ in range(1 + (number % 10 == 0)):
                await self.discord.click(message, self.person, button)
            killer.pressed.set()
            again = time.monotonic() + UNANSWERED
            while button in self.question(number)[1] and time.monotonic() < again:
                await asyncio.sleep(0.02)


async def test_no_kill_doubles_an_effect_or_loses_a_turn_and_what_is_unknown_is_said(
    data_dir: Path, model: ModelEmulator
) -> None:
    discord, office = DiscordEmulator(), Office()
    talks: list[Talk] = []
    model.answer, model.calling = says, model.models
    model.first_delay, model.delay = THINKING, WORD
    async with discord, office.serving() as url, server(data_dir) as store:
        servers = data_dir / "servers.toml"
        servers.write_text(
            f'[servers.office]\nurl = "{url}"\ntools = {{ create = "effects", send = "keyed" }}\n'
        )
        variables = discord_variables(discord, model) | {
            "REDIS_URL": f"unix://{store.socket}",
            "MCP_SERVERS": str(servers),
            "CONSENT_SECONDS": str(CONSENT),
        }
        async with fleet(data_dir, [Crew(roles, variables, {}) for roles in ROLES]) as bots:
            await until(lambda: len(bots.up()) == len(ROLES), why=lambda: bots.texts)
            await until(discord.connected.is_set)
            numbers, is_over, ended = iter(range(1, 10_000)), asyncio.Event(), list[int]()
            killer = Killer(office, store, bots)

            async def ask() -> None:
                while not is_over.is_set():
                    talks.append(talk := Talk(discord))
                    while len(talk.asked) < LONGEST and not is_over.is_set():
                        await talk.see_through(number := next(numbers), killer)
                        ended.append(number)

            async def kill() -> None:
                for at in range(KILLS):
                    await killer.strike(PLAN[at % len(PLAN)])
                    # A turn that gets no further would be given up.
                    enough = TURNS * (at + 1)
                    await until(lambda: len(ended) >= enough, within=PATIENCE)  # noqa: B023
                is_over.set()

            async with asyncio.TaskGroup() as group:
                group.create_task(kill())
                for _ in range(PEOPLE):
                    group.create_task(ask())
            for talk in talks:
                # A message that was posted just before a kill is found and deleted later.
                await until(
                    lambda: len(talk.messages()) == len(talk.asked),  # noqa: B023
                    why=lambda: talk.finals(),  # noqa: B023
                )
            logs = "\n".join(bots.texts)

    told = Counter[str]()
    for talk in talks:
        for number in talk.asked:
            text, fate = talk.answer(number), fate_of(number)
            steps = [(tool, outcome, int(n or 1)) for tool, outcome, n in _STEP.findall(text)]
            called = Counter(tool for one in rounds_of(number) for tool in one)
            if NO_TOOLS in text:
                told += {"no tools": 1}
                called = Counter(dict.fromkeys(called, 0))
            for tool, calls in called.items():
                outcomes = Counter({of: n for name, of, n in steps if name == tool})
                done = office.counts(number, tool)
                assert outcomes.total() == calls, text
                assert max(done, default=0) <= 1, (text, done)
                assert 0 <= len(done) - outcomes["done"] <= outcomes["not known"], (text, done)
                # What is allowed is made, unless the time was over.
                may = {"allow": {"done", "not known"}, "deny": {"denied"}, "silence": set[str]()}
                assert {*+outcomes} <= {*may[fate], "not allowed in time"}, (fate, text)
                told += outcomes
    turns = sum(len(talk.asked) for talk in talks)
    doubled = sum(count > 1 for count in office.done.values())
    assert "Traceback" not in logs
    print(
        f"{killer.killed} kills in {killer.struck.total()} strikes: {dict(killer.struck)} · "
        f"{turns} turns · {len(office.done)} effects, {doubled} doubled · "
        f"calls told as {dict(told)}"
    )
