"""What earlier tries at a reply have left in its channel, for when no nonce tells any more."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from discord.http import HTTPClient

from adapters.discord.address import ChannelPlace
from adapters.discord.errors import translated
from bot.errors import PlaceGone

_log = logging.getLogger(__name__)

PAGE = 100  # messages, the most of one request: Discord's documentation, "Get Channel Messages"
_PAGES = 10
# Message types, for Discord itself writes in our name as well ("Message Types").
_DEFAULT, _REPLY = 0, 19


async def standing(
    http: HTTPClient, place: ChannelPlace, *, bot_id: str, turn_id: str
) -> list[dict[str, Any]]:
    """Return our messages after a turn's question, oldest first.

    Empty where we may not read, which is logged. Raises SurfaceError.
    """
    try:
        return await _written_by_us(http, place, bot_id=bot_id, turn_id=turn_id)
    except PlaceGone as error:
        _log.warning("a message may stand twice, for we cannot look for the first: %s", error)
        return []


async def pages_of(
    http: HTTPClient, place: ChannelPlace, *, bot_id: str, turn_id: str
) -> list[str]:
    """Return the ids of our messages that surely are of a turn's reply; SurfaceError."""
    try:
        ours = await _written_by_us(http, place, bot_id=bot_id, turn_id=turn_id)
    except PlaceGone:
        return []
    return list(of_reply(ours, place, turn_id=turn_id, alone=False))


async def _written_by_us(
    http: HTTPClient, place: ChannelPlace, *, bot_id: str, turn_id: str
) -> list[dict[str, Any]]:
    since = await written_since(http, place.channel, int(turn_id.rpartition(":")[2]))
    return [one for one in since if _is_a_page(one, bot_id)]


async def written_since(http: HTTPClient, channel: int, after: int) -> list[Any]:
    """Return what stands in a channel after a message or an interaction, oldest first.

    Not all where too much was said, which is logged. Raises SurfaceError.
    """
    found: list[Any] = []
    for _ in range(_PAGES):
        async with translated():
            page = await http.logs_from(channel, PAGE, after=after)
        # The oldest hundred come, the newest of them first.
        found += reversed(page)
        if len(page) < PAGE:
            return found
        after = int(page[0]["id"])
    _log.warning("a message may stand twice: too much was said in channel %d since", channel)
    return found


def of_reply(
    ours: Iterable[Any], place: ChannelPlace, *, turn_id: str, alone: bool
) -> Iterator[str]:
    """Yield the ids of those with the turn's button, and of the finished pages.

    These have no button. Below a question of a channel each names it; elsewhere what stands before
    another turn's button is that turn's, and which reply the last ones are of nobody can tell.
    `alone` says that no other reply grows in this place.
    """
    before: list[str] = []
    for message in ours:
        name, turns = str(message["id"]), _turns(message)
        if turns:
            yield from [*before, name] if turn_id in turns else ()
            before = []
        elif place.question is not None:
            yield from [name] if _answered(message) == str(place.question) else ()
        elif alone and _answered(message) is None:
            before.append(name)


def _is_a_page(message: Any, bot_id: str) -> bool:
    """Whether we wrote it, and not as the answer to an interaction."""
    author = message.get("author") or {}
    ours = author.get("id") == bot_id and message.get("type") in (_DEFAULT, _REPLY)
    return ours and not message.get("interaction_metadata")


def _answered(message: Any) -> str | None:
    answered: str | None = (message.get("message_reference") or {}).get("message_id")
    return answered


def _turns(message: Any) -> set[str]:
    """Return the ids of the turns that a message's buttons name."""
    buttons = [one for row in message["components"] for one in row.get("components", ())]
    return {one["custom_id"].partition(":")[2] for one in buttons}
