"""Opens the surface of a turn's reply: in a thread of its question, and while the bot types."""

from __future__ import annotations

import asyncio
import logging
import textwrap
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, nullcontext, suppress

import discord

from adapters.discord.address import ChannelPlace, CommandPlace, read_place
from adapters.discord.errors import translated
from adapters.discord.rate_limits import EVERYTHING, Budgets, edit_budget
from adapters.discord.reply.channel import ChannelSurface
from adapters.discord.reply.command import CommandSurface
from adapters.discord.reply.recovery import pages_of
from adapters.discord.rest import RestClient
from bot.concurrency import cancelled
from bot.domain import Purpose, Turn
from bot.errors import (
    MessageGone,
    PlaceGone,
    SurfaceError,
    WriteDelayed,
    WriteFailed,
    WriteRefused,
)

_log = logging.getLogger(__name__)

_NAME_LIMIT = 100  # Discord's documentation, "Start Thread from Message"
_ALREADY_OPEN = 160004  # "A thread has already been created for this message"
_TYPING_PAUSE = 8.0  # seconds; Discord shows typing for ten
# Replies that stand in one channel type together: it takes about five calls in five seconds.
_TYPING_GAP = 1.0  # seconds
# Until then nothing tells the person that we work; later the reply stands in the channel.
_THREAD_PATIENCE = 5.0  # seconds for which a thread may wait for others


@asynccontextmanager
async def open_surface(
    client: RestClient, turn: Turn, budgets: Budgets, purpose: Purpose
) -> AsyncIterator[ChannelSurface | CommandSurface]:
    """Open the surface of a turn's reply through a client that has logged in.

    A thread is opened where the turn asks for one and Discord takes one soon, and Discord shows
    that we type until the end. Nobody types for a reply that has ended, and its thread is there,
    unless none of its messages is known. Raises PlaceGone or WriteFailed, but where the thread is
    there.
    """
    tried_at = turn.asked_at if purpose.recovers else None
    match read_place(turn.place):
        case CommandPlace() as command:
            # Discord itself shows that we work, until the first edit.
            yield CommandSurface(client, place=command, turn_id=turn.id, tried_at=tried_at)
        case ChannelPlace() as asked:
            place = _thread_of(asked)
            if purpose is not Purpose.RESTORE:
                place = await _in_thread(client, asked, budgets, name=_thread_name(turn.text))
            async with (
                nullcontext() if purpose.has_ended else _typing(client, place.channel, budgets)
            ):
                parent = None if place is asked else asked
                yield ChannelSurface(
                    client,
                    place=place,
                    parent=parent,
                    turn_id=turn.id,
                    tried_at=tried_at,
                    alone=place.question is None,
                )


async def strays(client: RestClient, turn: Turn, *, but: Collection[str]) -> list[str]:
    """Return the messages that surely are of a turn's reply, without some; SurfaceError.

    Nothing tells whose the follow-ups of a command are.
    """
    asked = read_place(turn.place)
    if isinstance(asked, CommandPlace):
        return []
    found: list[str] = []
    for place in dict.fromkeys((_thread_of(asked), asked)):
        found += await pages_of(client.http, place, bot_id=client.bot_id, turn_id=turn.id)
    return [one for one in found if one not in but]


def _thread_of(place: ChannelPlace) -> ChannelPlace:
    """Return the thread that is to be opened from the question, or the place itself."""
    if not place.opens_thread or place.question is None:
        return place
    # A thread that was opened from a message has the message's id.
    return ChannelPlace(place.question, None, opens_thread=False)


async def _in_thread(
    client: RestClient, place: ChannelPlace, budgets: Budgets, *, name: str
) -> ChannelPlace:
    """Return the thread of the question; the place itself where no thread can be opened."""
    thread = _thread_of(place)
    if place.question is None or thread is place:
        return place
    try:
        await _open_thread(client, place.channel, place.question, budgets, name=name)
    except MessageGone as error:
        raise PlaceGone("the question was deleted") from error
    except (WriteFailed, WriteDelayed) as error:
        # An earlier try may have opened it: then the reply goes on, whatever new threads wait for.
        if await _is_there(client, place.question):
            return thread
        if isinstance(error, WriteFailed):
            # Not in the channel now and in the thread after a restart: this is no answer yet.
            raise WriteFailed(f"the thread could not be opened yet: {error}") from error
        _log.warning("the reply stands in the channel: no thread for %.0f s", error.retry_after)
        return place
    except (PlaceGone, WriteRefused) as error:
        if not _is_open_already(error):
            _log.warning("the reply stands in the channel, for no thread can be opened: %s", error)
            return place
    return thread


async def _open_thread(
    client: RestClient, channel: int, question: int, budgets: Budgets, *, name: str
) -> None:
    """Open it as soon as Discord takes one more; WriteDelayed when that is not soon."""
    budget, now = edit_budget("thread", channel), asyncio.get_running_loop().time
    deadline = now() + _THREAD_PATIENCE
    while True:
        await budgets.call(budget, deadline=deadline)
        try:
            async with translated():
                await client.http.start_thread_with_message(
                    channel, question, name=name, auto_archive_duration=1440
                )
        except WriteDelayed as error:
            await budgets.pause(budget, error.retry_after)
            if now() + error.retry_after > deadline:
                raise
        else:
            return


async def _is_there(client: RestClient, thread: int) -> bool:
    with suppress(SurfaceError):
        async with translated():
            await client.http.get_channel(thread)
            return True
    return False


def _is_open_already(error: SurfaceError) -> bool:
    cause = error.__cause__
    return isinstance(cause, discord.HTTPException) and cause.code == _ALREADY_OPEN


def _thread_name(question: str) -> str:
    words = " ".join(question.split())
    return textwrap.shorten(words, _NAME_LIMIT, placeholder="…").strip("…") or words[:_NAME_LIMIT]


@asynccontextmanager
async def _typing(client: RestClient, channel: int, budgets: Budgets) -> AsyncIterator[None]:
    # Beside the body, which need not wait for it.
    task = asyncio.create_task(_type(client, channel, budgets))
    try:
        yield
    finally:
        await cancelled(task)


async def _type(client: RestClient, channel: int, budgets: Budgets) -> None:
    while True:
        pause = _TYPING_PAUSE
        try:
            if _is_due(client.typed_at, channel):
                # Messages come first: there is none while they need the global limit.
                if await budgets.spare(EVERYTHING):
                    async with translated():
                        await client.http.send_typing(channel)
                else:
                    pause = _TYPING_GAP
        except PlaceGone:
            return
        except SurfaceError as error:
            _log.debug("typing was not shown: %s", error)
        await asyncio.sleep(pause)


def _is_due(typed_at: dict[int, float], channel: int) -> bool:
    """Whether nobody types there just now; whoever asks is about to."""
    now = asyncio.get_running_loop().time()
    for one in [one for one, at in typed_at.items() if now - at >= _TYPING_GAP]:
        del typed_at[one]
    if channel in typed_at:
        return False
    typed_at[channel] = now
    return True
