"""Reads the messages of a Matrix room or thread before a question."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from adapters.matrix.client import CLIENT, objects, path_of
from adapters.matrix.events import Said, as_it_stands, event_of, time_of, turn_id
from adapters.matrix.messages import Address
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
    at = Address.of(turn)
    room, thread, asked = at.room, at.thread, at.question
    if not await rooms.shows_history(room):
        return ()
    found: list[Said] = []
    if most and thread not in ("", asked):
        path = path_of("rooms", room, "relations", thread, "m.thread", base=f"{CLIENT}/v1")
        page = await rooms.client.call("GET", path, query={"limit": _PAGE})
        events = objects(page.get("chunk"))  # newest first
        ids = [one.get("event_id") for one in events]
        for one in events[ids.index(asked) + 1 if asked in ids else 0 :]:
            if one.get("event_id") == event_of(since):
                break
            if (said := as_it_stands(room, one)) and len(found) < most:
                found.insert(0, said)
        if not since and (root := await message_at(rooms, room, thread)):
            found.insert(0, root)
    wanted = event_of(turn.quote.id) if turn.quote and not turn.quote.text else ""
    is_missing = bool(wanted) and all(one.event != wanted for one in found)
    if is_missing and (quoted := await message_at(rooms, room, wanted)):
        found.insert(0, quoted)
    return await context_messages(rooms, found)


def earlier(rooms: Rooms, turn: Turn) -> ReadEarlier | None:
    """Return what reads the thread of a question, or else its room; None in a direct room."""
    at = Address.of(turn)
    room, thread, asked = at.room, at.thread, at.question
    if turn.key.thread.startswith(room):
        return None
    thread = "" if thread == asked else thread
    # Where the pages begin that were read, by the time before which their events were written.
    pages: dict[float, str] = {}

    async def read(before: float, most: int) -> Earlier:
        if not await rooms.shows_history(room):
            return Earlier(())
        # The time has come back as text.
        known = min((at for at in pages if at >= before - 0.001), default=None)
        query: dict[str, str | int] = {"dir": "b", "limit": min(most, _PAGE)}
        if known is not None:
            query["from"] = pages[known]
        if thread:
            path = path_of("rooms", room, "relations", thread, "m.thread", base=f"{CLIENT}/v1")
        else:
            path, query["filter"] = path_of("rooms", room, "messages"), _FILTER
            if "from" not in query:
                around = path_of("rooms", room, "context", asked)
                found = await rooms.client.call("GET", around, query={"limit": 0})
                query["from"] = str(found.get("start") or "")
        page = await rooms.client.call("GET", path, query=query)
        events, oldest = objects(page.get("chunk")), 0.0
        following = page.get("next_batch" if thread else "end")
        if events and isinstance(following, str):
            oldest = time_of(events[-1])
            pages[oldest] = following
        said = [it for one in events if time_of(one) < before and (it := as_it_stands(room, one))]
        chosen = [one for one in reversed(said) if bool(one.thread) == bool(thread)][-most:]
        return Earlier(
            [*zip((one.at for one in chosen), await context_messages(rooms, chosen), strict=True)],
            unread_before=oldest,
        )

    return read


async def context_messages(rooms: Rooms, said: Sequence[Said]) -> list[ContextMessage]:
    """Convert messages to context, in the given order."""
    own, people = rooms.client.user_id, [*{(one.room, one.sender) for one in said}]
    names = await asyncio.gather(*(rooms.name(*one) for one in people))
    name_of = {user: name for (_, user), name in zip(people, names, strict=True)}
    return [
        ContextMessage(
            turn_id(one.event),
            None if one.sender == own else Person(one.sender, name_of[one.sender]),
            one.text,
            in_thread=one.sender != own and not one.is_bot,
            files=() if one.sender == own else one.files,  # its own repeat what it said
        )
        for one in said
    ]


async def message_at(rooms: Rooms, room: str, event: str) -> Said | None:
    """Return a message as it stands; None if it is gone. Raises SurfaceError."""
    return as_it_stands(room, await rooms.client.event(room, event))
