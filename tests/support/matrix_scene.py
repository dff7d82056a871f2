"""Bot processes before a real Synapse, the people who ask them, and what can be killed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote
from uuid import uuid4

import aiohttp

from tests.chaos.fleet import Crew, Fleet, Server, fleet, server
from tests.chaos.screens import Screen, read
from tests.chaos.talks import answer, answer_to, bare, question
from tests.emulators.model import ModelEmulator
from tests.support.matrix_proxy import Call, MatrixProxy, in_front_of
from tests.support.process import BotProcess, model_variables
from tests.support.synapse import Member, RefusedBySynapse, Shown, Synapse

Kind = Literal["direct", "mention", "thread"]
_AWAY = (aiohttp.ClientError, OSError, RefusedBySynapse, TimeoutError)
# A kill waits so many seconds for its moment, and strikes then anyway.
_AMBUSH = 10.0


def matrix_variables(
    proxy: MatrixProxy, account: Member, model: ModelEmulator | None = None
) -> dict[str, str]:
    return {
        "MATRIX_HOMESERVER": proxy.url,
        "MATRIX_TOKEN": account.token,
        **model_variables(model),
    }


@dataclass
class Talk:
    """A person in a room with the bot; `asked` has the event of each question, by its number.

    In a "direct" room answers come in place, each "mention" has a thread, and in a "thread" the
    questions after the first one go on in its thread.
    """

    kind: Kind
    person: Member
    account: Member  # the bot's
    room: str
    asked: dict[int, str] = field(default_factory=dict)

    async def ask(self, number: int) -> None:
        """Say a question; while the server is away, again and again."""
        content: dict[str, Any] = {"msgtype": "m.text", "body": question(number)}
        if self.kind == "mention" or (self.kind == "thread" and not self.asked):
            content["body"] = f"{self.account.name}: {question(number)}"
            content["m.mentions"] = {"user_ids": [self.account.user_id]}
        elif self.kind == "thread":
            root = next(iter(self.asked.values()))
            relation = {"rel_type": "m.thread", "event_id": root, "is_falling_back": True}
            content["m.relates_to"] = {**relation, "m.in_reply_to": {"event_id": root}}
        path = f"rooms/{quote(self.room)}/send/m.room.message/{uuid4().hex}"
        sent = await patiently(lambda: self.person.call("PUT", path, content))
        self.asked[number] = str(sent["event_id"])

    async def shown(self) -> list[Shown]:
        """Return the bot's messages, oldest first."""
        screen = await patiently(lambda: self.person.screen(self.room))
        return [one for one in screen if one.sender == self.account.user_id]

    async def has_answer(self, number: int) -> bool:
        said = bare("".join(one.text for one in await self.shown()))
        return bare(answer_to(number)) in said

    async def screens(self) -> list[Screen]:
        """Match what each place of the talk shows with what was asked there."""
        shown = await self.shown()
        if self.kind == "mention":
            places = [([number], event) for number, event in self.asked.items()]
        else:
            root = "" if self.kind == "direct" else next(iter(self.asked.values()), "")
            places = [(list(self.asked), root)]
        return [
            read(numbers, [one.text for one in shown if one.thread == root])
            for numbers, root in places
        ] + [
            read([], [one.text for one in shown if one.thread not in [root for _, root in places]])
        ]


async def patiently(call: Callable[[], Any]) -> Any:
    """Return what a call to the server returns, as soon as it does."""
    async with asyncio.timeout(120):
        while True:
            with suppress(*_AWAY):
                return await call()
            await asyncio.sleep(0.1)


