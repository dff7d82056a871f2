"""Matrix as a platform of the workers: surfaces, files, and what earlier attempts have left."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Mapping,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager, nullcontext, suppress
from functools import partial
from typing import Any, TypeVar

from adapters.matrix import context, messages
from adapters.matrix.client import MatrixClient, path_of
from adapters.matrix.events import NAME, event_of
from adapters.matrix.markup import content_of
from adapters.matrix.messages import Address
from adapters.matrix.rooms import Rooms
from adapters.matrix.surface import MatrixSurface
from bot.concurrency import BackgroundTasks, Backoff, running
from bot.domain import ContextMessage, FileRef, Purpose, Turn
from bot.errors import MessageGone, PlaceGone, SurfaceError, WriteDelayed, WriteFailed
from bot.ports import Downtime, ReadEarlier

log = logging.getLogger(__name__)

_T = TypeVar("_T")
# Whether a message with this mark is to go.
IsOwed = Callable[[Mapping[str, Any]], Awaitable[bool]]

_TYPING_MS, _TYPING_EVERY = 30_000, 20.0  # until it ends by itself; seconds until it is sent again
_PAUSES = Backoff(first=1.0, longest=60.0)


async def insist(work: Callable[[], Awaitable[_T]], what: str) -> _T | None:
    """Repeat a request until it is answered; None if it is refused, which is only logged."""
    for pause in _PAUSES.pauses():
        try:
            return await work()
        except (WriteDelayed, WriteFailed) as error:
            await asyncio.sleep(max(error.retry_after, pause))
        except SurfaceError as error:
            log.warning("Matrix refuses %s: %s", what, error)
            break
    return None


class MatrixPlatform:
    """One account on its homeserver; any process writes with the same token.

    `jobs` is to be entered while the platform is used.
    """

    name = NAME

    def __init__(self, client: MatrixClient) -> None:
        self.client, self.rooms = client, Rooms(client)
        self.downtime = Downtime()
        self.jobs = BackgroundTasks(grace_seconds=1.0)
        self._telling = asyncio.Lock()

    @asynccontextmanager
    async def surface(
        self, turn: Turn, purpose: Purpose = Purpose.ANSWER
    ) -> AsyncIterator[MatrixSurface]:
        """Open the surface of a turn's reply; the room sees the bot type until it has ended.

        Raises PlaceGone if the turn has no address on Matrix.
        """
        surface, room = MatrixSurface(self.client, turn, purpose), Address.of(turn).room
        async with nullcontext() if purpose.has_ended else self._typing(room):
            yield surface

    async def read_context(self, turn: Turn, *, since: str, most: int) -> Sequence[ContextMessage]:
        """Return the messages before a question in its thread. Raises SurfaceError."""
        return await context.read_context(self.rooms, turn, since=since, most=most)

    def earlier(self, turn: Turn) -> ReadEarlier | None:
        """Return what reads the room or the thread of a question; None in a direct room."""
        return context.earlier(self.rooms, turn)

    async def fetch_file(self, file: FileRef) -> AsyncGenerator[bytes]:
        """Yield the bytes of a file from the homeserver, as long as its message is there.

        A homeserver keeps a file whose message is redacted. Raises SurfaceError.
        """
        room, mxc = str(file.place.get("room")), str(file.place.get("mxc"))
        event = await self.client.event(room, event_of(file.message))
        if not event.get("content"):
            raise MessageGone(f"the message of {file.id} was redacted")
        async with aclosing(self.client.download(mxc)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def orphaned_messages(self, turn: Turn, *, but: Collection[str]) -> Sequence[str]:
        """Return the pages of a turn's answer, except those in `but` that were ended."""
        found = await messages.messages_of(self.client, Address.of(turn), turn.id)
        pages = [it for it in found.values() if it.page >= 0]
        return [it.id for it in pages if it.id not in but or it.is_open]

    async def withdraw(self, room: str, event: str) -> None:
        """Remove the answer to a deleted question, or the edits and files of a deleted answer.

        A server leaves them as they are. It is tried until it is done; a failure is only logged.
        """
        work = partial(messages.withdraw, self.client, room, event)
        await insist(work, f"the removal of what belongs to {event} in {room}")

    async def withdraw_all(self, is_owed: IsOwed) -> None:
        """Redact the bot's messages that are owed, in all rooms, as `withdraw` does."""
        rooms = await insist(self.client.joined_rooms, "the list of the bot's rooms") or []
        for pause in _PAUSES.pauses():
            failed = list[str]()  # a room in which the server always fails holds up no other
            for room in rooms:
                try:
                    own = messages.own_messages(self.client, room)
                    found = [
                        it async for it in own if await is_owed(messages.mark_of(it["content"]))
                    ]
                    await messages.redact_all(self.client, room, found)
                except (WriteDelayed, WriteFailed) as error:
                    failed.append(room)
                    await asyncio.sleep(error.retry_after)
                except SurfaceError as error:
                    log.warning("Matrix refuses to remove answers in %s: %s", room, error)
            if not (rooms := failed):
                return
            await asyncio.sleep(pause)

    async def tell(self, person: str, text: str) -> None:
        """Send a person a direct message, the same one once a day. Raises SurfaceError."""
        async with self._telling:
            room = await self._direct_room(person)
        txn = messages.digest("tell", person, text, time.strftime("%j", time.gmtime()))
        await self.client.send(room, txn, content_of(text))

    async def _direct_room(self, person: str) -> str:
        """Return the direct room with a person; it is made if there is none."""
        client, known = self.client, dict[str, Any]()
        path = path_of("user", client.user_id, "account_data", "m.direct")
        with suppress(MessageGone):
            known = await client.call("GET", path)
        for room in map(str, known.get(person) or ()):
            with suppress(MessageGone, PlaceGone):
                member = path_of("rooms", room, "state", "m.room.member", person)
                if (await client.call("GET", member)).get("membership") in ("join", "invite"):
                    return room
        body = {"preset": "trusted_private_chat", "is_direct": True, "invite": [person]}
        room = str((await client.call("POST", path_of("createRoom"), body=body))["room_id"])
        await client.call("PUT", path, body={**known, person: [room]})
        return room

    @asynccontextmanager
    async def _typing(self, room: str) -> AsyncIterator[None]:
        """Show that the bot types; another reply in the room shows it again."""
        try:
            async with running(self._type_often(room)):
                yield
        finally:
            self.jobs.start(self._type(room, is_busy=False))

    async def _type_often(self, room: str) -> None:
        while True:
            await self._type(room, is_busy=True)
            await asyncio.sleep(_TYPING_EVERY)

    async def _type(self, room: str, *, is_busy: bool) -> None:
        path = path_of("rooms", room, "typing", self.client.user_id)
        body = {"typing": is_busy, "timeout": _TYPING_MS}
        try:
            await self.client.call("PUT", path, body=body)
        except SurfaceError as error:
            log.debug("Room %s: cannot show typing: %s", room, error)
