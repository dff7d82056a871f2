"""Conversations with the bot in rooms of a real Synapse."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote
from uuid import uuid4

import aiohttp

from bot.concurrency import running
from tests.chaos.talks import Forgotten, Talk, question, remark
from tests.support.matrix_proxy import MatrixProxy, disobeyed
from tests.support.synapse import Member, RefusedBySynapse, Shown, Synapse, running_synapse

_T = TypeVar("_T")
MOST_EDITS = 12
_LOOK = 0.3  # seconds between two looks at a screen
_LONGEST_LOOK = 20.0  # seconds


@dataclass
class Homeserver:
    """The server, the bot's account, and the talks there, whose screens are looked at."""

    synapse: Synapse
    account: Member
    talks: list[MatrixTalk] = field(default_factory=list)
    proxies: list[MatrixProxy] = field(default_factory=list)  # one for each process

    async def problems(self) -> AsyncIterator[str]:
        """Yield what a homeserver bears badly: too many edits, and writes that came too early."""
        for talk in self.talks:
            if (edits := await talk.edits_of_an_answer()) > MOST_EDITS:
                yield f"{talk.name} has an answer with {edits} edits"
        calls = [call for proxy in self.proxies for call in proxy.calls]
        for refused, other in disobeyed(calls):
            early = refused.ended + refused.wait - other.began
            yield f"{other.call} came {early:.2f} s too early after a 429"

    async def look(self) -> None:
        """Keep what the talks show up to date, until cancelled."""
        while True:
            for talk in self.talks:
                await talk.look()
            await asyncio.sleep(_LOOK)

    async def look_at_last(self) -> None:
        """Look at each talk once more, until the server answers."""
        for talk in self.talks:
            await patiently(talk.read)


@asynccontextmanager
async def homeserver(folder: Path, **options: object) -> AsyncIterator[Homeserver]:
    """Run a server, with an account of the bot's; `options` are lines of its configuration."""
    (folder / "synapse").mkdir()
    async with running_synapse(folder / "synapse", **options) as synapse:
        server = Homeserver(synapse, await synapse.person("parley"))
        async with running(server.look()) as looking:
            yield server
            if looking.done():  # it has failed, and the screens are old
                await looking


