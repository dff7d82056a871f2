"""Opens the surface of a turn's reply: opens its thread, and shows typing meanwhile."""

from __future__ import annotations

import asyncio
import logging
import textwrap
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import replace

import discord

from adapters.discord.reply.channel import (
    ChannelAddress,
    ChannelSurface,
    Recovery,
    of_reply,
    own_messages,
)
from adapters.discord.reply.command import ButtonPress, CommandAddress, CommandSurface
from adapters.discord.rest import GLOBAL_LIMIT, RestClient, edit_budget, request, translated
from bot.concurrency import running
from bot.domain import Json, Place, Purpose, Turn
from bot.errors import (
    MessageGone,
    PlaceGone,
    SurfaceError,
    WriteDelayed,
    WriteFailed,
    WriteRefused,
)
from bot.reply.edit_budget import EditBudgets

_log = logging.getLogger(__name__)

_NAME_LIMIT = 100  # Discord's documentation, "Start Thread from Message"
_ALREADY_OPEN = 160004  # "A thread has already been created for this message"
_ARCHIVE_AFTER = 1440  # minutes without a message
_THREADS = "/channels/{channel_id}/messages/{message_id}/threads"


@asynccontextmanager
async def open_surface(
    client: RestClient, turn: Turn, budgets: EditBudgets, purpose: Purpose
) -> AsyncIterator[ChannelSurface | CommandSurface]:
    """Open the surface of a turn's reply through a client that has logged in.

    A thread is opened if the turn asks for one and Discord takes one soon. Typing is shown until
    the end, unless the reply has ended. Raises PlaceGone; WriteFailed or WriteDelayed if Discord
    does not say whether there is a thread.
    """
    tried_at = turn.asked_at if purpose.recovers else None
    match _address(turn):
        case CommandAddress() as command:
            # Discord itself shows that the bot is working, until the first edit.
            yield CommandSurface(client, address=command, turn_id=turn.id, tried_at=tried_at)
        case ChannelAddress() as asked:
            address = _thread_of(asked)
            if purpose is not Purpose.RESTORE:
                address = await _in_thread(client, turn, asked, budgets)
            parent, alone = None if address is asked else asked, address.question is None
            recovery = Recovery(
                client, turn_id=turn.id, tried_at=tried_at, alone=alone, above=_above(turn)
            )
            typing = None if purpose.has_ended else _type(client, address.channel, budgets)
            async with running(typing) if typing else nullcontext():
                yield ChannelSurface(client, address, recovery, parent=parent)


async def type_once(client: RestClient, turn: Turn, budgets: EditBudgets) -> None:
    """Show typing where a turn was asked that waits for a worker, if Discord has room for it.

    Discord itself shows that the bot works on a command. Failures are only logged.
    """
    try:
        if isinstance(address := parse_address(turn.place), ChannelAddress):
            await _show_typing(client, address.channel, budgets)
    except SurfaceError as error:
        _log.debug("Turn %s: typing was not shown: %s", turn.id, error)


async def orphaned_messages(client: RestClient, turn: Turn, *, but: Collection[str]) -> list[str]:
    """Return the messages, except these, that surely belong to a turn's reply.

    A late write adds no message, because it finds the one with its nonce; but an answer may need
    fewer pages than an earlier attempt has posted. Raises SurfaceError.
    """
    asked = _address(turn)
    if isinstance(asked, CommandAddress):
        return []  # follow-ups of other commands look the same
    found: list[str] = []
    for address in dict.fromkeys((_thread_of(asked), asked)):
        own = await own_messages(client, address, turn_id=turn.id)
        found += of_reply(own, address, turn_id=turn.id, alone=False)
    return [one for one in found if one not in but]


def _address(turn: Turn) -> ChannelAddress | CommandAddress:
    """Return where the reply is written: as a reply to its question if several waited there."""
    address = parse_address(turn.place)
    # The turns that may join are messages.
    refers = turn.place.get("refers") is True and turn.joins
    if not (refers and isinstance(address, ChannelAddress) and address.question is None):
        return address
    question = int(turn.id.rpartition(":")[2])
    return ChannelAddress(address.channel, question, opens_thread=False)


def _above(turn: Turn) -> int:
    """Return the id of the message above the reply; 0 if there is none."""
    above = turn.place.get("above")
    # A message of a webhook has an `@` before its id.
    name = above.removeprefix("@") if isinstance(above, str) else ""
    return int(name) if name.isdecimal() else 0


def _thread_of(address: ChannelAddress) -> ChannelAddress:
    """Return the thread that is opened from the question, or the address itself."""
    if not address.opens_thread or address.question is None:
        return address
    # A thread that was opened from a message has the message's id.
    return ChannelAddress(address.question, None, opens_thread=False)


