"""Says whether a message may be for the bot, and makes a turn of it."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import discord

from adapters.discord.gateway.connection import add_server, beside_text, read_message
from adapters.discord.reply.channel import ChannelAddress
from adapters.discord.rest import Payload, fetch_channel, own_id, request, translated
from bot.cache import BoundedCache
from bot.domain import Asker, ContextMessage, FileRef, Json, Person, ThreadKey, Turn
from bot.errors import PlaceGone, WriteRefused
from bot.intake.addressed import Facts
from bot.text.markdown import without_escapes
from bot.text.sanitize import is_visible, one_line

Channel = (
    discord.TextChannel
    | discord.VoiceChannel
    | discord.StageChannel
    | discord.Thread
    | discord.DMChannel
)

_log = logging.getLogger(__name__)

EVERYTHING = discord.Permissions.all()
HIDDEN = "hidden"  # set in the place of a turn if its person may not read earlier messages
ASKS = "asks"  # set in the place of a command whose question its answer shows
READS = "reads"  # in the place of a private question: the id of the thread that it is about

_Unknown = discord.PartialMessageable  # the library's class for unknown channels
NAME = "discord"
_MARKUP = re.compile(r"<(?P<kind>@|@&|#)!?(?P<id>\d{15,20})>")
_STARTER = discord.MessageType.thread_starter_message
_SAID = (
    discord.MessageType.default,
    discord.MessageType.reply,
    discord.MessageType.chat_input_command,
    discord.MessageType.context_menu_command,
)
_WRITTEN = (discord.MessageType.default, discord.MessageType.reply)


def turn_id(snowflake: int) -> str:
    """Return the id of the turn that a message or an interaction asks for."""
    return f"{NAME}:{snowflake}"


def replied_to(message: discord.Message) -> discord.Message | None:
    """Return the message to which a message replies; None without one, or if it was deleted."""
    found = message.reference.resolved if message.reference else None
    return found if isinstance(found, discord.Message) else None


def context_message(message: discord.Message, user_id: int) -> ContextMessage:
    """Convert a message to context for the prompt; `user_id` is the bot's."""
    id_, text = turn_id(message.id), text_of(message, user_id, role_id=0)
    if message.author.id == user_id:
        # Its files repeat what it said.
        return ContextMessage(id_, None, text)
    return ContextMessage(id_, person_of(message.author), text, files=files_of(message))


def files_of(message: discord.Message, *, asks: bool = False) -> tuple[FileRef, ...]:
    """Return the files of a message, whose channel gives their addresses, which expire.

    Those of a question have them already: if it is deleted, it is not answered.
    """
    id_, place = turn_id(message.id), {"channel": str(message.channel.id)}
    return tuple(
        FileRef(turn_id(one.id), id_, one.filename, one.size, place | signed)
        for one in message.attachments
        for signed in ({"signed": one.url} if asks else {},)
    )


def quote_of(message: discord.Message, user_id: int) -> ContextMessage | None:
    """Return the message to which a message replies, with an empty text if only its id is known.

    None if it was deleted or is in another channel, which the asker may not see.
    """
    reference = message.reference
    if message.type is not discord.MessageType.reply or reference is None:
        return None
    if reference.message_id is None or reference.channel_id != message.channel.id:
        return None
    match reference.resolved:
        case discord.Message() as quoted:
            return context_message(quoted, user_id)
        # Discord did not fetch it (Discord's documentation, "Message Structure").
        case None:
            return ContextMessage(turn_id(reference.message_id), None, "")
    return None


def has_threads(channel: Channel) -> bool:
    """Whether a channel can have several conversations at once."""
    return not isinstance(channel, discord.Thread | discord.DMChannel)


def message_turn(
    message: discord.Message,
    channel: Channel,
    *,
    text: str,
    continued_thread: ThreadKey | None,
    threads: bool,
    user_id: int,
) -> Turn:
    """Return the turn of a message for the bot.

    `continued_thread` is the thread that a reply in a channel continues; without one, a message in
    a channel begins a new thread, in a Discord thread if `threads` is set. `user_id` is the bot's.
    """
    side_by_side = has_threads(channel)
    address = ChannelAddress(
        channel.id,
        message.id if side_by_side else None,
        # The chats of voice and stage channels have no threads.
        opens_thread=isinstance(channel, discord.TextChannel) and not continued_thread and threads,
    )
    return Turn(
        id=turn_id(message.id),
        key=continued_thread or _key(message, channel),
        person=person_of(message.author),
        text=text,
        place=address.to_json() | readable_by(_permissions(message, channel)),
        asked_at=message.created_at.timestamp(),
        where=where_of(channel, user_id),
        files=files_of(message, asks=True),
        quote=quote_of(message, user_id),
        joins=True,
        asker=Asker(direct=isinstance(channel, discord.DMChannel), roles=roles_of(message.author)),
    )


def server_of(message: discord.Message) -> int | None:
    """Return the server of a message, which the library may not know; None in a DM."""
    if message.guild is not None:
        return message.guild.id
    channel = message.channel
    return channel.guild_id if isinstance(channel, discord.PartialMessageable) else None


