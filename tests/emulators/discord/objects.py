"""Users and channels, as Discord writes them in JSON, and the ids of all things."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal

Payload = dict[str, object]

TEXT: Final = 0
DM: Final = 1
VOICE: Final = 2
PUBLIC_THREAD: Final = 11
GROUP_DM: Final = 3
STAGE: Final = 13
# View, send, embed, attach, read history, mention everyone, react, use commands, open public
# threads and write in them: what an operator grants a chat bot, and what makes pings hurt.
PERMISSIONS = str(sum(1 << bit for bit in (6, 10, 11, 14, 15, 16, 17, 31, 35, 38)))
MANAGE_CHANNELS, MANAGE_SERVER, MANAGE_MESSAGES = 1 << 4, 1 << 5, 1 << 13
READ_MESSAGE_HISTORY, ATTACH_FILES = 1 << 16, 1 << 15

# docs: Guild Member Object.
_UNSET = ("nick", "avatar", "banner", "premium_since", "communication_disabled_until")
_EPOCH_MS = 1_420_070_400_000
_serial = itertools.count()


def snowflake() -> str:
    """Return an id that is new in this process and sorts by time, as Discord's do."""
    milliseconds = time.time_ns() // 1_000_000 - _EPOCH_MS
    return str(milliseconds << 22 | next(_serial) & 0x3FFFFF)


def now() -> str:
    """Return the present moment as Discord writes it."""
    return datetime.now(UTC).isoformat()


def role(role_id: str, name: str, *, bot_id: str | None = None) -> Payload:
    """Return the role object; the id of the one that every member has is the guild's.

    Discord makes one for each bot that is invited with permissions, and manages it.
    """
    tags: Payload = {"tags": {"bot_id": bot_id}} if bot_id else {}
    return tags | {
        "id": role_id,
        "name": name,
        "permissions": PERMISSIONS,
        "position": 0,
        "color": 0,
        "colors": {"primary_color": 0, "secondary_color": None, "tertiary_color": None},
        "hoist": False,
        "managed": bot_id is not None,
        "mentionable": False,
        "icon": None,
        "unicode_emoji": None,
        "flags": 0,
    }


@dataclass(slots=True, eq=False)
class User:
    """A person, or a bot; one that `moderates` may manage the messages of others.

    `extra` are further permissions, which may change.
    """

    id: str
    name: str
    bot: bool = False
    moderates: bool = False
    extra: int = 0
    roles: list[str] = field(default_factory=list)
    locale: str = "en-US"  # only interactions tell it

    def payload(self) -> Payload:
        """Return the user object."""
        return {
            "id": self.id,
            "username": self.name,
            "discriminator": "0",
            "global_name": self.name,
            "avatar": None,
            "bot": self.bot,
            "flags": 0,
            "public_flags": 0,
            "primary_guild": None,
        }

    @property
    def permissions(self) -> str:
        """What the user may do in every channel of the guild."""
        more = MANAGE_MESSAGES if self.moderates else 0
        return str(int(PERMISSIONS) | more | self.extra)

    def member(self) -> Payload:
        """Return the user's membership of the guild, without the user itself."""
        seen: Payload = dict.fromkeys(_UNSET)
        seen |= {"deaf": False, "mute": False, "pending": False, "flags": 0}
        return seen | {"roles": list(self.roles), "joined_at": now()}


@dataclass(slots=True, eq=False)
class Channel:
    """A channel of the guild (`guild_id`), a thread in one (`parent_id` too) or a DM (`recipient`).

    `archived`, `locked` and `participant`, the id of the bot once it takes part, are for threads. A
    channel that `hides_history` shows people only what is said while they look. A `foreign` one is
    where the bot is no member: in another server, in a group DM (`members`) or others' DM.
    """

    id: str
    kind: Literal[0, 1, 2, 3, 11, 13]
    name: str = ""
    guild_id: str | None = None
    parent_id: str | None = None
    owner_id: str | None = None
    recipient: User | None = None
    participant: str | None = None
    last_message_id: str | None = None
    archived: bool = False
    locked: bool = False
    hides_history: bool = False
    foreign: bool = False
    members: tuple[User, ...] = ()
    created_at: str = field(default_factory=now)

    @property
    def context(self) -> int:
        """Where an interaction is (docs: Interaction Context Types)."""
        return 0 if self.guild_id else 2 if self.foreign else 1

    def payload(self) -> Payload:
        """Return the channel object."""
        seen: Payload = {"id": self.id, "type": self.kind, "flags": 0}
        seen["last_message_id"] = self.last_message_id
        if self.members:
            group: Payload = {"name": None, "icon": None, "owner_id": self.members[0].id}
            more = group if self.kind == GROUP_DM else {}
            return seen | more | {"recipients": [one.payload() for one in self.members]}
        if self.recipient:
            return seen | {"recipients": [self.recipient.payload()]}
        seen |= {"guild_id": self.guild_id, "name": self.name, "rate_limit_per_user": 0}
        if self.kind == PUBLIC_THREAD:
            return seen | self._thread_fields()
        denied = {"id": self.guild_id, "type": 0, "allow": "0", "deny": str(READ_MESSAGE_HISTORY)}
        overwrites = [denied] if self.hides_history else []
        seen |= {"position": 0, "permission_overwrites": overwrites, "nsfw": False, "topic": None}
        spoken: Payload = {"bitrate": 64000, "user_limit": 0, "rtc_region": None}
        return seen | (spoken if self.kind in (VOICE, STAGE) else {})

    def _thread_fields(self) -> Payload:
        seen: Payload = {
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
        }
        if self.participant is None:
            return seen
        member = {"user_id": self.participant, "join_timestamp": self.created_at, "flags": 0}
        return seen | {"member": {"id": self.id} | member}