class MatrixTalk(Talk):
    """A "DM", the "thread" of a mention, or one in which others spoke, a "joined" one.

    Synapse is killed, too: people try again until it is there. An event comes twice only when a
    process is killed.
    """

    def __init__(self, server: Homeserver, forgotten: Forgotten, kind: str, number: int) -> None:
        super().__init__(f"M-{kind}-{number}")
        self._server, self._forgotten = server, forgotten
        self.is_joined, self._dm = kind == "joined", kind == "DM"
        self._room = self._thread = ""
        self._seen: list[Shown] = []
        server.talks.append(self)

    async def ask(self, number: int) -> bool:
        await self._open()
        self.asked.append(number)
        self._ids[number] = await self._say(self._person, self._text(number), called=True)
        if not self._dm:
            self._thread = self._thread or self._ids[number]
        return True

    async def repeat(self) -> None:
        await self.look()

    async def remark(self, number: int) -> None:
        await self._open()
        said = await self._say(self._other, remark(number), called=False)
        self.remarks.append(number)
        self._thread = self._thread or said

    async def look(self) -> None:
        """Read the bot's messages; while the server is away, what was read last stays."""
        with suppress(aiohttp.ClientError, OSError, RefusedBySynapse):
            async with asyncio.timeout(_LONGEST_LOOK):
                await self.read()

    async def read(self) -> None:
        """Read the bot's messages. Raises ClientError, OSError and RefusedBySynapse."""
        if self._room:
            screen = await self._person.screen(self._room)
            ours = [one for one in screen if one.sender == self._server.account.user_id]
            self._seen = [one for one in ours if one.thread == self._thread and one.text]

    async def edits_of_an_answer(self) -> int:
        """Return the most edits of a message with which one answer was written."""
        most, written = 0, Counter[str]()
        for event in await patiently(lambda: self._person.events(self._room)) if self._room else ():
            content = event["content"]
            relation = content.get("m.relates_to", {})
            ours = event["sender"] == self._server.account.user_id
            if ours and relation.get("rel_type") == "m.replace":
                message = relation["event_id"]
                written[message] += 1
                most = max(most, written[message])
                # What comes after its last write is another answer in the same message.
                if content["dev.parley.reply"]["last"]:
                    written[message] = 0
        return most

    def shown(self) -> list[str]:
        return [one.text for one in self._seen]

    def buttons(self) -> list[str]:
        return []

    def _messages(self) -> list[tuple[str, str]]:
        return [(one.id, one.text) for one in self._seen]

    async def _edit(self, old: int, new: int) -> None:
        event = self._ids[new] = self._ids[old]
        await self._say(self._person, self._text(new), called=True, edit_of=event)

    async def _delete(self, messages: Sequence[str], *, of: int) -> None:
        for one in messages:
            await self.remove(one)
        await self._forgotten(f"matrix:{self.message_of(of)}")

    async def remove(self, message: str) -> None:
        """Let the person redact a message."""
        path = f"rooms/{quote(self._room)}/redact/{quote(message)}/{uuid4().hex}"
        await patiently(lambda: self._person.call("PUT", path, {}))

    @property
    def person(self) -> str:
        """The id of who asks."""
        assert self._person
        return self._person.user_id

    async def say(self, text: str) -> None:
        """Let the person say something in the thread."""
        await self._say(self._person, text, called=False)

    def messages(self) -> list[str]:
        """Return the ids of the bot's messages."""
        return [one.id for one in self._seen]

    def _text(self, number: int) -> str:
        name = self._server.account.name
        return question(number) if self._dm else f"{name}: {question(number)}"

    async def _open(self) -> None:
        """Make a room with the bot in it, at first."""
        if self._room:
            return
        synapse, account = self._server.synapse, self._server.account
        self._person = await patiently(lambda: synapse.person("ann"))
        # A room of two is a direct one.
        self._other = None if self._dm else await patiently(lambda: synapse.person("ben"))
        others = [account] + ([self._other] if self._other else [])
        make = self._person.create_room
        self._room = await patiently(lambda: make(*others, direct=self._dm))
        if other := self._other:
            await patiently(lambda: other.join(self._room))
        async with asyncio.timeout(120):
            while not await patiently(self._has_joined):
                await asyncio.sleep(0.1)

    async def _has_joined(self) -> bool:
        members = await self._person.members(self._room)
        return members.get(self._server.account.user_id) == "join"

    async def _say(
        self, person: Member | None, text: str, *, called: bool, edit_of: str = ""
    ) -> str:
        """Say something once, however often it is tried."""
        assert person
        content: dict[str, Any] = {"msgtype": "m.text", "body": text, "m.mentions": {}}
        if called and not self._dm:
            content["m.mentions"] = {"user_ids": [self._server.account.user_id]}
        if edit_of:
            relation = {"rel_type": "m.replace", "event_id": edit_of}
            content = {**content, "body": f"* {text}", "m.new_content": dict(content)}
            content["m.relates_to"] = relation
        elif self._thread:
            relation = {"rel_type": "m.thread", "event_id": self._thread}
            back = {"is_falling_back": True, "m.in_reply_to": {"event_id": self._thread}}
            content["m.relates_to"] = {**relation, **back}
        path = f"rooms/{quote(self._room)}/send/m.room.message/{uuid4().hex}"
        return str((await patiently(lambda: person.call("PUT", path, content)))["event_id"])


async def patiently(call: Callable[[], Awaitable[_T]]) -> _T:
    """Return what a call to the server returns, as soon as it is there."""
    async with asyncio.timeout(120):
        while True:
            with suppress(aiohttp.ClientError, OSError):
                return await call()
            await asyncio.sleep(0.1)
