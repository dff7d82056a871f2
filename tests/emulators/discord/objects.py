"""Users, channels, messages and interactions, as Discord writes them in JSON."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal

Payload = dict[str, object]

TEXT: Final = 0
DM: Final = 1
PUBLIC_THREAD: Final = 11
DEFAULT, REPLY, COMMAND_RESPONSE = 0, 19, 20
SUPPRESS_EMBEDS, HAS_THREAD, EPHEMERAL, LOADING = 1 << 2, 1 << 5, 1 << 6, 1 << 7
# View, send, embed, attach, read history, mention everyone, react, use commands, open public
# threads and write in them: what an operator grants a chat bot, and what makes pings hurt.
PERMISSIONS = str(sum(1 << bit for bit in (6, 10, 11, 14, 15, 16, 17, 31, 35, 38)))

_EPOCH_MS = 1_420_070_400_000
_serial = itertools.count()


def snowflake() -> str:
    """Return an id that is new in this process and sorts by time, as Discord's do."""
    milliseconds = time.time_ns() // 1_000_000 - _EPOCH_MS
    return str(milliseconds << 22 | next(_serial) & 0x3FFFFF)


def now() -> str:
    """Return the present moment as Discord writes it."""
    return datetime.now(UTC).isoformat()


@dataclass(frozen=True, slots=True)
class Shown:
    """A message as people see it; `buttons` are the custom ids of those that can be pressed."""

    id: str
    channel_id: str
    author_id: str
    text: str
    buttons: tuple[str, ...]
    ephemeral: bool
    reply_to: str | None
    edited: bool


@dataclass(frozen=True, slots=True)
class User:
    """A person, or a bot."""

    id: str
    name: str
    bot: bool = False

    def payload(self) -> Payload:
        """Return the user object."""
        return {
            "id": self.id,
            "username": self.name,
            "discriminator": "0",
            "global_name": self.name,
            "avatar": None,
            "bot": self.bot,
            "public_flags": 0,
        }

    def member(self) -> Payload:
        """Return the user's membership of the guild, without the user itself."""
        return {
            "roles": [],
            "nick": None,
            "avatar": None,
            "joined_at": now(),
            "premium_since": None,
            "deaf": False,
            "mute": False,
            "pending": False,
            "flags": 0,
        }


@dataclass(slots=True, eq=False)
class Channel:
    """A text channel (`guild_id`), a thread in one (`parent_id` too) or a DM (`recipient`).

    `archived` and `locked` are for threads only.
    """

    id: str
    kind: Literal[0, 1, 11]
    name: str = ""
    guild_id: str | None = None
    parent_id: str | None = None
    owner_id: str | None = None
    recipient: User | None = None
    archived: bool = False
    locked: bool = False
    created_at: str = field(default_factory=now)

    def payload(self) -> Payload:
        """Return the channel object."""
        seen: Payload = {"id": self.id, "type": self.kind, "flags": 0, "last_message_id": None}
        if self.recipient:
            return seen | {"recipients": [self.recipient.payload()]}
        seen |= {"guild_id": self.guild_id, "name": self.name, "rate_limit_per_user": 0}
        if self.kind == TEXT:
            return seen | {"position": 0, "permission_overwrites": [], "nsfw": False, "topic": None}
        return seen | self._thread_fields()

    def _thread_fields(self) -> Payload:
        return {
            "parent_id": self.parent_id,
            "owner_id": self.owner_id,
            "message_count": 0,
            "member_count": 1,
            "total_message_sent": 0,
            "thread_metadata": {
                "archived": self.archived,
                "auto_archive_duration": 1440,
                "archive_timestamp": self.created_at,
                "create_timestamp": self.created_at,
                "locked": self.locked,
            },
            "member": {
                "id": self.id,
                "user_id": self.owner_id,
                "join_timestamp": self.created_at,
                "flags": 0,
            },
        }


