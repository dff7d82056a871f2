"""The chat of `parley_loopback.server` as a platform of Parley."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import aiohttp

from bot.concurrency import empty_stream
from bot.domain import (
    Asker,
    ContextMessage,
    EditBudget,
    FileRef,
    Finding,
    Page,
    Person,
    Purpose,
    StepNotes,
    ThreadKey,
    Turn,
)
from bot.errors import (
    MessageGone,
    PlaceGone,
    Refused,
    StoreUnavailable,
    SurfaceError,
    Unreachable,
    WriteDelayed,
    WriteFailed,
    WriteRefused,
)
from bot.intake.addressed import Facts
from bot.intake.intake import Commanded, Intake, Received
from bot.platform_spec import Connected, PlatformSpec, Process
from bot.ports import Downtime
from bot.store import Store
from config.settings import PlatformSettings, Settings
from config.variables import IdForm, setting, url
from parley_loopback.server import BOT, LONGEST

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopbackSettings(PlatformSettings):
    """LOOPBACK_URL."""

    name: ClassVar[str] = "loopback"

    url: str = setting("", url("http"), "address of the chat of the loopback example")

    @property
    def is_configured(self) -> bool:
        """Whether there is an address."""
        return bool(self.url)


@dataclass(frozen=True, slots=True)
class Client:
    """Calls the server; what goes wrong is raised in Parley's words."""

    session: aiohttp.ClientSession

    async def call(self, method: str, path: str, **body: str) -> Any:
        """Return the answer. Raises SurfaceError."""
        sent = body or None
        try:
            async with self.session.request(method, path, json=sent) as answer:
                status, after = answer.status, answer.headers.get("Retry-After", "1")
                found = await answer.json() if answer.ok else None
        except (aiohttp.ClientError, TimeoutError) as error:
            # Whether it was done is not known: it is done again, with the same key.
            raise WriteFailed(str(error) or type(error).__name__) from error
        if found is not None:
            return found
        if status == 404:
            raise MessageGone(path)
        if status == 429:
            raise WriteDelayed(path, retry_after=float(after))
        raise (WriteFailed if status >= 500 else WriteRefused)(f"{path}: {status}")


class LoopbackSurface:
    """The messages of one answer; a message's id is its number."""

    limit = LONGEST
    shows_work = False
    shows_thoughts = False
    has_buttons = False

    def __init__(self, client: Client, turn: Turn, room: str) -> None:
        self._client, self._turn, self._room = client, turn, room

    def note_step(self, steps: StepNotes) -> bool:
        """Show nothing: this chat has no sign of work."""
        return False

    def measure(self, text: str) -> int:
        """Return the characters, which are what the server counts."""
        return len(text)

    def shows_whole(self, table: str) -> bool:
        """Whether a table is shown as wide as it is; this chat takes no attachments."""
        return True

    def budget(self, page: Page, *, new: bool) -> EditBudget:
        """Return a budget of 20 writes a second for each room: the server has no limit."""
        return EditBudget(f"loopback:{self._room}", writes=20, seconds=1.0)

    async def post(self, page: Page) -> str:
        """Post a page, or take over the message that an earlier attempt has posted."""
        key = f"{self._turn.id}/{page.number}"
        found = await self._client.call(
            "POST", f"/rooms/{self._room}", author=BOT, text=page.text, key=key
        )
        if found["text"] != page.text:
            await self.edit(str(found["id"]), page)
        return str(found["id"])

    async def edit(self, message_id: str, page: Page) -> None:
        """Change a message, or delete it."""
        path = f"/messages/{message_id}"
        if page.text:
            await self._client.call("PATCH", path, text=page.text)
        else:
            await self._client.call("DELETE", path)