async def _in_thread(
    client: RestClient, turn: Turn, address: ChannelAddress, budgets: EditBudgets
) -> ChannelAddress:
    """Return the thread of the question, or the address itself if no thread can be opened."""
    thread = _thread_of(address)
    if thread is address:
        return address
    try:
        await _open_thread(client, turn, address, budgets)
    except MessageGone as error:
        raise PlaceGone("the question was deleted") from error
    except SurfaceError as error:
        if await _is_open(client, thread.channel, error):
            return thread
        if isinstance(error, WriteFailed):
            # Else the reply could be in the channel now, and in the thread after a restart.
            raise WriteFailed(f"the thread could not be opened yet: {error}") from error
        _log.warning(
            "Turn %s: the reply is posted in channel %d, because no thread can be opened: %s",
            *(turn.id, address.channel, error),
        )
        return address
    return thread


async def _open_thread(
    client: RestClient, turn: Turn, address: ChannelAddress, budgets: EditBudgets
) -> None:
    """Open a thread as soon as Discord takes one more; raises WriteDelayed if that is not soon."""
    budget, now = edit_budget("thread", address.channel), asyncio.get_running_loop().time
    deadline = now() + client.tuning.thread_patience
    ids = {"channel_id": address.channel, "message_id": address.question}
    line = " ".join(turn.text.split())
    name = textwrap.shorten(line, _NAME_LIMIT, placeholder="…").strip("…") or line[:_NAME_LIMIT]
    body: dict[str, Json] = {"name": name, "auto_archive_duration": _ARCHIVE_AFTER}
    while True:
        await budgets.call(budget, deadline=deadline)
        try:
            await request(client, "POST", _THREADS, ids, body=body)
        except WriteDelayed as error:
            await budgets.pause(budget, error.retry_after)
            if now() + error.retry_after > deadline:
                raise
        else:
            return


async def _is_open(client: RestClient, thread: int, error: SurfaceError) -> bool:
    """Whether the thread that could not be opened exists: an earlier attempt may have opened it.

    Discord is asked after a refusal, too: the permission may be gone since. Raises SurfaceError.
    """
    cause = error.__cause__
    if isinstance(cause, discord.HTTPException) and cause.code == _ALREADY_OPEN:
        return True
    with suppress(MessageGone, PlaceGone, WriteRefused):
        await request(client, "GET", "/channels/{channel_id}", {"channel_id": thread})
        return True
    return False


async def _type(client: RestClient, channel: int, budgets: EditBudgets) -> None:
    tuning = client.tuning
    while True:
        pause = tuning.typing_every
        try:
            if not await _show_typing(client, channel, budgets):
                pause = tuning.typing_gap
        except PlaceGone:
            return
        except SurfaceError as error:
            _log.debug("Typing in channel %d was not shown: %s", channel, error)
        await asyncio.sleep(pause)


async def _show_typing(client: RestClient, channel: int, budgets: EditBudgets) -> bool:
    """Show typing if it is due; False if messages need the global limit. Raises SurfaceError."""
    if _is_due(client, channel):
        if not await budgets.spare(GLOBAL_LIMIT):
            return False
        async with translated():
            await client.get_partial_messageable(channel).typing()
    return True


def _is_due(client: RestClient, channel: int) -> bool:
    """Whether the bot has not typed in a channel just now; notes that it does."""
    now, gap = asyncio.get_running_loop().time(), client.tuning.typing_gap
    client.typed_at = {one: at for one, at in client.typed_at.items() if now - at < gap}
    if channel in client.typed_at:
        return False
    client.typed_at[channel] = now
    return True


def parse_address(place: Place) -> ChannelAddress | CommandAddress:
    """Return the address in a turn; raises PlaceGone if it is not one of Discord's."""
    with suppress(ValueError):
        match place:
            case {"channel": str(channel), "interaction": str(interaction), "token": str(token)}:
                return _pressed(CommandAddress(int(channel), int(interaction), token), place)
            case {"private": bool(private), "interaction": str(interaction), "token": str(token)}:
                return _pressed(
                    CommandAddress(None, int(interaction), token, private=private), place
                )
            case {"channel": str(channel), "question": None, "opens_thread": False}:
                return ChannelAddress(int(channel), None, opens_thread=False)
            case {"channel": str(channel), "question": str(question), "opens_thread": bool(opens)}:
                return ChannelAddress(int(channel), int(question), opens_thread=opens)
    raise PlaceGone("the turn has no address in Discord")


def _pressed(command: CommandAddress, place: Place) -> CommandAddress:
    match place.get("press"):
        case None:
            return command
        case {"interaction": str(pressed), "token": str(token), "message": str(message)}:
            return replace(command, press=ButtonPress(int(pressed), token, int(message)))
    raise ValueError("a press without its interaction")
