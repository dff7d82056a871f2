"""Hears an account's rooms by /sync, in one process at a time; none of what was said is missed."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import uuid4

from adapters.matrix.client import Event, MatrixClient, TokenRefused, objects, path_of
from adapters.matrix.events import NAME, mapping, time_of
from adapters.matrix.inbound import Inbound, own_membership
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
from bot.ports import Downtime
from bot.store import Store

log = logging.getLogger(__name__)

_WAIT = 30.0  # seconds for which the homeserver holds a request without news
_TIMELINE = 50  # events of a room in one answer; what was before is read by /messages
PATIENCE = 3600.0  # seconds: after a longer outage, older questions are not answered any more
_EXPIRE_SECONDS = 30 * 24 * 3600
_PAUSES = Backoff(first=0.5, longest=30.0)
_TRIES = 6  # of an event, if the homeserver fails while it is handled
_MOST_PAGES = 10  # between an invitation and now
_KINDS = (
    *("m.room.message", "m.reaction", "m.room.redaction", "m.room.encrypted", *CHANGES),
    *("m.room.power_levels", "m.room.history_visibility"),
)
_FILTER = {
    "presence": {"types": []},
    "account_data": {"types": []},
    "room": {
        "account_data": {"types": []},
        "ephemeral": {"types": []},
        "state": {"types": [*CHANGES], "lazy_load_members": True},
        "timeline": {"types": [*_KINDS], "limit": _TIMELINE, "lazy_load_members": True},
    },
}
# Only the invitations, and where to go on.
_FIRST = {
    **_FILTER,
    "room": {
        "account_data": {"types": []},
        "ephemeral": {"types": []},
        "state": {"types": []},
        "timeline": {"types": [], "limit": 1},
    },
}
# KEYS: the holder, and where to go on. ARGV: what to do, the process, milliseconds or seconds of an
# expiry, and the place.
_LEASE = """
local holder = redis.call('GET', KEYS[1])
if ARGV[1] == 'release' then
  if holder == ARGV[2] then redis.call('DEL', KEYS[1]) end
  return 1
end
if holder and holder ~= ARGV[2] then return 0 end
if ARGV[1] == 'claim' then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
elseif not holder then
  return 0
else
  redis.call('SET', KEYS[2], ARGV[4], 'EX', ARGV[3])