def roles_of(user: discord.User | discord.Member) -> tuple[str, ...]:
    """Return the ids of a member's roles."""
    # `roles` lacks those that are not in the library's cache, which is empty after a RESUME.
    return tuple(map(str, user._roles)) if isinstance(user, discord.Member) else ()


def context_message_in(client: discord.Client, payload: Payload) -> ContextMessage | None:
    """Convert a channel message to context; None for system messages.

    A thread's first message refers to the one from which it was opened, which is returned then.
    """
    # That from which a thread was opened is in the channel, where its files are found again.
    channel = client.get_partial_messageable(int(payload["channel_id"]))
    message = read_message(channel, payload)
    if message and message.type is _STARTER:
        message = replied_to(message)
    elif message and message.type not in _SAID:
        return None
    if message is None:
        return None
    is_person = not (message.author.bot or message.webhook_id)
    return replace(context_message(message, own_id(client)), in_thread=is_person)


def _permissions(message: discord.Message, channel: Channel) -> discord.Permissions:
    """Return the author's permissions; none if they are unknown."""
    if isinstance(channel, discord.DMChannel):
        return EVERYTHING
    author = message.author
    # The role of everybody has the server's id; it is missing if the server could not be looked up.
    if channel.guild.get_role(channel.guild.id) and isinstance(author, discord.Member):
        with suppress(discord.ClientException):  # a thread of a channel that is not known
            return channel.permissions_for(author)
    _log.warning("Message %d gets no context: its author's permissions are unknown", message.id)
    return discord.Permissions.none()


def readable_by(permissions: discord.Permissions) -> dict[str, Json]:
    """Return the marker for turns whose person may not read the channel's history."""
    return {} if permissions.read_message_history else {HIDDEN: True}


def text_of(message: discord.Message, user_id: int, *, role_id: int) -> str:
    """Return what a message shows to this user; empty if it only mentions them or their role.

    Other mentions become names.
    """
    people = {user.id: user.display_name for user in message.mentions}

    def name(match: re.Match[str]) -> str:
        kind, number = match["kind"], int(match["id"])
        found: object = people.get(number) if kind == "@" else None
        if kind != "@" and isinstance(message.guild, discord.Guild):
            get = message.guild.get_role if kind == "@&" else message.guild.get_channel_or_thread
            found = get(number)
        return f"{kind[0]}{found}" if found else match[0]

    own = rf"<@(?:!?{user_id}|&{role_id})>"
    if message.author.id == user_id:
        # Its buttons are no part of what it said.
        parts = [without_escapes(message.content)]
    else:
        content = re.sub(rf"^\s*{own}[,:]?|[ ]?{own}", "", message.content)
        parts = [content, beside_text(message)]
    text = _MARKUP.sub(name, "\n".join(filter(None, map(str.strip, parts))))
    return text if is_visible(text) else ""


def _key(message: discord.Message, channel: Channel) -> ThreadKey:
    if isinstance(channel, discord.DMChannel):
        return ThreadKey(NAME, "dm", str(channel.id), str(channel.id))
    guild = str(channel.guild.id)
    if isinstance(channel, discord.Thread):
        return ThreadKey(NAME, guild, str(channel.parent_id), str(channel.id))
    # The thread that is opened from a message will have the message's id.
    return ThreadKey(NAME, guild, str(channel.id), str(message.id))


def where_of(channel: object, user_id: int) -> str:
    """Return the names of a channel and its server, as far as they are cached.

    A thread that the bot, `user_id`, has opened is named by a question, which people may want to be
    forgotten: its channel is named instead.
    """
    if not isinstance(channel, Channel) or isinstance(channel, discord.DMChannel):
        return ""
    # After a RESUME no server is cached.
    server = getattr(channel.guild, "name", None)
    named: discord.abc.GuildChannel | discord.Thread | None = channel
    if isinstance(channel, discord.Thread) and channel.owner_id == user_id:
        named = channel.parent
    return " of ".join(filter(None, [f"#{named.name}" if named else "", server]))


def person_of(user: discord.User | discord.Member) -> Person:
    """Convert a user to a person of the core."""
    # One account has one id in every server and DM.
    return Person(id=str(user.id), name=one_line(user.display_name))


@dataclass(frozen=True, slots=True)
class Relevance:
    """How it is found out whether a message is for the bot.

    `needs_lookup`: its channel or its server must be fetched. `needs_store_check`: only the store
    knows if it is for the bot.
    """

    needs_lookup: bool
    needs_store_check: bool