class LoopbackPlatform:
    """The chat; every person in a room talks in the room's one thread."""

    name = "loopback"

    def __init__(self, client: Client) -> None:
        self._client = client
        self.downtime = Downtime()

    @asynccontextmanager
    async def surface(
        self, turn: Turn, purpose: Purpose = Purpose.ANSWER
    ) -> AsyncIterator[LoopbackSurface]:
        """Open the surface of a turn's reply."""
        yield LoopbackSurface(self._client, turn, _room(turn))

    async def read_context(self, turn: Turn, *, since: str, most: int) -> Sequence[ContextMessage]:
        """Return the room's messages between a turn, or the beginning, and the question."""
        after, asked = _number(since), _number(turn.id)
        messages = await self._client.call("GET", f"/rooms/{_room(turn)}")
        found = [
            ContextMessage(
                id=f"loopback:{one['id']}",
                person=None if one["author"] == BOT else Person(one["author"], one["author"]),
                text=one["text"],
                in_thread=one["author"] != BOT,
            )
            for one in messages
            if after < one["id"] < asked
        ]
        return found[-most:] if most else []

    def earlier(self, turn: Turn) -> None:
        """Return nothing: `read_context` reads all that matters here."""

    def fetch_file(self, file: FileRef) -> AsyncGenerator[bytes]:
        """Yield nothing: no message here has a file."""
        return empty_stream()

    async def orphaned_messages(self, turn: Turn, *, but: Collection[str]) -> Sequence[str]:
        """Return the messages of a turn's answer that nobody has recorded."""
        messages = await self._client.call("GET", f"/rooms/{_room(turn)}")
        own = [str(one["id"]) for one in messages if one["key"].startswith(f"{turn.id}/")]
        return [one for one in own if one not in but]

    async def listen(self, intake: Intake, *, store: Store) -> None:
        """Hand over what people do until cancelled; after a crash it is handed over again."""
        place = store.key("loopback", "events")
        while True:
            try:
                after = int(await store.command("GET", place) or 0)
                found = await self._client.call("GET", f"/events?after={after}")
                self.downtime.note(is_open=True)
                for number, event in enumerate(found, start=after + 1):
                    await self._handle(intake, event)
                    await store.command("SET", place, number)
            except (SurfaceError, StoreUnavailable) as error:
                self.downtime.note(is_open=False)
                log.warning("The loopback chat cannot be heard: %s", error)
                await asyncio.sleep(1.0)

    async def _handle(self, intake: Intake, event: dict[str, Any]) -> None:
        turn_id = f"loopback:{event['id']}"
        if event["what"] == "deleted":
            await intake.changes.forget(turn_id)
            return
        person, room = Person(event["author"], event["author"]), event["room"]
        mention, text = f"@{BOT}", event["text"]
        turn = Turn(
            id=turn_id,
            key=ThreadKey("loopback", "", room, room),
            person=person,
            text=text.removeprefix(mention).strip(),
            place={"room": room},
            asked_at=time.time(),
            where=room,
            asker=Asker(),
        )
        outcome = await intake.receive(
            Received(
                turn=turn,
                facts=Facts(calls_bot=text.startswith(mention)),
                people=[person.id],
                stops_in=room,
            )
        )
        if isinstance(outcome, Refused) and not outcome.repeated:
            said = outcome.apology
        elif isinstance(outcome, Commanded):
            said = f"Begin a message with {mention}, and I answer."
        else:
            return
        path = f"/rooms/{room}"
        await self._client.call("POST", path, author=BOT, text=said, key=f"notice {turn_id}")


def _room(turn: Turn) -> str:
    room = turn.place.get("room")
    if not isinstance(room, str):
        raise PlaceGone("the turn has no room")
    return room


def _number(turn_id: str) -> int:
    number = turn_id.rpartition(":")[2]
    return int(number) if number.isdecimal() else 0


@asynccontextmanager
async def _connect(process: Process) -> AsyncIterator[Connected]:
    address = LoopbackSettings.of(process.settings).url
    async with aiohttp.ClientSession(address) as session:
        client = Client(session)
        try:
            await client.call("GET", "/rooms/lobby")
        except SurfaceError as error:
            raise Unreachable(f"LOOPBACK_URL={address}: {error}") from error
        platform = LoopbackPlatform(client)
        platform.downtime.note(is_open=True)
        listen = partial(platform.listen, process.intake, store=process.store)
        yield Connected(platform, listen, platform.downtime.seconds)


async def _examine(settings: Settings) -> AsyncIterator[Finding]:
    address = LoopbackSettings.of(settings).url
    async with aiohttp.ClientSession(address) as session:
        found = await Client(session).call("GET", "/rooms/lobby")
        yield Finding("Loopback", f"The chat answers, with {len(found)} messages in the lobby")


PLATFORM = PlatformSpec(
    title="Loopback",
    where="a chat on this machine",
    settings=LoopbackSettings,
    connect=_connect,
    ids={"channel": IdForm("[a-z]+", "lobby"), "person": IdForm("[a-z]+", "ann")},
    ids_help="those of the loopback chat are names in small letters",
    credential="LOOPBACK_URL",
    examine=_examine,
)
