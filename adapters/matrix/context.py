"""Reads the messages of a Matrix room or thread before a question."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence

from adapters.matrix.client import CLIENT, Event, objects, path_of
from adapters.matrix.events import Said, as_it_stands, event_of, time_of, turn_id
from adapters.matrix.rooms import Rooms
from bot.domain import ContextMessage, Person, Turn
from bot.ports import Earlier, ReadEarlier

_PAGE = 100  # events of one request; Synapse gives no more
_FILTER = json.dumps({"types": ["m.room.message"], "lazy_load_members": True})


async def read_context(
    rooms: Rooms, turn: Turn, *, since: str, most: int
) -> Sequence[ContextMessage]:
    """Return the messages of a thread before a question, with the one that begins it.

    That one is left out if `since` names a turn. Nothing is read in a direct room, where a thread
    begins with the question, and where members may not read what was said before they came.
    Raises SurfaceError.
    """
    room, thread, asked = _place(turn)
    found: list[Said] = []
    wanted = event_of(turn.quote.id) if turn.quote and not turn.quote.text else ""
    if not room or not await rooms.shows_history(room):
        return ()
    if most and thread not in ("", asked):
        path = path_of("rooms", room, "relations", thread, "m.thread", base=f"{CLIENT}/v1")
        page = await rooms.client.call("GET", path, query={"limit": _PAGE})
        for one in _before(objects(page.get("chunk")), asked):
            if one.get("event_id") == event_of(since):
                break
            if (said := as_it_stands(room, one)) and len(found) < most:
                found.insert(0, said)
        if not since:
            wanted, first = wanted if wanted != thread else "", await _read(rooms, room, thread)
            found[:0] = first
    if wanted and all(one.event != wanted for one in found):
        found[:0] = await _read(rooms, room, wanted)
    return await context_messages(rooms, found)


def earlier(rooms: Rooms, turn: Turn) -> ReadEarlier | None:
    """Return what reads the thread of a question, or else its room; None in a direct room."""
    room, thread, asked = _place(turn)
    if not room or turn.key.thread.startswith(room):
        return None
    thread = "" if thread == asked else thread
    # Where the pages begin that were read, by the time before which their events were written.
    pages: dict[float, str] = {}

    async def read(before: float, most: int) -> Earlier:
        if not await rooms.shows_history(room):
            return Earlier(())
        # The time has come back as text.
        token = min((at for at in pages if at >= before - 0.001), default=None)
        query: dict[str, str | int] = {"dir": "b", "limit": min(most, _PAGE)}
        if token is not None and pages[token]:
            query["from"] = pages[token]
        if thread:
            path = path_of("rooms", room, "relations", thread, "m.thread", base=f"{CLIENT}/v1")
        else:
            path, query["filter"] = path_of("rooms", room, "messages"), _FILTER
            if "from" not in query:
                around = path_of("rooms", room, "context", asked)
                found = await rooms.client.call("GET", around, query={"limit": 0})
                query["from"] = str(found.get("start") or "")
        page = await rooms.client.call("GET", path, query=query)
        events = objects(page.get("chunk"))
        following = page.get("next_batch" if thread else "end")
        oldest = time_of(events[-1]) if events else 0.0
        if isinstance(following, str) and events:
            pages[oldest] = following
        said = [it for one in events if time_of(one) < before and (it := as_it_stands(room, one))]
        chosen = [one for one in reversed(said) if bool(one.thread) == bool(thread)][-most:]
        return Earlier(
            [*zip((one.at for one in chosen), await context_messages(rooms, chosen), strict=True)],
            unread_before=oldest if isinstance(following, str) and events else 0.0,
        )

    return read


async def context_messages(rooms: Rooms, said: Sequence[Said]) -> list[ContextMessage]:
    """Convert messages to context, in the given order."""
    own, people = rooms.client.user_id, [*{(one.room, one.sender) for one in said}]
    names = await asyncio.gather(*(rooms.name(*one) for one in people))
    name_of = {user: name for (_, user), name in zip(people, names, strict=True)}
    return [
        # The bot's own files repeat what it said.
        ContextMessage(turn_id(one.event), None, one.text)
        if one.sender == own
        else ContextMessage(
            *(turn_id(one.event), Person(one.sender, name_of[one.sender]), one.text),
            in_thread=not one.is_bot,
            files=one.files,
        )
        for one in said
    ]


async def _read(rooms: Rooms, room: str, event: str) -> list[Said]:
    said = as_it_stands(room, await rooms.client.find(room, event))
    return [said] if said else []


def _before(events: Sequence[Event], asked: str) -> Iterable[Event]:
    """Return the events, newest first, that came before the question."""
    ids = [one.get("event_id") for one in events]
    return events[ids.index(asked) + 1 :] if asked in ids else events


def _place(turn: Turn) -> tuple[str, str, str]:
    place = (turn.place.get(name) for name in ("room", "thread", "question"))
    room, thread, asked = (one if isinstance(one, str) else "" for one in place)
    return room, thread, asked