class MessageFilter:
    """Decides whether messages are for the bot.

    A resumed session lists no servers, so each server and thread is fetched once by REST; then the
    gateway's events keep the cache current. The bot's own role is the one that Discord creates when
    a bot is invited with permissions; people mention it instead of the bot.
    """

    def __init__(self, client: discord.Client, *, remembered: int) -> None:
        self._client = client
        # The kind and the owner of a channel never change.
        self._channels: BoundedCache[int, object] = BoundedCache(capacity=remembered)
        # Servers whose lookup failed.
        self._unavailable: BoundedCache[int, bool] = BoundedCache(capacity=remembered)

    def relevance(self, message: discord.Message, *, edited: bool = False) -> Relevance | None:
        """Return None if a message cannot concern the bot, before anything is looked up."""
        if message.author.bot or message.webhook_id or message.type not in _WRITTEN:
            return None
        channel, calls_bot = self._known_channel(message), self._calls_bot(message)
        is_dm, is_unknown = isinstance(channel, discord.DMChannel), isinstance(channel, _Unknown)
        # A question without its mention is still one.
        may_follow = edited or is_unknown or isinstance(channel, discord.Thread)
        # Without the Message Content intent a message that does not call the bot has no text.
        follows = may_follow and self._client.intents.message_content
        may_call = is_dm or calls_bot is not False
        if not may_call and not follows:
            return None
        return Relevance(
            needs_lookup=is_unknown or calls_bot is None,
            needs_store_check=not may_call and not is_opened_by(self._client, channel),
        )

    async def look_up(self, message: discord.Message) -> Channel | None:
        """Return its channel; None for unsupported kinds. Raises SurfaceError."""
        server = server_of(message)
        if server is not None and not self._is_settled(server):
            await self._look_up_server(server)
        channel = self._known_channel(message)
        if isinstance(channel, _Unknown):
            channel = await fetch_channel(self._client, message.channel.id)
            self._channels.put(message.channel.id, channel)
        await self._look_up_author(message)
        return channel if isinstance(channel, Channel) else None

    async def roles(self, message: discord.Message) -> Sequence[str]:
        """Return the ids of the author's roles. Raises SurfaceError."""
        await self._look_up_author(message)
        return roles_of(message.author)

    def facts(self, message: discord.Message) -> Facts:
        """Return the facts of a message except its thread. Call `look_up` first."""
        others = _addressees(message) - {own_id(self._client), message.author.id}
        roles = _mentioned_roles(message) - {self.role(message)}
        return Facts(
            direct=isinstance(self._known_channel(message), discord.DMChannel),
            calls_bot=self._calls_bot(message) is True,
            calls_other=bool(others or roles) or message.mention_everyone,
        )

    def _calls_bot(self, message: discord.Message) -> bool | None:
        """Whether a message mentions or answers the bot; None until its role is looked up."""
        if own_id(self._client) in _addressees(message):
            return True
        mentioned = _mentioned_roles(message)
        own = self.role(message) if mentioned else 0
        return None if own is None else own > 0 and own in mentioned

    def role(self, message: discord.Message) -> int | None:
        """Return the id of the bot's own role: 0 if there is none, None until it is looked up."""
        server = server_of(message)
        if server is None:
            return 0
        if not self._is_settled(server):
            return None
        guild = self._client.get_guild(server)
        return guild.self_role.id if guild and guild.self_role else 0

    def _known_channel(self, message: discord.Message) -> object:
        channel = self._channels.get(message.channel.id) or message.channel
        if isinstance(channel, _Unknown):
            # Its server may have been looked up since the message came.
            return self._client.get_channel(channel.id) or channel
        return channel

    def _is_settled(self, server: int) -> bool:
        guild = self._client.get_guild(server)
        # The role of everybody has the server's id; it is missing until the server is shown.
        is_shown = guild is not None and guild.get_role(server) is not None
        return is_shown or self._unavailable.get(server) is True

    async def _look_up_server(self, server: int) -> None:
        ids = {"guild_id": server}
        try:
            data = await request(self._client, "GET", "/guilds/{guild_id}", ids)
            channels = await request(self._client, "GET", "/guilds/{guild_id}/channels", ids)
        except WriteRefused as error:
            _log.warning("Server %d cannot be looked up: %s", server, error)
            self._unavailable.put(server, True)
            return
        if not add_server(self._client, data | {"channels": channels}):
            self._unavailable.put(server, True)

    async def _look_up_author(self, message: discord.Message) -> None:
        """Add the member, which a message of REST lacks (documentation, "Message Create")."""
        server = server_of(message)
        guild = self._client.get_guild(server) if server else None
        if guild and isinstance(message.author, discord.User):
            with suppress(PlaceGone, WriteRefused):  # the person has left
                async with translated():
                    message.author = await guild.fetch_member(message.author.id)


def is_opened_by(client: discord.Client, channel: object) -> bool:
    """Whether a channel is a thread that the bot has opened."""
    return isinstance(channel, discord.Thread) and channel.owner_id == own_id(client)


def _addressees(message: discord.Message) -> set[int]:
    """Return the people whom a message mentions, and the one to whom it replies."""
    replied = replied_to(message)
    return {user.id for user in message.mentions} | ({replied.author.id} if replied else set())


def _mentioned_roles(message: discord.Message) -> set[int]:
    # The library resolves only roles in its cache. The text has the ids of all, perhaps of one
    # that the person may not ping. Guess: `mention_roles` omits such a role.
    return {role.id for role in message.role_mentions} | {*message.raw_role_mentions}
