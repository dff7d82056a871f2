"""What stands in the emulated Discord: every change is published."""

from __future__ import annotations

import secrets
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from tests.emulators.clock import Clock
from tests.emulators.discord import mentions
from tests.emulators.discord.cdn import Cdn
from tests.emulators.discord.forms import Form
from tests.emulators.discord.gateway import DIRECT_MESSAGES, GUILD_MESSAGES, GUILDS, Event
from tests.emulators.discord.interaction import Interaction
from tests.emulators.discord.message import (
    DEFAULT,
    HAS_THREAD,
    LOADING,
    REPLY,
    STARTER,
    SUPPRESS_EMBEDS,
    Message,
)
from tests.emulators.discord.objects import (
    ATTACH_FILES,
    DM,
    MANAGE_CHANNELS,
    MANAGE_SERVER,
    PERMISSIONS,
    PUBLIC_THREAD,
    TEXT,
    Channel,
    Payload,
    User,
    now,
    role,
    snowflake,
)
from tests.emulators.discord.request import Refusal, bad_form
from tests.emulators.timeline import Moment

RIGHTS = {"": 0, "channel": MANAGE_CHANNELS, "server": MANAGE_SERVER}
NONCE_SECONDS = 180.0  # "the past few minutes" (docs: Create Message, enforce_nonce)