@dataclass
class Scene:
    """All that can be killed, and the people. `proxies` are the ways of the processes."""

    synapse: Synapse
    account: Member
    model: ModelEmulator
    store: Server
    fleet: Fleet
    proxies: Sequence[MatrixProxy]
    talks: Sequence[Talk]
    rng: random.Random
    kills: dict[str, int] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: iter(range(1, 100_000)))

    @property
    def calls(self) -> list[Call]:
        return sorted((one for it in self.proxies for one in it.calls), key=lambda it: it.began)

    async def asking(self, talk: Talk, ending: asyncio.Event) -> None:
        """Ask, wait for the answer, and ask again, until the event is set."""
        while not ending.is_set():
            number = next(self._numbers)
            await talk.ask(number)
            with suppress(TimeoutError):
                async with asyncio.timeout(90):
                    while not ending.is_set() and not await talk.has_answer(number):
                        await asyncio.sleep(0.2)

    async def kill_bot(self) -> None:
        """Kill a process: at any time, or when a write is done or events have come."""
        moment = self.rng.choice(("any time", "post", "edit", "events"))
        if moment != "any time" and await self._kill_at(moment):
            self._count(moment)
            return
        await asyncio.sleep(self.rng.uniform(0.0, 0.7))
        victims = [one for one in (self._victim(),) if one]
        for victim in victims:
            victim.kill()
            self._count("any time")

    async def kill_synapse(self) -> None:
        """Kill the homeserver, and start it within a second or two."""
        await asyncio.sleep(self.rng.uniform(0.0, 1.0))
        await self.synapse.kill()
        await asyncio.sleep(self.rng.uniform(0.0, 1.5))
        await self.synapse.start()
        self._count("Synapse")

    async def settled(self, *, within: float = 180.0) -> None:
        """Return when each question has its answer and no repair is due, or after that time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                for talk in self.talks:
                    for number in talk.asked:
                        while not await talk.has_answer(number):
                            await asyncio.sleep(0.3)
                for talk in self.talks:
                    while any(screen.extras for screen in await talk.screens()):
                        await asyncio.sleep(0.3)

    async def problems(self) -> list[str]:
        """Return what is lost, doubled, half or too much."""
        found = []
        for talk in self.talks:
            for screen in await talk.screens():
                found += [f"{talk.kind}: {it}" for it in screen.turns if it.end != "whole"]
                found += [f"{talk.kind}: {it}" for it in screen.extras]
        return found

    async def most_edits(self) -> int:
        """Return the most edits that a message has."""
        shown = [one for talk in self.talks for one in await talk.shown()]
        return max((one.edits for one in shown), default=0)

    def _victim(self) -> BotProcess | None:
        return self.fleet.victim(self.rng)

    async def _kill_at(self, moment: str) -> bool:
        struck = asyncio.get_running_loop().create_future()

        def see(number: int, call: Call, body: bytes, answer: bytes) -> None:
            victim = self.fleet.running(number)
            if (
                victim
                and not struck.done()
                and call.status == 200
                and _is(moment, call, body, answer)
            ):
                victim.kill()
                struck.set_result(True)

        for number, proxy in enumerate(self.proxies):
            proxy.watch = lambda *seen, number=number: see(number, *seen)  # type: ignore[misc]
        try:
            async with asyncio.timeout(_AMBUSH):
                return bool(await struck)
        except TimeoutError:
            return False
        finally:
            for proxy in self.proxies:
                proxy.watch = None

    def _count(self, what: str) -> None:
        self.kills[what] = self.kills.get(what, 0) + 1


def _is(moment: str, call: Call, body: bytes, answer: bytes) -> bool:
    if moment == "events":
        return "/sync" in call.call and b"This is question" in answer
    is_edit = b"m.replace" in body
    return "/send/m.room.message/" in call.call and is_edit == (moment == "edit")


@asynccontextmanager
async def scene(
    folder: Path,
    model: ModelEmulator,
    synapse: Synapse,
    *,
    kinds: Sequence[Kind] = ("direct", "mention", "thread"),
    processes: int = 2,
    seed: int = 1,
    limited: bool = False,
    **variables: str,
) -> AsyncIterator[Scene]:
    """Run processes of the bot, each of which is started again, with people of these kinds."""
    model.answer, model.chunk, model.delay = answer, 12, 0.03
    account = await synapse.person("parley", limited=limited)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(server(folder))
        proxies, crews = [], []
        for _ in range(processes):
            proxy = await stack.enter_async_context(in_front_of(synapse.url))
            there = matrix_variables(proxy, account, model) | variables
            there["REDIS_URL"] = f"unix://{store.socket}"
            proxies.append(proxy)
            crews.append(Crew(("matrix", "worker"), there, {}))
        running = await stack.enter_async_context(fleet(folder, crews))
        talks = []
        for kind in kinds:
            ann = await synapse.person("ann")
            room = await ann.create_room(account, direct=kind == "direct")
            talks.append(Talk(kind, ann, account, room))
        for talk in talks:
            await _has_joined(talk)
        yield Scene(synapse, account, model, store, running, proxies, talks, random.Random(seed))


async def _has_joined(talk: Talk) -> None:
    async with asyncio.timeout(60):
        while (await talk.person.members(talk.room)).get(talk.account.user_id) != "join":
            await asyncio.sleep(0.1)
