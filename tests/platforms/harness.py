"""Each platform as the conformance suite needs it: a place to ask in, and the screen."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from adapters import live
from adapters.discord.reply.channel import ChannelAddress
from bot.app import http
from bot.app.platforms import all_specs
from bot.domain import Person, ThreadKey, Turn
from bot.platform_spec import Connected, PlatformSpec, Process
from bot.reply.edit_budget import EditBudgets
from bot.store import Store
from config.settings import Settings
from tests.emulators.discord import DiscordEmulator
from tests.emulators.slack import SlackEmulator
from tests.support.discord_platform import FAST
from tests.support.fakes import FakeQueue
from tests.support.matrix_proxy import MatrixProxy, in_front_of
from tests.support.settings import settings_of
from tests.support.slack_platform import UNLIMITED
from tests.support.synapse import SERVER, Member, Synapse

LOOPBACK = Path(__file__).parents[2] / "examples" / "loopback"


class Harness(Protocol):
    """One platform, as people see it."""

    name: str

    @property
    def settings(self) -> Settings:
        """The settings with which a process reaches it."""
        ...

    async def ask(self, text: str = "why?") -> Turn:
        """Say something to the bot, and return the turn that it becomes."""
        ...

    async def shown(self, turn: Turn) -> list[str]:
        """Return the messages of the bot where it answers the turn, oldest first."""
        ...


class PeopledHarness(Harness, Protocol):
    """A platform with a server, on which others write, and where calls fail."""

    async def ask_after(self, *texts: str) -> Turn:
        """Ask in a thread in which another person has said this."""
        ...

    async def delete(self, turn: Turn, message_id: str = "") -> None:
        """Let somebody delete a message of the answer, or else the question."""
        ...

    def lose_the_answer_to_a_post(self) -> None:
        """Let the next post arrive, and its answer not."""
        ...

    def ask_to_wait(self, seconds: int) -> None:
        """Refuse the next edit, because there are too many."""
        ...


@dataclass
class Discord:
    """The emulated Discord."""

    emulator: DiscordEmulator
    name: str = "discord"

    @property
    def settings(self) -> Settings:
        return settings_of(
            discord_token=self.emulator.token,
            discord_api_url=self.emulator.api_url,
            discord_gateway_url=self.emulator.gateway_url,
        )

    async def ask(self, text: str = "why?") -> Turn:
        ada = self.emulator.user("Ada")
        channel = self.emulator.channel_id
        asked = await self.emulator.say(channel, ada, f"<@{self.emulator.bot_id}> {text}")
        place = ChannelAddress(int(channel), int(asked), opens_thread=False)
        key = ThreadKey("discord", self.emulator.guild_id, channel, channel)
        id_ = f"discord:{asked}"
        return Turn(id_, key, Person(ada, "Ada"), text, place.to_json(), time.time())

    async def shown(self, turn: Turn) -> list[str]:
        found = self.emulator.screen(str(turn.place["channel"]))
        return [one.text for one in found if one.author_id == self.emulator.bot_id]

    async def ask_after(self, *texts: str) -> Turn:
        discord, ben = self.emulator, self.emulator.user("Ben")
        begun = await discord.say(discord.channel_id, ben, "Let us talk of rain.")
        thread = await discord.open_thread(begun, ben, "Rain")
        for text in texts:
            await discord.say(thread, ben, text)
        asked = await discord.say(thread, ben, f"<@{discord.bot_id}> why?")
        place = ChannelAddress(int(thread), int(asked), opens_thread=False).to_json()
        key = ThreadKey("discord", discord.guild_id, discord.channel_id, thread)
        return Turn(f"discord:{asked}", key, Person(ben, "Ben"), "why?", place, time.time())

    async def delete(self, turn: Turn, message_id: str = "") -> None:
        message = message_id or turn.id.removeprefix("discord:")
        await self.emulator.delete(message)

    def lose_the_answer_to_a_post(self) -> None:
        self.emulator.fail("POST /channels/.*/messages", "drop", applied=True)

    def ask_to_wait(self, seconds: int) -> None:
        self.emulator.fail("PATCH", status=429, retry_after=seconds)


@dataclass
class Slack:
    """The emulated Slack."""

    emulator: SlackEmulator
    name: str = "slack"

    @property
    def settings(self) -> Settings:
        return settings_of(
            slack_bot_token=self.emulator.bot_token,
            slack_app_token=self.emulator.app_token,
            slack_api_url=self.emulator.api_url,
        )

    async def ask(self, text: str = "why?") -> Turn:
        slack, channel = self.emulator, self.emulator.channel_id
        ada = slack.user("Ada")
        ts = await slack.say(channel, ada, f"{slack.bot_mention} {text}")
        return Turn(
            id=f"slack:{slack.team_id}:{channel}:{ts}",
            key=ThreadKey("slack", slack.team_id, channel, ts),
            person=Person(ada, "Ada"),
            text=text,
            place={"channel": channel, "thread": ts, "question": ts},
            asked_at=time.time(),
        )

    async def shown(self, turn: Turn) -> list[str]:
        thread = str(turn.place["thread"])
        return [one.text for one in self.emulator.screen(str(turn.place["channel"]), thread)[1:]]

    async def ask_after(self, *texts: str) -> Turn:
        slack, ben, channel = self.emulator, self.emulator.user("Ben"), self.emulator.channel_id
        thread = await slack.say(channel, ben, "Let us talk of rain.")
        for text in texts:
            await slack.say(channel, ben, text, thread_ts=thread)
        asked = await slack.say(channel, ben, f"{slack.bot_mention} why?", thread_ts=thread)
        place = {"channel": channel, "thread": thread, "question": asked}
        key = ThreadKey("slack", slack.team_id, channel, thread)
        id_ = f"slack:{slack.team_id}:{channel}:{asked}"
        return Turn(id_, key, Person(ben, "Ben"), "why?", place, time.time())

    async def delete(self, turn: Turn, message_id: str = "") -> None:
        channel = str(turn.place["channel"])
        ts = message_id.rpartition(":")[2] or str(turn.place["question"])
        await self.emulator.delete(channel, ts)

    def lose_the_answer_to_a_post(self) -> None:
        self.emulator.fail("chat.postMessage|chat.startStream", "drop", applied=True)

    def ask_to_wait(self, seconds: int) -> None:
        self.emulator.fail("chat.update", status=429, retry_after=seconds)


_POSTS = r"PUT .*/send/m\.room\.message/.*"


@dataclass
class Matrix:
    """A room of a real Synapse, which the bot reaches through a proxy."""

    proxy: MatrixProxy
    bot: Member
    ann: Member  # who made the room, and may redact in it what others say
    ben: Member
    room: str
    name: str = "matrix"

    @property
    def settings(self) -> Settings:
        return settings_of(matrix_homeserver=self.proxy.url, matrix_token=self.bot.token)

    async def ask(self, text: str = "why?") -> Turn:
        asked = await self.ann.say(self.room, f"{self.bot.name}: {text}", to=[self.bot])
        return self._turn(self.ann, text, asked, thread=asked)

    async def shown(self, turn: Turn) -> list[str]:
        screen = await self.ann.screen(self.room)
        ours = [one for one in screen if one.sender == self.bot.user_id]
        return [one.text for one in ours if one.thread == turn.place["thread"]]

    async def ask_after(self, *texts: str) -> Turn:
        begun = await self.ben.say(self.room, "Let us talk of rain.")
        for text in texts:
            await self.ben.say(self.room, text, thread=begun)
        asked = await self.ben.say(self.room, f"{self.bot.name}: why?", to=[self.bot], thread=begun)
        return self._turn(self.ben, "why?", asked, thread=begun)

    async def delete(self, turn: Turn, message_id: str = "") -> None:
        await self.ann.redact(self.room, message_id or str(turn.place["question"]))

    def lose_the_answer_to_a_post(self) -> None:
        self.proxy.lose_answer(_POSTS)

    def ask_to_wait(self, seconds: int) -> None:
        self.proxy.refuse(seconds, _POSTS)

    def _turn(self, person: Member, text: str, asked: str, *, thread: str) -> Turn:
        return Turn(
            id=f"matrix:{asked}",
            key=ThreadKey("matrix", SERVER, self.room, thread),
            person=Person(person.user_id, person.name),
            text=text,
            place={"room": self.room, "thread": thread, "question": asked},
            asked_at=time.time(),
        )


@asynccontextmanager
async def matrix(synapse: Synapse) -> AsyncIterator[Matrix]:
    bot, ann, ben = [await synapse.person(name) for name in ("parley", "ann", "ben")]
    room = await ann.create_room(bot, ben)
    for one in (bot, ben):
        await one.join(room)
    async with in_front_of(synapse.url) as proxy:
        yield Matrix(proxy, bot, ann, ben, room)


@dataclass
class Local:
    """The page or the terminal, whose replies are in Redis."""

    name: str
    store: Store

    @property
    def settings(self) -> Settings:
        return settings_of()

    async def ask(self, text: str = "why?") -> Turn:
        key = ThreadKey(self.name, "", "ann", f"talk-{time.monotonic_ns()}")
        return Turn(f"{self.name}:ann:{key.thread}", key, Person("ann", "Ann"), text, {}, 1.0)

    async def shown(self, turn: Turn) -> list[str]:
        stream, text = live.stream_of(self.store, turn.key), ""
        for _, _, change in await live.read(self.store, {stream: "0-0"}, block_seconds=0.1):
            if not change.look:
                text = change.applied(text) or ""
        return [text] if text else []


@dataclass
class Loopback:
    """The chat of the example, an installed package."""

    chat: Any
    address: str
    faults: list[Callable[[web.Request, web.StreamResponse], web.StreamResponse | None]]
    name: str = "loopback"

    @property
    def settings(self) -> Settings:
        return settings_of(loopback_url=self.address)

    async def ask(self, text: str = "why?") -> Turn:
        asked = self.chat.say("lobby", "ann", f"@parley {text}")
        key = ThreadKey("loopback", "", "lobby", "lobby")
        id_ = f"loopback:{asked.id}"
        return Turn(id_, key, Person("ann", "ann"), text, {"room": "lobby"}, time.time())

    async def shown(self, turn: Turn) -> list[str]:
        room = self.chat.room(str(turn.place["room"]))
        return [one.text for one in room if one.author == "parley"]

    async def ask_after(self, *texts: str) -> Turn:
        for text in texts:
            self.chat.say("lobby", "ben", text)
        return await self.ask()

    async def delete(self, turn: Turn, message_id: str = "") -> None:
        self.chat.delete(int(message_id or turn.id.removeprefix("loopback:")))

    def lose_the_answer_to_a_post(self) -> None:
        self._once("POST", lambda: web.Response(status=502))

    def ask_to_wait(self, seconds: int) -> None:
        headers = {"Retry-After": str(seconds)}
        self._once("PATCH", lambda: web.Response(status=429, headers=headers))

    def _once(self, method: str, answer: Callable[[], web.Response]) -> None:
        def fault(request: web.Request, _: web.StreamResponse) -> web.StreamResponse | None:
            if request.method != method:
                return None
            self.faults.clear()
            return answer()

        self.faults.append(fault)


@asynccontextmanager
async def loopback() -> AsyncIterator[Loopback]:
    from parley_loopback.server import Chat, application  # type: ignore[import-not-found]

    chat, faults = Chat(), list[Any]()

    @web.middleware
    async def broken(request: web.Request, handler: Any) -> web.StreamResponse:
        answer: web.StreamResponse = await handler(request)
        return next((bad for fault in faults if (bad := fault(request, answer))), answer)

    app = application(chat)
    app.middlewares.append(broken)
    async with TestServer(app) as server:
        yield Loopback(chat, str(server.make_url("/")).rstrip("/"), faults)


@asynccontextmanager
async def harness_of(
    name: str, store: Store, synapse: Synapse | None = None
) -> AsyncIterator[Harness]:
    """Run a platform; that of Matrix is a `synapse`."""
    if name == "discord":
        async with DiscordEmulator(gateway=FAST) as discord:
            yield Discord(discord)
    elif name == "slack":
        methods = "postMessage", "update", "startStream", "appendStream", "stopStream"
        rates = {f"chat.{method}": UNLIMITED for method in methods}
        async with SlackEmulator(rates=rates) as slack:
            yield Slack(slack)
    elif name == "loopback":
        async with loopback() as found:
            yield found
    elif synapse:
        async with matrix(synapse) as room:
            yield room
    else:
        yield Local(name, store)


def spec_of(name: str) -> PlatformSpec:
    return next(spec for spec in all_specs() if spec.name == name)


def process_of(
    harness: Harness, store: Store, queue: FakeQueue | None = None, *, hears: bool = False
) -> Process:
    """Return a process that writes to the platform, and `hears` its people for this queue."""
    return Process(
        settings=replace(harness.settings, data_dir=Path("unused")),
        roles=frozenset([harness.name] if hears else []),
        store=store,
        budgets=EditBudgets(store=store),
        intake=(queue or FakeQueue()).intake,
        serve_pages=http.serve_pages,
        trust=http.trust,
        answers_from="a test",
    )


def connecting(harness: Harness, store: Store) -> AbstractAsyncContextManager[Connected]:
    return spec_of(harness.name).connect(process_of(harness, store))


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Sequence[str]:
    """Let the example count as an installed package; return what PYTHONPATH needs for that."""
    information = folder / "parley_loopback-0.2.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Name: parley-loopback\nVersion: 0.2\n")
    entry = "[parley.platforms]\nloopback = parley_loopback.platform:PLATFORM\n"
    (information / "entry_points.txt").write_text(entry)
    paths = [str(LOOPBACK), str(folder)]
    for path in paths:
        monkeypatch.syspath_prepend(path)
    all_specs.cache_clear()
    return paths


def uninstalled() -> None:
    all_specs.cache_clear()
    for name in [name for name in sys.modules if name.startswith("parley_loopback")]:
        del sys.modules[name]
