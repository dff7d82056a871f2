"""Finds edits and deletions that the gateway does not send again, of questions asked lately."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import discord

from adapters.discord.gateway.connection import read_message
from adapters.discord.rest import Payload, fetch_channel, fetch_messages, own_id, request
from adapters.discord.tuning import Tuning
from bot.errors import MessageGone, SurfaceError

_log = logging.getLogger(__name__)

_Channel = discord.abc.Messageable


@dataclass(frozen=True, slots=True)
class Known:
    """A message and the channels where it may be, most likely first."""

    id: int
    channels: tuple[int, ...]


@dataclass(slots=True)
class Changes:
    """Messages of people that were edited, as they stand now, and ids of deleted ones."""

    edited: list[discord.Message] = field(default_factory=list)
    deleted: list[int] = field(default_factory=list)


async def find_changes(
    client: discord.Client, known: Iterable[Known], *, tuning: Tuning
) -> Changes:
    """Compare messages with what their channels show, as far as they can be read in time.

    Each channel is read from its oldest known message on, by one request of a page. A missing
    message is requested individually, and counts as deleted if Discord does not find it.
    """
    changes = Changes()
    places: dict[int, list[Known]] = {}
    for one in known:
        places.setdefault(one.channels[0], []).append(one)
    # Those with the latest messages first.
    latest = sorted(places, key=lambda channel: max(one.id for one in places[channel]))
    at_once = asyncio.Semaphore(tuning.catch_up_at_once)

    async def compare(channel: int) -> None:
        async with at_once:
            try:
                await _compare(client, channel, places[channel], changes, tuning.page_size)
            except SurfaceError as error:
                _log.info("Channel %d: cannot search for edits and deletions: %s", channel, error)

    try:
        async with asyncio.timeout(tuning.changes_within), asyncio.TaskGroup() as group:
            for channel in latest[: -tuning.catch_up_channels - 1 : -1]:
                group.create_task(compare(channel))
    except TimeoutError:
        _log.warning("Not all channels could be searched for changes in time")
    return changes


async def _compare(
    client: discord.Client, channel: int, known: Collection[Known], changes: Changes, size: int
) -> None:
    first = min(one.id for one in known)
    page = await fetch_messages(client, channel, limit=size, after=first - 1)
    shown = {int(one["id"]): one for one in page}
    reached = max(shown, default=0) if len(page) >= size else max(one.id for one in known)
    for one in known:
        if one.id in shown:
            if _is_edited(client, shown[one.id]):
                await _read(client, channel, shown[one.id], changes)
        elif one.id <= reached and await _is_deleted(client, one):
            changes.deleted.append(one.id)


def _is_edited(client: discord.Client, message: Payload) -> bool:
    return bool(message.get("edited_timestamp")) and message["author"]["id"] != str(own_id(client))


async def _read(client: discord.Client, channel: int, message: Payload, changes: Changes) -> None:
    place = await fetch_channel(client, channel)
    if isinstance(place, _Channel) and (read := read_message(place, message)):
        changes.edited.append(read)


async def _is_deleted(client: discord.Client, known: Known) -> bool:
    path = "/channels/{channel_id}/messages/{message_id}"
    for channel in known.channels:
        try:
            await request(client, "GET", path, {"channel_id": channel, "message_id": known.id})
        except MessageGone:
            continue
        return False
    return True
