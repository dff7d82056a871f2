"""Hears an account's rooms by /sync, in one process at a time; none of what was said is missed."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from uuid import uuid4

from adapters.matrix.client import Event, TokenRefused, objects, path_of
from adapters.matrix.events import NAME, mapping, own_membership
from adapters.matrix.inbound import Inbound
from adapters.matrix.platform import MatrixPlatform
from adapters.matrix.rooms import CHANGES
from bot.concurrency import Backoff, together
from bot.errors import (
    CannotStart,
    LeaseLost,
    StoreUnavailable,
    SurfaceError,
    WriteDelayed,
    WriteFailed,
    WriteRefused,
)
from bot.store import Store

log = logging.getLogger(__name__)

_WAIT = 30.0  # seconds for which the homeserver holds a request without news
_SLOW = 90.0  # seconds that an answer may take, after a long time
_TIMELINE = 50  # events of a room in one answer; what was before is read by /messages
_MOST_READ = 1000  # events between an invitation and now
_EXPIRE_SECONDS = 30 * 24 * 3600
_PAUSES = Backoff(first=0.5, longest=30.0)
_TRIES = 6  # of an event, if the homeserver fails while it is handled
_KINDS = (
    "m.room.message",
    "m.reaction",
    "m.room.redaction",
    "m.room.encrypted",
    "m.room.tombstone",
    *CHANGES,
)
# Takes or renews the lease. KEYS: the holder, and where to go on. ARGV: the process, the
# milliseconds of its lease, and, to save it, the place and the seconds for which it is kept.
_LEASE = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if ARGV[3] then redis.call('SET', KEYS[2], ARGV[3], 'EX', ARGV[4]) end
return 1
"""


class Lease:
    """The right to hear one account, and how far it was heard. Raises StoreUnavailable."""

    def __init__(self, store: Store, *, account: str, seconds: float) -> None:
        self.seconds = seconds
        self._store, self._script = store, store.script(_LEASE)
        self._keys = [store.key(NAME, account, it) for it in ("holder", "since")]
        self._process = uuid4().hex

    async def claim(self, *place: str | int) -> bool:
        """Take the lease, or renew it; False if another process has it."""
        args = (self._process, int(self.seconds * 1000), *place)
        return bool(await self._script(keys=self._keys, args=args))

    async def save(self, since: str) -> None:
        """Save where to go on. Raises LeaseLost."""
        if not await self.claim(since, _EXPIRE_SECONDS):
            raise LeaseLost("another process hears Matrix")

    async def since(self) -> str:
        """Return where to go on; "" if the account was never heard."""
        return str(await self._store.command("GET", self._keys[1]) or "")


