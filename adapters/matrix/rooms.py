"""What is known of rooms and their members, looked up once and kept for a while."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from adapters.matrix.client import CLIENT, Event, MatrixClient, objects, path_of
from bot.cache import BoundedCache
from bot.errors import MessageGone, PlaceGone, SurfaceError, WriteRefused
from bot.text.sanitize import one_line

log = logging.getLogger(__name__)

_KEPT = 600.0  # seconds; what /sync reports of a small room is dropped at once
_NAME = 80  # characters
_DEFAULT_LEVEL = 50  # v1.11, m.room.power_levels: to redact what others have written
# A later event of these kinds may make a room another one.
CHANGES = ("m.room.canonical_alias", "m.room.encryption", "m.room.member", "m.room.name")


@dataclass(frozen=True, slots=True)
class Room:
    """A room as it is now.

    `is_direct`: one person and the bot are alone in it, nobody else is invited, and it was made for
    that, or has no name. A third member makes it another room.
    """

    name: str
    is_direct: bool
    is_encrypted: bool
    is_small: bool


class Rooms:
    """Knows the rooms of an account. What asks the homeserver raises SurfaceError."""

    def __init__(self, client: MatrixClient) -> None:
        self.client = client
        self._rooms: BoundedCache[str, Room] = BoundedCache()
        self._state: BoundedCache[tuple[str, str, str], Event] = BoundedCache(capacity=5000)
        self._events: BoundedCache[tuple[str, str], Event] = BoundedCache()

    def note(self, room: str, event: Event) -> None:
        """Drop what an event of /sync makes old."""
        kind, key = event.get("type"), event.get("state_key")
        if not isinstance(key, str) or not isinstance(kind, str):
            return
        self._state.drop((room, kind, key))
        known = self._rooms.get(room)
        if kind in CHANGES and known and (known.is_small or kind != "m.room.member"):
            self._rooms.drop(room)

    def drop(self, room: str) -> None:
        """Forget a room that the bot has left, or joined anew."""
        self._rooms.drop(room)

    async def room(self, room: str) -> Room:
        """Return what is known of a room."""
        if not (found := self._rooms.get(room)):
            found = await self._look_up(room)
            self._rooms.put(room, found, seconds=_KEPT)
        return found

    async def name(self, room: str, user: str) -> str:
        """Return the name of a member; their id if it cannot be read."""
        try:
            content = await self._content(room, "m.room.member", user)
        except SurfaceError as error:
            log.debug("The name of %s in %s is not known: %s", user, room, error)
            content = {}
        name = content.get("displayname")
        return (one_line(name)[:_NAME].strip() if isinstance(name, str) else "") or user

    async def shows_history(self, room: str) -> bool:
        """Whether every member may read what was said before they came."""
        content = await self._content(room, "m.room.history_visibility", "")
        # v1.11, "Room history visibility": "shared" is the default.
        return content.get("history_visibility", "shared") in ("shared", "world_readable")

    async def manages(self, room: str, user: str) -> bool:
        """Whether a person may delete what others have written."""
        content = await self._content(room, "m.room.power_levels", "")
        users = content.get("users")
        own = users.get(user) if isinstance(users, dict) else None
        level = _number(own, _number(content.get("users_default"), 0))
        if level >= _number(content.get("redact"), _DEFAULT_LEVEL):
            return True
        # Since room version 12 its creators are above all levels, and are not listed there.
        made = await self._content(room, "m.room.create", "", whole=True)
        how = made.get("content")
        if not isinstance(how, dict) or _number(how.get("room_version"), 1) < 12:
            return False
        more = how.get("additional_creators")
        return user == made.get("sender") or (isinstance(more, list) and user in more)

    async def event(self, room: str, event: str) -> Event:
        """Return an event, from memory if it was read before; raises MessageGone."""
        if not (found := self._events.get((room, event))):
            found = await self.client.event(room, event)
            self._events.put((room, event), found, seconds=_KEPT)
        return found

    async def _look_up(self, room: str) -> Room:
        path = path_of("room_summary", room, base=f"{CLIENT}/v1")
        found: Event
        try:
            found = await self.client.call("GET", path)  # v1.15
            count = _number(found.get("num_joined_members"), 3)
        except (MessageGone, WriteRefused):
            count = 2
            found = {to: (await self._content(room, kind, "")).get(of) for to, kind, of in _STATES}
        name = _text(found.get("name")) or _text(found.get("canonical_alias"))
        is_direct = False
        if count <= 2:
            members = await self.client.call("GET", path_of("rooms", room, "members"))
            is_direct = _is_direct(objects(members.get("chunk")), named=bool(name))
        return Room(name, is_direct, bool(found.get("encryption")), is_small=count <= 2)

    async def _content(self, room: str, kind: str, key: str, *, whole: bool = False) -> Event:
        """Return the content of a state event; {} if there is none."""
        if (known := self._state.get((room, kind, key))) is not None:
            return known
        path = path_of("rooms", room, "state", kind, key)
        found: Event
        try:
            query = {"format": "event"} if whole else None  # Synapse 1.163; others give the content
            found = await self.client.call("GET", path, query=query)
        except MessageGone:
            found = {}
        except PlaceGone:  # of a room that was left
            return {}
        self._state.put((room, kind, key), found, seconds=_KEPT)
        return found


_STATES = (
    ("name", "m.room.name", "name"),
    ("canonical_alias", "m.room.canonical_alias", "alias"),
    ("encryption", "m.room.encryption", "algorithm"),
)


def _is_direct(members: list[Event], *, named: bool) -> bool:
    contents = [one["content"] for one in members if isinstance(one.get("content"), dict)]
    there = [one for one in contents if one.get("membership") in ("join", "invite")]
    # Who accepts an invitation has no mark of it any more; the event before has.
    unsigned = [one["unsigned"] for one in members if isinstance(one.get("unsigned"), dict)]
    before = [one["prev_content"] for one in unsigned if isinstance(one.get("prev_content"), dict)]
    marked = any(one.get("is_direct") is True for one in (*contents, *before))
    return len(there) == 2 and (marked or not named)


def _number(value: object, default: int) -> int:
    # Old rooms have levels in quotes (v1.11, m.room.power_levels, before room version 10).
    if isinstance(value, str) and value.strip().removeprefix("-").isdecimal():
        value = int(value[:20])
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _text(value: object) -> str:
    return one_line(value)[:_NAME].strip() if isinstance(value, str) else ""
