"""Reads what was said before a question in its Discord thread, or in the channel of a reply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import discord

from adapters.discord.address import ChannelAddress, parse_address
from adapters.discord.gateway.connection import read_message
from adapters.discord.gateway.events import HIDDEN, context_message
from adapters.discord.rest import Payload, RestClient, fetch_messages, own_id, request
from bot.domain import ContextMessage, Turn

_MESSAGE = "/channels/{channel_id}/messages/{message_id}"
_STARTER = discord.MessageType.thread_starter_message
_SAID = (
    discord.MessageType.default,
    discord.MessageType.reply,
    discord.MessageType.chat_input_command,
    discord.MessageType.context_menu_command,
)


async def read_context(
    client: RestClient, turn: Turn, *, since: str, most: int
) -> Sequence[ContextMessage]:
    """Return what was said before a question, by one request at most; raises SurfaceError.

    In a Discord thread that is the thread, with the message from which it was opened. In a channel
    it is the channel, if the question replies to one of its messages and begins a thread of ours.
    Nothing is read for a person who lacks the permission Read Message History there.
    """
    if turn.place.get(HIDDEN):
        return ()
    address = parse_address(turn.place)
    asked, channel = _number(turn.id), address.channel
    quote = _number(turn.quote.id) if turn.quote and not turn.quote.text else 0
    if not _is_in_thread(turn, channel):
        replies = isinstance(address, ChannelAddress) and address.question is not None
        most = most if replies and turn.quote and not since else 0
    if most and quote:
        # Of the messages around one that is old, the newest before the question are missing.
        found = await fetch_messages(client, channel, limit=most, around=quote)
    elif most:
        found = await fetch_messages(client, channel, limit=most, before=asked)
    elif quote:
        ids = {"channel_id": channel, "message_id": quote}
        found = [await request(client, "GET", _MESSAGE, ids)]
    else:
        return ()
    after = _number(since) if since else 0
    ours = [one for one in found if after < int(one["id"]) < asked or int(one["id"]) == quote]
    found_said = (_said(client, channel, one) for one in reversed(ours))
    in_thread = _is_in_thread(turn, channel)
    return [replace(said, in_thread=in_thread and said.in_thread) for said in found_said if said]


def _is_in_thread(turn: Turn, channel: int) -> bool:
    """Whether a turn belongs to a Discord thread, where it was asked."""
    return turn.key.workspace != "dm" and turn.key.thread == str(channel)


def _said(client: RestClient, channel: int, payload: Payload) -> ContextMessage | None:
    message = read_message(client.get_partial_messageable(channel), payload)
    if message and message.type is _STARTER:
        resolved = message.reference.resolved if message.reference else None
        message = resolved if isinstance(resolved, discord.Message) else None
    elif message and message.type not in _SAID:
        return None
    if message is None:
        return None
    is_person = not (message.author.bot or message.webhook_id)
    return replace(context_message(message, own_id(client)), in_thread=is_person)


def _number(turn: str) -> int:
    """Return the snowflake in the id of a turn; 0 if there is none."""
    number = turn.rpartition(":")[2]
    return int(number) if number.isdecimal() else 0