class Sync:
    """Hands the events of all rooms over, in the order of each room.

    How far it was heard is saved behind the last event of an answer: after a crash that answer is
    asked for again, and its events are handed over twice.
    """

    def __init__(self, platform: MatrixPlatform, inbound: Inbound, lease: Lease) -> None:
        self._client, self._downtime = platform.client, platform.downtime
        self._inbound, self._lease = inbound, lease
        self._failed: dict[str, int] = {}  # tries, by event or room

    async def run(self) -> None:
        """Hear until cancelled. Raises CannotStart if the token is refused."""
        while True:
            try:
                if await self._lease.claim():
                    log.info("Matrix: hearing the rooms of %s", self._client.user_id)
                    renewing = asyncio.create_task(self._renew())
                    await together(renewing, asyncio.create_task(self._hear()))
                self._downtime.note(is_open=True)  # another process hears
            except LeaseLost:
                log.info("Another process hears Matrix now")
            except StoreUnavailable as error:
                self._downtime.note(is_open=False)
                log.debug("Cannot hear Matrix without the store: %s", error)
            await asyncio.sleep(self._lease.seconds / 3)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._lease.seconds / 3)
            if not await self._lease.claim():
                raise LeaseLost("another process hears Matrix")
            await self._inbound.withdraw_owed()  # of the forgotten no event tells

    async def _hear(self) -> None:
        since, failures = "", 0
        while True:
            try:
                since = since or await self._begin()
                await self._inbound.withdraw_owed()
                # That it is heard (again) is known at once.
                is_open = not self._downtime.seconds()
                found = await self._ask(since, wait=_WAIT if is_open else 0.0)
                self._downtime.note(is_open=True)
                await self._handle(found, since)
                since, failures = _next(found), 0
                await self._lease.save(since)
                self._failed.clear()
            except TokenRefused as error:
                raise CannotStart(str(error)) from error
            except SurfaceError as error:
                self._downtime.note(is_open=False)
                log.warning("Matrix cannot be heard: %s", error)
                if isinstance(error, WriteRefused) and since:
                    # The homeserver does not know this place: its database is another one.
                    since = ""
                    await self._lease.save(since)
                failures += 1
                await asyncio.sleep(max(error.retry_after, _PAUSES.delay(failures)))

    async def _begin(self) -> str:
        """Return where to go on.

        An invitation comes only once, so those that wait are asked for at each start.
        """
        found = await self._ask("", wait=0.0)
        if not (since := await self._lease.since()):
            await self._lease.save(since := _next(found))
        self._invite(found)  # what is said behind the join comes after the saved place
        return since

    async def _ask(self, since: str, *, wait: float) -> Event:
        """Return the news; of all time only where to go on, and invitations."""
        none: dict[str, object] = {"types": []}
        timeline: dict[str, object] = {"types": [*_KINDS] if since else [], "limit": _TIMELINE}
        room = {"account_data": none, "ephemeral": none, "timeline": timeline}
        room["state"] = {"types": [*CHANGES] if since else [], "lazy_load_members": True}
        chosen = {"presence": none, "account_data": none, "room": room}
        query: dict[str, str | int] = {"filter": json.dumps(chosen), "timeout": int(wait * 1000)}
        if since:
            query["since"] = since
        return await self._client.call("GET", path_of("sync"), query=query, timeout=wait + _SLOW)

    async def _handle(self, found: Event, since: str) -> None:
        self._invite(found)
        joined, until = mapping(found, "rooms", "join"), _next(found)
        for room in joined:
            try:
                between = self._events(room, mapping(joined, room), since, until)
                async with aclosing(between) as events:
                    async for event in events:
                        await self._hand_over(room, event)
            except SurfaceError as error:
                self._leave_out(room, error)

    def _invite(self, found: Event) -> None:
        invited = mapping(found, "rooms", "invite")
        for room in invited:
            state = mapping(invited, room, "invite_state").get("events")
            self._inbound.on_invite(room, objects(state))

    async def _events(self, room: str, news: Event, since: str, to: str) -> AsyncGenerator[Event]:
        """Yield the state and the events of a room between two places, oldest first."""
        timeline, user = mapping(news, "timeline"), self._client.user_id
        events = objects(timeline.get("events"))
        state = objects(mapping(news, "state").get("events"))
        for one in state:
            yield one
        changes = [own_membership(one, user) for one in (*state, *events)]
        if any(now == "join" and before != "join" for before, now in changes):
            # Who has invited it may have asked at once.
            start = timeline.get("prev_batch")
            if isinstance(start, str) and not _began(events, user):
                older = self._client.messages(room, start, direction="b", types=_KINDS)
                async with aclosing(older):
                    async for one in older:
                        events.insert(0, one)
                        if _began(events, user) or len(events) >= _MOST_READ:
                            break
            began = _began(events, user)
            events = [it for it in events[:began] if "state_key" in it] + events[began:]
        elif timeline.get("limited") is True:
            # What came late from another server may stand before what is missing.
            known = [one.get("event_id") for one in events]
            async with aclosing(self._client.messages(room, since, to=to, types=_KINDS)) as missed:
                async for one in missed:
                    if one.get("event_id") not in known:
                        yield one
        for one in events:
            yield one

    async def _hand_over(self, room: str, event: Event) -> None:
        name = f"{event.get('event_id')} in {room}"
        try:
            await self._inbound.on_event(room, event)
        except StoreUnavailable:
            raise
        except SurfaceError as error:
            self._leave_out(name, error)
        except Exception:
            log.exception("Event %s cannot be handled", name)

    def _leave_out(self, what: str, error: SurfaceError) -> None:
        """Go on behind an event or a room; raise the error if another try may succeed."""
        self._failed[what] = self._failed.get(what, 0) + 1
        if isinstance(error, WriteDelayed | WriteFailed) and self._failed[what] < _TRIES:
            raise error
        log.warning("%s is left out: %s", what, error)


def _began(events: list[Event], user: str) -> int:
    """Return where the bot was invited last, or joined without; 0 if that is not among them."""
    for number, one in reversed([*enumerate(events)]):
        before, now = own_membership(one, user)
        if now == "invite" or (now == "join" and before not in ("join", "invite")):
            return number
    return 0


def _next(found: Event) -> str:
    following = found.get("next_batch")
    if not isinstance(following, str) or not following:
        raise WriteFailed("/sync does not say where to go on")
    return following