@dataclass(slots=True, eq=False)
class Message:
    """A message and every text that it has shown (`states`).

    `created_at` is in monotonic seconds.
    """

    id: str
    channel: Channel
    author: User
    text: str = ""
    kind: int = DEFAULT
    flags: int = 0
    components: list[object] = field(default_factory=list)
    embeds: list[object] = field(default_factory=list)
    mentions: list[User] = field(default_factory=list)
    reply_to: Message | None = None
    interaction: Interaction | None = None
    nonce: str | None = None
    thread: Channel | None = None
    created_at: float = field(default_factory=time.monotonic)
    sent_at: str = field(default_factory=now)
    edited_at: str | None = None
    deleted: bool = False
    states: list[str] = field(default_factory=list)

    @property
    def ephemeral(self) -> bool:
        """Whether only one person sees the message."""
        return bool(self.flags & EPHEMERAL)

    def show(self, text: str) -> None:
        """Make this the text."""
        self.text = text
        if text and (not self.states or self.states[-1] != text):
            self.states.append(text)

    def shown(self) -> Shown:
        """Return what people see."""
        return Shown(
            id=self.id,
            channel_id=self.channel.id,
            author_id=self.author.id,
            text=self.text,
            buttons=tuple(_buttons(self.components)),
            ephemeral=self.ephemeral,
            reply_to=self.reply_to.id if self.reply_to else None,
            edited=self.edited_at is not None,
        )

    def payload(self, *, veiled_from: User | None = None) -> Payload:
        """Return the message object; a bot that it is `veiled_from` sees no content of others.

        DMs, its own messages and those that mention it stay readable (docs: Message Content
        Intent).
        """
        veiled = veiled_from is not None and not self._is_open_to(veiled_from)
        seen: Payload = {
            "id": self.id,
            "channel_id": self.channel.id,
            "type": self.kind,
            "author": self.author.payload(),
            "content": "" if veiled else self.text,
            "components": [] if veiled else self.components,
            "embeds": [] if veiled else self.embeds,
            "attachments": [],
            "mentions": [user.payload() for user in self.mentions],
            "mention_roles": [],
            "mention_everyone": "@everyone" in self.text or "@here" in self.text,
            "timestamp": self.sent_at,
            "edited_timestamp": self.edited_at,
            "tts": False,
            "pinned": False,
            "flags": self.flags,
        }
        return seen | self._links(veiled_from)

    def event(self, *, veiled_from: User | None = None) -> Payload:
        """Return the message as the gateway tells of it: with the guild and the member."""
        seen = self.payload(veiled_from=veiled_from)
        if self.channel.guild_id is None:
            return seen
        return seen | {"guild_id": self.channel.guild_id, "member": self.author.member()}

    def _is_open_to(self, bot: User) -> bool:
        return self.channel.kind == DM or self.author is bot or bot in self.mentions

    def _links(self, veiled_from: User | None) -> Payload:
        """Return the keys that Discord leaves out where there is nothing to say."""
        seen: Payload = {}
        if self.nonce is not None:
            seen["nonce"] = self.nonce
        if self.thread:
            seen["thread"] = self.thread.payload()
        if self.interaction:
            seen["application_id"] = seen["webhook_id"] = self.interaction.application_id
            seen["interaction_metadata"] = self.interaction.metadata()
        if self.reply_to:
            seen["message_reference"] = _reference(self.reply_to)
            gone = self.reply_to.deleted
            seen["referenced_message"] = (
                None if gone else self.reply_to.payload(veiled_from=veiled_from)
            )
        return seen


@dataclass(slots=True, eq=False)
class Interaction:
    """A command that a person used (type 2), or a button that one pressed (type 3).

    `created_at` is in monotonic seconds. `original` is the message that answers it.
    """

    id: str
    application_id: str
    token: str
    kind: Literal[2, 3]
    user: User
    channel: Channel
    data: Payload
    created_at: float = field(default_factory=time.monotonic)
    message: Message | None = None
    answered: bool = False
    original: Message | None = None

    def metadata(self) -> Payload:
        """Return what a message says about the interaction that it answers."""
        return {
            "id": self.id,
            "type": self.kind,
            "user": self.user.payload(),
            "authorizing_integration_owners": self._owners(),
        }

    def payload(self) -> Payload:
        """Return the interaction object."""
        seen: Payload = {
            "id": self.id,
            "application_id": self.application_id,
            "type": self.kind,
            "token": self.token,
            "version": 1,
            "data": self.data,
            "channel": self.channel.payload() | {"permissions": PERMISSIONS},
            "channel_id": self.channel.id,
            "app_permissions": PERMISSIONS,
            "locale": "en-US",
            "entitlements": [],
            "authorizing_integration_owners": self._owners(),
            "context": 0 if self.channel.guild_id else 1,
            "attachment_size_limit": 10_485_760,
        }
        if self.message:
            seen["message"] = self.message.payload()
        return seen | self._asker()

    def _asker(self) -> Payload:
        user = self.user.payload()
        guild_id = self.channel.guild_id
        if guild_id is None:
            return {"user": user}
        return {
            "guild_id": guild_id,
            "guild": {"id": guild_id, "locale": "en-US", "features": []},
            "guild_locale": "en-US",
            "member": self.user.member() | {"user": user, "permissions": PERMISSIONS},
        }

    def _owners(self) -> Payload:
        return {"0": self.channel.guild_id or "0"}


def _reference(message: Message) -> Payload:
    seen: Payload = {"type": 0, "message_id": message.id, "channel_id": message.channel.id}
    if message.channel.guild_id:
        seen["guild_id"] = message.channel.guild_id
    return seen


def _buttons(components: list[object]) -> Iterator[str]:
    for component in components:
        if not isinstance(component, dict):
            continue
        yield from _buttons(component.get("components", []))
        if component.get("type") == 2 and not component.get("disabled"):
            yield str(component.get("custom_id", ""))
