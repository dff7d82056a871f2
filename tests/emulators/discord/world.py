"""What stands in the emulated Discord: every change is published."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from tests.emulators.discord.forms import Form, Refusal, bad_form, mentioned
from tests.emulators.discord.gateway import DIRECT_MESSAGES, GUILD_MESSAGES, GUILDS, Event
from tests.emulators.discord.objects import (
    DEFAULT,
    DM,
    HAS_THREAD,
    LOADING,
    PERMISSIONS,
    PUBLIC_THREAD,
    REPLY,
    SUPPRESS_EMBEDS,
    TEXT,
    Channel,
    Interaction,
    Message,
    Payload,
    User,
    now,
    snowflake,
)

NONCE_SECONDS = 180.0  # "the past few minutes" (docs: Create Message, enforce_nonce)


@dataclass(slots=True)
class World:
    """One guild with its people, channels and messages.

    `pings` lists whom a text of the bot mentioned without being forbidden to, `unguarded` the
    texts that the bot wrote without `allowed_mentions`. `closed` are the channels, and with True
    the channels whose threads, where the bot may not send messages.
    """

    publish: Callable[[Event], None]
    bot: User = field(default_factory=lambda: User(snowflake(), "parley", bot=True))
    application_id: str = field(default_factory=snowflake)
    guild_id: str = field(default_factory=snowflake)
    users: dict[str, User] = field(default_factory=dict)
    channels: dict[str, Channel] = field(default_factory=dict)
    messages: dict[str, Message] = field(default_factory=dict)
    interactions: dict[str, Interaction] = field(default_factory=dict)
    commands: list[Payload] = field(default_factory=list)
    typing: list[str] = field(default_factory=list)
    pings: list[str] = field(default_factory=list)
    unguarded: list[str] = field(default_factory=list)
    closed: set[tuple[str | None, bool]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.users[self.bot.id] = self.bot

    def add_user(self, name: str, *, bot: bool) -> User:
        """Return a new user."""
        user = User(snowflake(), name, bot)
        self.users[user.id] = user
        return user

    def add_channel(self, name: str) -> Channel:
        """Return a new text channel of the guild."""
        channel = Channel(snowflake(), TEXT, name, guild_id=self.guild_id)
        self.channels[channel.id] = channel
        self.publish(Event("CHANNEL_CREATE", channel.payload(), intents=GUILDS))
        return channel

    def dm_with(self, user_id: str) -> Channel:
        """Return the DM channel of this user and the bot, always the same."""
        user = self.users.get(user_id)
        if user is None or user.bot:
            raise Refusal(400, 50033, "Invalid Recipient(s)")
        for channel in self.channels.values():
            if channel.recipient is user:
                return channel
        channel = Channel(snowflake(), DM, recipient=user)
        self.channels[channel.id] = channel
        return channel

    def channel(self, channel_id: str) -> Channel:
        """Return the channel; refuse an unknown one."""
        try:
            return self.channels[channel_id]
        except KeyError:
            raise Refusal(404, 10003, "Unknown Channel") from None

    def message(self, channel_id: str, message_id: str) -> Message:
        """Return a message that stands in the channel for all to see; refuse any other."""
        channel = self.channel(channel_id)
        found = self.messages.get(message_id)
        if found is None or found.deleted or found.ephemeral or found.channel is not channel:
            raise Refusal(404, 10008, "Unknown Message")
        return found

    def post(
        self,
        channel: Channel,
        author: User,
        form: Form,
        *,
        kind: int = DEFAULT,
        interaction: Interaction | None = None,
        loading: bool = False,
    ) -> Message:
        """Write a new message, or return the earlier one of the same enforced nonce.

        One that is `loading` says "thinking" until its first edit. A message unarchives its thread,
        and answers of interactions need no permission.
        """
        if author is self.bot and interaction is None and self._is_closed(channel):
            raise Refusal(403, 50013, "Missing Permissions")
        if channel.archived:
            if channel.locked and author is self.bot:
                raise _archived(403)
            self.archive(channel, archived=False, locked=channel.locked)
        if form.enforce_nonce and (earlier := self._written(author, form.nonce)):
            return earlier
        flags = (form.flags or 0) | (LOADING if loading else 0)
        message = Message(snowflake(), channel, author, kind=kind, flags=flags)
        message.interaction, message.nonce = interaction, form.nonce
        if form.reply_to:
            message.reply_to = self._question(channel, form)
            message.kind = REPLY if message.reply_to else kind
        self._write(message, form, may_be_empty=loading)
        self.messages[message.id] = message
        self._tell("MESSAGE_CREATE", message)
        return message

    def edit(self, message: Message, form: Form) -> None:
        """Change a message; the first text of one that was "thinking" is no edit."""
        if message.channel.archived:
            raise _archived(400)
        self._write(message, form, may_be_empty=False)
        was_loading = message.flags & LOADING
        message.flags &= ~LOADING
        if form.flags is not None:
            message.flags = message.flags & ~SUPPRESS_EMBEDS | form.flags & SUPPRESS_EMBEDS
        message.edited_at = message.edited_at if was_loading else now()
        self._tell("MESSAGE_UPDATE", message)

    def delete(self, message: Message) -> None:
        """Take a message away."""
        message.deleted = True
        if message.ephemeral:
            return
        gone: Payload = {"id": message.id, "channel_id": message.channel.id}
        if message.channel.guild_id:
            gone["guild_id"] = message.channel.guild_id
        self.publish(Event("MESSAGE_DELETE", gone, intents=_intent(message.channel)))

    def archive(self, thread: Channel, *, archived: bool, locked: bool) -> None:
        """Archive a thread or open it again."""
        thread.archived, thread.locked = archived, locked
        self.publish(Event("THREAD_UPDATE", thread.payload(), intents=GUILDS))

    def unarchive(self, thread: Channel) -> None:
        """Open a thread again as the bot, which does not manage threads."""
        if thread.locked or self._is_closed(thread):
            raise Refusal(403, 50013, "Missing Permissions")
        self.archive(thread, archived=False, locked=False)

    def open_thread(self, message: Message, name: str) -> Channel:
        """Open, for the bot, the one thread that a message can have; its id is the message's."""
        if message.channel.kind != TEXT:
            raise Refusal(400, 50024, "Cannot execute action on this channel type")
        if message.thread:
            raise Refusal(400, 160004, "A thread has already been created for this message")
        thread = Channel(
            message.id,
            PUBLIC_THREAD,
            name,
            guild_id=self.guild_id,
            parent_id=message.channel.id,
            owner_id=self.bot.id,
        )
        self.channels[thread.id] = message.thread = thread
        message.flags |= HAS_THREAD
        created = thread.payload() | {"newly_created": True}
        self.publish(Event("THREAD_CREATE", created, intents=GUILDS))
        self._tell("MESSAGE_UPDATE", message)
        return thread

    def interact(
        self,
        kind: Literal[2, 3],
        user: User,
        channel: Channel,
        data: Payload,
        *,
        message: Message | None = None,
    ) -> Interaction:
        """Tell the bot that a person used a command (2) or pressed a button (3)."""
        interaction = Interaction(
            id=snowflake(),
            application_id=self.application_id,
            token=secrets.token_urlsafe(24),
            kind=kind,
            user=user,
            channel=channel,
            data=data,
            message=message,
        )
        self.interactions[interaction.id] = interaction
        self.tell_again(interaction)
        return interaction

    def tell_again(self, thing: Message | Interaction) -> None:
        """Publish the event of its creation."""
        if isinstance(thing, Message):
            self._tell("MESSAGE_CREATE", thing)
        else:
            self.publish(Event("INTERACTION_CREATE", thing.payload()))

    def guild(self) -> Payload:
        """Return the guild as GUILD_CREATE tells of it."""
        channels = [one for one in self.channels.values() if one.guild_id]
        everyone: Payload = {"id": self.guild_id, "name": "@everyone", "permissions": PERMISSIONS}
        everyone |= {"color": 0, "hoist": False, "position": 0, "managed": False}
        return {
            "id": self.guild_id,
            "name": "The workshop",
            "owner_id": "1",
            "joined_at": now(),
            "large": False,
            "unavailable": False,
            "member_count": len(self.users),
            "roles": [everyone | {"mentionable": False, "flags": 0}],
            "members": [self.bot.member() | {"user": self.bot.payload()}],
            "channels": [one.payload() for one in channels if one.kind == TEXT],
            "threads": [one.payload() for one in channels if one.kind == PUBLIC_THREAD],
            "features": [],
            "emojis": [],
            "stickers": [],
        }

    def _write(self, message: Message, form: Form, *, may_be_empty: bool) -> None:
        text = message.text if form.text is None else form.text
        embeds = message.embeds if form.embeds is None else form.embeds
        if not text and not embeds and not may_be_empty:
            raise Refusal(400, 50006, "Cannot send an empty message")
        message.show(text)
        message.embeds = embeds
        if form.components is not None:
            message.components = form.components
        message.mentions = [self.users[one] for one in mentioned(text) if one in self.users]
        if message.reply_to and form.pings_replied:
            message.mentions.append(message.reply_to.author)
        if message.author is self.bot and form.text:
            self.pings += form.pings()
            if form.allowed_mentions is None:
                self.unguarded.append(form.text)

    def _is_closed(self, channel: Channel) -> bool:
        return (channel.id, False) in self.closed or (channel.parent_id, True) in self.closed

    def _written(self, author: User, nonce: str | None) -> Message | None:
        since = time.monotonic() - NONCE_SECONDS
        for message in self.messages.values():
            same = message.author is author and message.nonce == nonce
            if nonce is not None and same and message.created_at > since:
                return message
        return None

    def _question(self, channel: Channel, form: Form) -> Message | None:
        try:
            return self.message(channel.id, form.reply_to or "")
        except Refusal:
            if form.reply_may_be_gone:
                return None
            code = "MESSAGE_REFERENCE_UNKNOWN_MESSAGE"
            raise bad_form("message_reference", code, "Unknown message") from None

    def _tell(self, name: str, message: Message) -> None:
        if message.ephemeral:
            return
        veiled = message.event(veiled_from=self.bot)
        self.publish(Event(name, message.event(), veiled, _intent(message.channel)))


def _archived(status: int) -> Refusal:
    return Refusal(status, 50083, "Thread is archived")


def _intent(channel: Channel) -> int:
    return GUILD_MESSAGES if channel.guild_id else DIRECT_MESSAGES