end
return 1
"""


@dataclass(frozen=True, slots=True)
class _Progress:
    """Where to go on, and when that was saved, in seconds since the epoch."""

    since: str
    at: float


class Lease:
    """The right to hear one account, and how far it was heard. Raises StoreUnavailable."""

    def __init__(self, store: Store, *, account: str, seconds: float) -> None:
        self.seconds = seconds
        self._store = store
        self._keys = [store.key(NAME, account, it) for it in ("holder", "since")]
        self._script = store.script(_LEASE)
        self._process = uuid4().hex

    async def claim(self) -> bool:
        """Take the lease, or renew it; False if another process has it."""
        return bool(await self._run("claim", int(self.seconds * 1000)))

    async def save(self, since: str) -> None:
        """Save where to go on. Raises LeaseLost."""
        place = json.dumps({"since": since, "at": time.time()})
        if not await self._run("save", _EXPIRE_SECONDS, place):
            raise LeaseLost("another process hears Matrix")

    async def progress(self) -> _Progress | None:
        """Return where to go on; None if the account was never heard."""
        saved = await self._store.command("GET", self._keys[1])
        try:
            found = json.loads(saved or "null")
            return _Progress(str(found["since"]), float(found["at"]))
        except (ValueError, TypeError, KeyError):
            return None

    async def release(self) -> None:
        """Let another process hear at once."""
        await self._run("release", 0)

    async def _run(self, verb: str, expiry: int, place: str = "") -> int:
        answer: int = await self._script(keys=self._keys, args=(verb, self._process, expiry, place))
        return answer


class Sync:
    """Hands the events of all rooms over, in the order of each room.

    How far it was heard is saved behind the last event of an answer: after a crash that answer is
    asked for again, and its events are handed over twice.
    """

    def __init__(
        self,
        client: MatrixClient,
        inbound: Inbound,
        lease: Lease,
        *,
        downtime: Downtime,
        patience: float = PATIENCE,
    ) -> None:
        self._client, self._inbound = client, inbound
        self._lease, self._downtime = lease, downtime
        self._patience = patience
        self._failed: dict[object, int] = {}  # tries, by event

    async def run(self) -> None:
        """Hear until cancelled. Raises CannotStart if the token is refused."""
        pause = self._lease.seconds / 3
        while True:
            try:
                if await self._lease.claim():
                    await self._hold()
                else:
                    self._downtime.note(is_open=True)  # another process hears
            except LeaseLost:
                log.info("Another process hears Matrix now")
            except StoreUnavailable as error:
                self._downtime.note(is_open=False)
                log.debug("Cannot ask who hears Matrix: %s", error)
            await asyncio.sleep(pause)

    async def _hold(self) -> None:
        try:
            await together(*map(asyncio.create_task, (self._renew(), self._hear())))
        finally:
            with suppress(StoreUnavailable, TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._lease.release()

    async def _renew(self) -> None:
        clock = asyncio.get_running_loop().time
        ends_at = clock() + self._lease.seconds
        while True:
            await asyncio.sleep(self._lease.seconds / 3)
            asked = clock()
            try:
                if not await self._lease.claim():
                    raise LeaseLost("another process hears Matrix")
                ends_at = asked + self._lease.seconds
            except StoreUnavailable:
                if clock() > ends_at:
                    raise

    async def _hear(self) -> None:
        since, oldest, begins, failures = "", 0.0, True, 0
        while True:
            try:
                if begins:
                    since, oldest = await self._begin()
                    begins = False
                # That it is heard (again) is known at once.
                is_open = not self._downtime.seconds()
                found = await self._ask(since, _FILTER, wait=_WAIT if is_open else 0.0)
                self._downtime.note(is_open=True)
                await self._handle(found, since, oldest=oldest)
                since, oldest, failures = _next(found), 0.0, 0
                await self._lease.save(since)
                self._failed.clear()
            except TokenRefused as error:
                raise CannotStart(str(error)) from error
            except (SurfaceError, StoreUnavailable) as error:
                self._downtime.note(is_open=False)
                log.warning("Matrix cannot be heard: %s", error)
                if isinstance(error, WriteRefused) and since:
                    # The homeserver does not know this place: its database is another one.
                    await self._lease.save("")
                    begins = True
                failures += 1
                await asyncio.sleep(_PAUSES.delay(failures))

    async def _begin(self) -> tuple[str, float]:
        """Return where to go on, and before which time nothing is answered.

        Invitations come only once, so those that wait are asked for at each start.
        """
        saved = await self._lease.progress()
        found = await self._ask("", _FIRST, wait=0.0)
        self._invite(found)
        if not saved or not saved.since:
            await self._lease.save(_next(found))
            return _next(found), 0.0
        now = time.time()
        return saved.since, now - self._patience if now - saved.at > self._patience else 0.0

    async def _ask(self, since: str, chosen: object, *, wait: float) -> Event:
        query: dict[str, str | int] = {"filter": json.dumps(chosen), "timeout": int(wait * 1000)}
        if since:
            query["since"] = since
        return await self._client.call("GET", path_of("sync"), query=query, timeout=wait + 30.0)

    async def _handle(self, found: Event, since: str, *, oldest: float) -> None:
        self._invite(found)
        rooms = mapping(found, "rooms")
        for room in mapping(rooms, "leave"):
            self._inbound.on_left(room)
        joined = mapping(rooms, "join")
        for room in joined:
            async for event in self._events(room, mapping(joined, room), since):
                if time_of(event) >= oldest:
                    await self._hand_over(room, event)

    def _invite(self, found: Event) -> None:
        invited = mapping(mapping(found, "rooms"), "invite")
        for room in invited:
            state = mapping(mapping(invited, room), "invite_state")
            self._inbound.on_invite(room, objects(state.get("events")))

    async def _events(self, room: str, joined: object, since: str) -> AsyncIterator[Event]:
        """Yield the events of a room since the last answer, oldest first."""
        parts = joined if isinstance(joined, dict) else {}
        timeline = mapping(parts, "timeline")
        events = objects(timeline.get("events"))
        state = objects(mapping(parts, "state").get("events"))
        user = self._client.user_id
        for one in state:
            self._inbound.on_state(room, one)
        if any(own_membership(one, user) == "join" for one in (*state, *events)):
            await self._inbound.on_joined(room)
            for one in await self._since_invited(room, events, timeline.get("prev_batch")):
                yield one
            return
        if timeline.get("limited") is True and since:
            until = events[0].get("event_id") if events else None
            async for one in self._between(room, since, until):
                yield one
        for one in events:
            yield one

    async def _between(self, room: str, since: str, until: object) -> AsyncIterator[Event]:
        """Yield the events of a room behind a place, and before the event `until`."""
        query: dict[str, str | int] = {"dir": "f", "from": since, "limit": 100}
        query["filter"] = json.dumps({"types": [*_KINDS], "lazy_load_members": True})
        while True:
            page = await self._client.call("GET", path_of("rooms", room, "messages"), query=query)
            events = objects(page.get("chunk"))
            for one in events:
                if one.get("event_id") == until:
                    return
                yield one
            end = page.get("end")
            if not events or not isinstance(end, str) or end == query["from"]:
                return
            query["from"] = end

    async def _since_invited(
        self, room: str, events: list[Event], before: object
    ) -> Sequence[Event]:
        """Return the events of a room that the bot has joined, from its invitation on.

        Who has invited it may have asked at once.
        """
        found = events
        for _ in range(_MOST_PAGES):
            marks = [own_membership(one, self._client.user_id) for one in found]
            if "invite" in marks:
                return found[len(marks) - 1 - marks[::-1].index("invite") :]
            if not isinstance(before, str):
                break
            query: dict[str, str | int] = {"dir": "b", "from": before, "limit": 100}
            query["filter"] = json.dumps({"types": [*_KINDS]})
            page = await self._client.call("GET", path_of("rooms", room, "messages"), query=query)
            chunk, before = objects(page.get("chunk")), page.get("end")
            found = [*chunk[::-1], *found]
            if not chunk:
                break
        marks = [own_membership(one, self._client.user_id) for one in found]
        # It joined without an invitation: what was said before is not for it.
        return found[marks.index("join") :] if "join" in marks else events

    async def _hand_over(self, room: str, event: Event) -> None:
        id_ = event.get("event_id")
        try:
            await self._inbound.on_event(room, event)
        except (StoreUnavailable, LeaseLost):
            raise
        except (WriteDelayed, WriteFailed) as error:
            self._failed[id_] = self._failed.get(id_, 0) + 1
            if self._failed[id_] < _TRIES:
                raise
            log.error("Event %s in %s is left out: %s", id_, room, error)  # noqa: TRY400 - known
        except SurfaceError as error:
            log.warning("Event %s in %s is left out: %s", id_, room, error)
        except Exception:
            log.exception("Event %s in %s cannot be handled", id_, room)


def _next(found: Event) -> str:
    following = found.get("next_batch")
    if not isinstance(following, str) or not following:
        raise WriteFailed("/sync says nowhere where to go on")
    return following
