"""What is known of rooms and their members, looked up once and kept for a while."""

from __future__ import annotations

from dataclasses import dataclass

from adapters.matrix.client import CLIENT, Event, MatrixClient, objects, path_of
from adapters.matrix.events import mapping
from bot.cache import BoundedCache
from bot.errors import MessageGone, PlaceGone, WriteRefused
from bot.text.sanitize import one_line

_KEPT = 600.0  # seconds; what /sync reports as changed is dropped at once
_NAME = 80  # characters
_REDACT = 50  # v1.11, m.room.power_levels: the default level to delete what others have written
# A later event of these kinds makes what is known old.
CHANGES = (
    "m.room.canonical_alias",
    "m.room.encryption",
    "m.room.history_visibility",
    "m.room.member",
    "m.room.name",
    "m.room.power_levels",
)


@dataclass(frozen=True, slots=True)
class Room:
    """A room as it is now.

    `is_direct`: one person and the bot are alone in it, nobody else is invited, and it was made for
    that, or has no name. A third member makes it another room.
    """

    name: str
    is_direct: bool


class Rooms:
    """Knows the rooms of an account. Every method but `note` raises SurfaceError."""

    def __init__(self, client: MatrixClient) -> None:
        self.client = client
        self._rooms: BoundedCache[str, Room] = BoundedCache()
        self._state: BoundedCache[tuple[str, str, str], Event] = BoundedCache(capacity=5000)

    def note(self, room: str, event: Event) -> None:
        """Drop what an event of /sync makes old."""
        kind, key = event.get("type"), event.get("state_key")
        if kind in CHANGES and isinstance(key, str):
            self._state.drop((room, str(kind), key))
            self._rooms.drop(room)

    async def room(self, room: str) -> Room:
        """Return what is known of a room."""
        if not (found := self._rooms.get(room)):
            found = await self._look_up(room)
            self._rooms.put(room, found, seconds=_KEPT)
        return found

    async def name(self, room: str, user: str) -> str:
        """Return the name of a member; their id if they have none."""
        return _name((await self._content(room, "m.room.member", user)).get("displayname")) or user

    async def shows_history(self, room: str) -> bool:
        """Whether every member may read what was said before they came."""
        content = await self._content(room, "m.room.history_visibility", "")
        # v1.11, "Room history visibility": "shared" is the default.
        return content.get("history_visibility", "shared") in ("shared", "world_readable")

    async def is_encrypted(self, room: str) -> bool:
        """Whether a room is encrypted."""
        return bool(await self._content(room, "m.room.encryption", ""))

    async def manages(self, room: str, user: str) -> bool:
        """Whether a person may delete what others have written."""
        levels = await self._content(room, "m.room.power_levels", "")
        level = _number(mapping(levels, "users").get(user, levels.get("users_default")), 0)
        if level >= _number(levels.get("redact"), _REDACT):
            return True
        # Since room version 12 its creators are above all levels, and are not listed there.
        event = await self._content(room, "m.room.create", "", whole=True)
        made = mapping(event, "content")
        more = made.get("additional_creators")
        is_creator = event.get("sender") == user or (isinstance(more, list) and user in more)
        return is_creator and _number(made.get("room_version"), 1) >= 12

    async def _look_up(self, room: str) -> Room:
        try:
            path = path_of("room_summary", room, base=f"{CLIENT}/v1")
            found = await self.client.call("GET", path)
        except (MessageGone, WriteRefused):  # of a server before v1.15
            found = await self._content(room, "m.room.name", "")
        name = _name(found.get("name")) or _name(found.get("canonical_alias"))
        is_direct = False
        if _number(found.get("num_joined_members"), 2) <= 2:
            members = await self.client.call("GET", path_of("rooms", room, "members"))
            is_direct = _is_direct(objects(members.get("chunk")), named=bool(name))
        return Room(name, is_direct)

    async def _content(self, room: str, kind: str, key: str, *, whole: bool = False) -> Event:
        """Return the content of a state event, or the event; {} if there is none."""
        if (known := self._state.get((room, kind, key))) is not None:
            return known
        path, query = path_of("rooms", room, "state", kind, key), {"format": "event"}
        try:
            found = await self.client.call("GET", path, query=query if whole else None)
        except (MessageGone, PlaceGone):
            found = {}
        self._state.put((room, kind, key), found, seconds=_KEPT)
        return found


def _is_direct(members: list[Event], *, named: bool) -> bool:
    contents = [mapping(one, "content") for one in members]
    there = [one for one in contents if one.get("membership") in ("join", "invite")]
    # Who accepts an invitation has no mark of it any more; the event before has.
    before = [mapping(one, "unsigned", "prev_content") for one in members]
    marked = any(one.get("is_direct") is True for one in (*contents, *before))
    return len(there) == 2 and (marked or not named)


def _number(value: object, default: int) -> int:
    # Old rooms have levels in quotes (before room version 10).
    if isinstance(value, str) and value.isdecimal():
        value = int(value[:9])
    return value if type(value) is int else default


def _name(value: object) -> str:
    return one_line(value)[:_NAME].strip() if isinstance(value, str) else ""