@dataclass(slots=True)
class World:
    """One guild with its people, channels and messages.

    `pings` lists whom a text of the bot mentioned without being forbidden to, `unguarded` the
    texts that the bot wrote without `allowed_mentions`. `closed` are the channels, and with True
    the channels whose threads, where the bot may not send messages. `moments` has what happened
    on the screen of each channel. `permissions` are those of everybody in the guild, the bot
    included, unless it `has_left`.
    """

    publish: Callable[[Event], None]
    clock: Clock
    cdn: Cdn
    bot: User = field(default_factory=lambda: User(snowflake(), "parley", bot=True))
    application_id: str = field(default_factory=snowflake)
    guild_id: str = field(default_factory=snowflake)
    permissions: str = PERMISSIONS
    guild_locale: str = "en-US"
    has_left: bool = False
    joined_at: str = field(default_factory=now)  # when the bot came to the guild
    users: dict[str, User] = field(default_factory=dict)
    roles: dict[str, Payload] = field(default_factory=dict)
    channels: dict[str, Channel] = field(default_factory=dict)
    messages: dict[str, Message] = field(default_factory=dict)
    _standing: dict[str, list[Message]] = field(default_factory=dict)  # by channel
    interactions: dict[str, Interaction] = field(default_factory=dict)
    commands: list[Payload] = field(default_factory=list)
    server_commands: dict[str, list[Payload]] = field(default_factory=dict)  # by server
    typing: list[str] = field(default_factory=list)
    pings: list[str] = field(default_factory=list)
    unguarded: list[str] = field(default_factory=list)
    closed: set[tuple[str | None, bool]] = field(default_factory=set)
    moments: dict[str, list[Moment]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self.users[self.bot.id] = self.bot

    def add_user(
        self,
        name: str,
        *,
        bot: bool = False,
        moderates: bool = False,
        manages: Literal["", "channel", "server"] = "",
        locale: str = "en-US",
    ) -> str:
        """Let a new person (or another bot) join the guild; return the id.

        One that `moderates` may manage the messages of others there, and one that `manages` the
        channels, or the server.
        """
        user = User(snowflake(), name, bot, moderates, RIGHTS[manages], locale=locale)
        self.users[user.id] = user
        return user.id

    def add_role(self, name: str, *, own: bool = False) -> str:
        """Make a role in the guild; return its id, for `<@&id>`.

        Nobody has it, or it is the bot's `own`, which Discord makes when a bot is invited.
        """
        role_id = snowflake()
        self.roles[role_id] = role(role_id, name, bot_id=self.bot.id if own else None)
        told: Payload = {"guild_id": self.guild_id, "role": self.roles[role_id]}
        self.publish(Event("GUILD_ROLE_CREATE", told, intents=GUILDS))
        return role_id

    def all_roles(self) -> list[Payload]:
        """Return the roles of the guild, the one that every member has first."""
        everyone = role(self.guild_id, "@everyone") | {"permissions": self.permissions}
        return [everyone, *self.roles.values()]

    def add_channel(self, name: str, *, kind: Literal[0, 2, 13] = TEXT) -> str:
        """Make another channel in the guild, of one of Discord's kinds; return its id."""
        channel = Channel(snowflake(), kind, name, guild_id=self.guild_id)
        self.channels[channel.id] = channel
        self.publish(Event("CHANNEL_CREATE", channel.payload(), intents=GUILDS))
        return channel.id

    def add_foreign(self, kind: Literal[0, 1, 3], *user_ids: str) -> str:
        """Return the id of a place where the bot is no member.

        That is a channel of another server, or a DM or group DM of these people. Who uses a command
        there has installed the bot for themselves.
        """
        members = tuple(self.users[one] for one in user_ids)
        guild_id = None if members else snowflake()
        channel = Channel(
            snowflake(), kind, "elsewhere", guild_id=guild_id, foreign=True, members=members
        )
        self.channels[channel.id] = channel
        return channel.id

    def dm_with(self, user_id: str) -> str:
        """Return the id of the DM channel of this person and the bot, always the same."""
        user = self.users[user_id]
        for channel in self.channels.values():
            if channel.recipient is user:
                return channel.id
        channel = Channel(snowflake(), DM, recipient=user)
        self.channels[channel.id] = channel
        return channel.id

    def channel(self, channel_id: str) -> Channel:
        """Return the channel; refuse an unknown one."""
        channel = self.channels.get(channel_id)
        if channel is None:
            raise Refusal(404, 10003, "Unknown Channel")
        return channel

    def open_channel(self, channel_id: str) -> Channel:
        """Return a channel that the bot may see; refuse another."""
        channel = self.channel(channel_id)
        if channel.foreign:
            raise Refusal(403, 50001, "Missing Access")
        return channel

    def message(self, channel_id: str, message_id: str) -> Message:
        """Return a message that stands in the channel for all to see; refuse any other."""
        channel = self.open_channel(channel_id)
        found = self.messages.get(message_id)
        if found is None or found.deleted or found.ephemeral or found.channel is not channel:
            raise Refusal(404, 10008, "Unknown Message")
        return found

    def standing(self, channel: Channel) -> list[Message]:
        """Return what was ever written in a channel, oldest first."""
        return self._standing.get(channel.id, [])

    def show_typing(self, channel: Channel) -> None:
        """Show in a channel that the bot is typing."""
        self.typing.append(channel.id)
        self.moments[channel.id].append(Moment(time.monotonic(), "sign", "", ""))

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
        if author is self.bot:
            self._let_in(channel, permitted=interaction is not None)
        if channel.archived:
            self.archive(channel, archived=False, locked=channel.locked)
        if form.enforce_nonce and (earlier := self._written(author, form.nonce)):
            return earlier
        self._check_files(author, channel, form)
        message = self._new(channel, author)
        message.kind, message.interaction, message.nonce = kind, interaction, form.nonce
        message.flags = (form.flags or 0) | (LOADING if loading else 0)
        if form.reply_to:
            message.reply_to = self._question(channel, form)
            message.kind = REPLY if message.reply_to else kind
        message.attachments = [self.cdn.upload(channel.id, one) for one in form.files]
        self._write(message, form, may_be_empty=loading or bool(form.files))
        self._keep(message)
        return message

    def forward(self, channel: Channel, author: User, original: Message) -> Message:
        """Show another message here, as it is now."""
        message = self._new(channel, author)
        message.forward(original)
        message.states.append(message.visible)
        self._keep(message)
        return message

    def edit(self, message: Message, form: Form, *, tells: bool = True) -> None:
        """Change a message; the first text of one that was "thinking" is no edit."""
        if message.channel.archived:
            raise _archived(400)
        self._check_files(message.author, message.channel, form)
        self._write(message, form, may_be_empty=False)
        if form.kept is not None:
            message.attachments = [it for it in message.attachments if it["id"] in form.kept]
        message.attachments += [self.cdn.upload(message.channel.id, one) for one in form.files]
        was_loading = message.flags & LOADING
        message.flags &= ~LOADING
        if form.flags is not None:
            message.flags = message.flags & ~SUPPRESS_EMBEDS | form.flags & SUPPRESS_EMBEDS
        message.edited_at = message.edited_at if was_loading else now()
        self._notice("edit", message)
        if tells:
            self._tell("MESSAGE_UPDATE", message)

    def delete(self, *gone: Message) -> None:
        """Take messages of one channel away; more than one at once is a sweep."""
        for message in gone:
            message.deleted = True
            self._notice("delete", message)
        told = [message.id for message in gone if not message.ephemeral]
        channel = gone[0].channel
        if not told or channel.foreign:
            return
        where: Payload = {"channel_id": channel.id}
        if channel.guild_id:
            where["guild_id"] = channel.guild_id
        if len(gone) > 1:
            event = Event("MESSAGE_DELETE_BULK", {"ids": told} | where, intents=_intent(channel))
        else:
            event = Event("MESSAGE_DELETE", {"id": told[0]} | where, intents=_intent(channel))
        self.publish(event)

    def archive(self, thread: Channel, *, archived: bool, locked: bool) -> None:
        """Archive a thread or open it again."""
        thread.archived, thread.locked = archived, locked
        self.publish(Event("THREAD_UPDATE", thread.payload(), intents=GUILDS))

    def unarchive(self, thread: Channel) -> None:
        """Open a thread again as the bot, which does not manage threads."""
        if thread.locked or self._is_closed(thread):
            raise Refusal(403, 50013, "Missing Permissions")
        self.archive(thread, archived=False, locked=False)

    def open_thread(self, message: Message, owner: User, name: str) -> Channel:
        """Open the one thread that a message can ever have; its id is the message's."""
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
            owner_id=owner.id,
            participant=self.bot.id if owner is self.bot else None,
            hides_history=message.channel.hides_history,
        )
        self.channels[thread.id] = message.thread = thread
        message.flags |= HAS_THREAD
        created = thread.payload() | {"newly_created": True}
        self.publish(Event("THREAD_CREATE", created, intents=GUILDS))
        self._tell("MESSAGE_UPDATE", message)
        self._start(thread, message, owner)
        return thread

    def interact(
        self,
        kind: int,
        user: User,
        channel: Channel,
        data: Payload,
        *,
        message: Message | None = None,
        target: Message | None = None,
        opened_by: Interaction | None = None,
    ) -> Interaction:
        """Tell the bot that a person used a command (2), pressed a button (3) or sent a form."""
        interaction = self.begin(kind, user, channel, data, message=message)
        interaction.target, interaction.opened_by = target, opened_by
        self.tell_again(interaction)
        return interaction

    def begin(
        self,
        kind: int,
        user: User,
        channel: Channel,
        data: Payload,
        *,
        message: Message | None = None,
    ) -> Interaction:
        """Return an interaction that the bot can answer, but is not told of."""
        interaction = Interaction(
            id=snowflake(),
            application_id=self.application_id,
            token=secrets.token_urlsafe(24),
            kind=kind,
            user=user,
            channel=channel,
            data=data,
            created_at=self.clock.now(),
            message=message,
            guild_locale=self.guild_locale,
        )
        self.interactions[interaction.id] = interaction
        return interaction

    def tell_again(self, thing: Message | Interaction) -> None:
        """Publish the event of its creation."""
        if isinstance(thing, Message):
            self._tell("MESSAGE_CREATE", thing)
        else:
            self.publish(Event("INTERACTION_CREATE", thing.payload()))

    def _start(self, thread: Channel, message: Message, owner: User) -> None:
        """Let a thread begin with what points at its message (docs: Message Types).

        That nothing is told of it is a guess; in REST it is there (discord-api-docs, issue 5256).
        """
        first = self._new(thread, owner)
        first.kind, first.reply_to = STARTER, message
        self._add(first)

    def _new(self, channel: Channel, author: User) -> Message:
        return Message(snowflake(), channel, author, self.cdn, created_at=self.clock.now())

    def _add(self, message: Message) -> None:
        self.messages[message.id] = message
        self._standing.setdefault(message.channel.id, []).append(message)

    def _keep(self, message: Message) -> None:
        self._add(message)
        if not message.ephemeral:
            message.channel.last_message_id = message.id
        self._notice("post", message)
        self._tell("MESSAGE_CREATE", message)

    def _notice(self, what: Literal["post", "edit", "delete"], message: Message) -> None:
        if message.kind == STARTER:
            return
        text = "" if message.deleted else message.visible
        moment = Moment(time.monotonic(), what, message.id, text)
        self.moments[message.channel.id].append(moment)

    def _let_in(self, channel: Channel, *, permitted: bool) -> None:
        """Let the bot write in a channel, and take part in a thread; or refuse it."""
        if not permitted and channel.foreign:
            raise Refusal(403, 50001, "Missing Access")
        if not permitted and self._is_closed(channel):
            raise Refusal(403, 50013, "Missing Permissions")
        if channel.archived and channel.locked:
            raise _archived(403)
        channel.participant = self.bot.id

    def _check_files(self, author: User, channel: Channel, form: Form) -> None:
        """Refuse the bot's files without the permission; that an edit needs it, too, is a guess."""
        may = int(self.permissions) & ATTACH_FILES or not channel.guild_id
        if form.files and author is self.bot and not may:
            raise Refusal(403, 50013, "Missing Permissions")

    def _write(self, message: Message, form: Form, *, may_be_empty: bool) -> None:
        text = message.text if form.text is None else form.text
        embeds = message.embeds if form.embeds is None else form.embeds
        if not text and not embeds and not may_be_empty:
            raise Refusal(400, 50006, "Cannot send an empty message")
        message.show(text)
        message.embeds = embeds
        if form.components is not None:
            message.components = form.components
        message.mentions = [self.users[one] for one in mentions.users(text) if one in self.users]
        message.roles = [one for one in mentions.roles(text) if one in self.roles]
        replied = message.reply_to.author if message.reply_to and form.pings_replied else None
        if replied and replied not in message.mentions:
            message.mentions.append(replied)
        if form.text is not None:
            message.everyone = any(one.startswith("@") for one in form.pings())
        if message.author is self.bot and form.text:
            self.pings += form.pings()
            if not form.guarded:
                self.unguarded.append(form.text)

    def _is_closed(self, channel: Channel) -> bool:
        return (channel.id, False) in self.closed or (channel.parent_id, True) in self.closed

    def _written(self, author: User, nonce: str | None) -> Message | None:
        since = self.clock.now() - NONCE_SECONDS
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
        if message.ephemeral or message.channel.foreign:
            return
        veiled = message.event(veiled_from=self.bot)
        self.publish(Event(name, message.event(), veiled, _intent(message.channel)))


def _archived(status: int) -> Refusal:
    return Refusal(status, 50083, "Thread is archived")


def _intent(channel: Channel) -> int:
    return GUILD_MESSAGES if channel.guild_id else DIRECT_MESSAGES
