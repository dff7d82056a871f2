"""What earlier tries at a reply have left in its channel, for when no nonce tells any more."""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Iterator
from typing import Any

from discord.http import HTTPClient

from adapters.discord.errors import translated
from adapters.discord.place import ChannelPlace
from bot.errors import PlaceGone

_log = logging.getLogger(__name__)

_READ = 100  # messages after the question, the most of one request: "Get Channel Messages"
# Message types, for Discord itself writes in our name as well ("Message Types").
_DEFAULT, _REPLY = 0, 19


async def standing(
    http: HTTPClient,
    place: ChannelPlace,
    *,
    bot_id: str,
    turn_id: str,
    alone: bool,
    but: Container[str],
) -> list[str]:
    """Return the ids of our messages after a turn's question that are its reply's, oldest first.

    `alone` says that no other reply grows there. Empty where we may not read, which is logged.
    Raises SurfaceError.
    """
    question = int(turn_id.rpartition(":")[2])
    try:
        async with translated():
            recent = await http.logs_from(place.channel, _READ, after=question)
    except PlaceGone as error:
        _log.warning("a message may stand twice, for we cannot look for the first: %s", error)
        return []
    ours = [one for one in reversed(recent) if _is_a_page(one, bot_id)]
    finished = [str(one["id"]) for one in ours if _is_finished(one, place, alone=alone)]
    return [one for one in _of_reply(ours, finished, turn_id) if one not in but]


def _is_a_page(message: Any, bot_id: str) -> bool:
    """Whether we wrote it, and not as the answer to an interaction."""
    ours = message["author"]["id"] == bot_id and message["type"] in (_DEFAULT, _REPLY)
    return ours and not message.get("interaction_metadata")


def _of_reply(messages: Iterable[Any], finished: Container[str], turn_id: str) -> Iterator[str]:
    """Yield those with the turn's button, and before each the finished pages, which have none.

    What stands before another turn's button is that turn's.
    """
    before: list[str] = []
    for message in messages:
        name, turns = str(message["id"]), _turns(message)
        if turns:
            yield from [*before, name] if turn_id in turns else ()
            before = []
        elif name in finished:
            before.append(name)


def _is_finished(message: Any, place: ChannelPlace, *, alone: bool) -> bool:
    """Whether a message without a button can be a page of a reply in this place."""
    answered = (message.get("message_reference") or {}).get("message_id")
    if place.question is None:
        return alone and answered is None
    return bool(answered == str(place.question))


def _turns(message: Any) -> set[str]:
    """Return the ids of the turns that a message's buttons name."""
    buttons = [one for row in message["components"] for one in row.get("components", ())]
    return {one["custom_id"].partition(":")[2] for one in buttons}
