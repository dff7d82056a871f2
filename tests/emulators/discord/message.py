"""A message as people see it and as Discord writes it in JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.emulators.discord.components import buttons, labels
from tests.emulators.discord.objects import DM, Channel, Payload, User, now

if TYPE_CHECKING:
    from tests.emulators.discord.cdn import Cdn
    from tests.emulators.discord.interaction import Interaction

DEFAULT, REPLY, COMMAND_RESPONSE, STARTER = 0, 19, 20, 21
SUPPRESS_EMBEDS, HAS_THREAD, EPHEMERAL, LOADING = 1 << 2, 1 << 5, 1 << 6, 1 << 7
HAS_SNAPSHOT = 1 << 14
_FORWARD = 1  # docs: Message Reference Types


@dataclass(frozen=True, slots=True)
class Shown:
    """A message as people see it; `buttons` are the custom ids of those that can be pressed.

    `labels` are what stands on the buttons, a picture if there is no text. `reader` is the person
    who alone sees an ephemeral one.

    The text of a forward is what was forwarded; `files` are the names of attachments, and
    `contents` their bytes. Links in one that is `suppressed` show no previews.
    """

    id: str
    channel_id: str
    author_id: str
    text: str
    buttons: tuple[str, ...]
    ephemeral: bool
    reply_to: str | None
    edited: bool
    files: tuple[str, ...] = ()
    suppressed: bool = False
    labels: tuple[str, ...] = ()
    reader: str | None = None
    contents: tuple[bytes, ...] = ()


@dataclass(slots=True, eq=False)
class Message:
    """A message and every text that it has shown (`states`).

    `created_at` is in seconds of the emulator's clock, `forwarded` the message of which this one
    keeps a `snapshot`, `everyone` whether it pings more than users and roles. `roles` are the ids
    of those that it mentions.
    """

    id: str
    channel: Channel
    author: User
    cdn: Cdn
    created_at: float
    text: str = ""
    kind: int = DEFAULT
    flags: int = 0
    components: list[object] = field(default_factory=list)
    embeds: list[object] = field(default_factory=list)
    attachments: list[Payload] = field(default_factory=list)
    mentions: list[User] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)
    everyone: bool = False
    reply_to: Message | None = None
    forwarded: Message | None = None
    snapshot: Payload | None = None
    interaction: Interaction | None = None
    nonce: str | None = None
    thread: Channel | None = None
    sent_at: str = field(default_factory=now)
    edited_at: str | None = None
    deleted: bool = False
    states: list[str] = field(default_factory=list)

    @property
    def ephemeral(self) -> bool:
        """Whether only one person sees the message."""
        return bool(self.flags & EPHEMERAL)

    @property
    def visible(self) -> str:
        """The text that stands on the screen."""
        return str(self.snapshot["content"]) if self.snapshot else self.text

    def show(self, text: str) -> None:
        """Make this the text."""
        self.text = text
        if text and (not self.states or self.states[-1] != text):
            self.states.append(text)

    def forward(self, message: Message) -> None:
        """Keep what another message shows now (docs: Forwards)."""
        self.forwarded, self.flags = message, self.flags | HAS_SNAPSHOT
        self.snapshot = message.content() | {
            "type": message.kind,
            "timestamp": message.sent_at,
            "edited_timestamp": message.edited_at,
            "flags": message.flags,
        }

    def shown(self) -> Shown:
        """Return what people see."""
        return Shown(
            id=self.id,
            channel_id=self.channel.id,
            author_id=self.author.id,
            text=self.visible,
            buttons=tuple(buttons(self.components)),
            ephemeral=self.ephemeral,
            reply_to=self.reply_to.id if self.reply_to else None,
            edited=self.edited_at is not None,
            files=tuple(str(one["filename"]) for one in self.attachments),
            suppressed=bool(self.flags & SUPPRESS_EMBEDS),
            labels=tuple(labels(self.components)),
            contents=tuple(map(self.cdn.read, self.attachments)),
            reader=self.interaction.user.id if self.ephemeral and self.interaction else None,
        )

    def content(self, *, veiled: bool = False) -> Payload:
        """Return what somebody wrote, with what is veiled left empty."""
        return {
            "content": "" if veiled else self.text,
            "components": [] if veiled else self.components,
            "embeds": [] if veiled else self.embeds,
            "attachments": [] if veiled else [*map(self.cdn.signed, self.attachments)],
            "mentions": [user.payload() for user in self.mentions],
            "mention_roles": self.roles,
        }

    def payload(self, *, veiled_from: User | None = None) -> Payload:
        """Return the message object; a bot that it is `veiled_from` sees no content of others.

        DMs, its own messages and those that mention it stay readable (docs: Message Content
        Intent).
        """
        readers = (None, self.author, *self.mentions)
        veiled = veiled_from not in readers and self.channel.kind != DM
        seen: Payload = {
            "id": self.id,
            "channel_id": self.channel.id,
            "type": self.kind,
            "author": self.author.payload(),
            "mention_everyone": self.everyone,
            "timestamp": self.sent_at,
            "edited_timestamp": self.edited_at,
            "tts": False,
            "pinned": False,
            "flags": self.flags,
        }
        links = self._links() | self._origin(veiled=veiled, veiled_from=veiled_from)
        return seen | self.content(veiled=veiled) | links

    def event(self, *, veiled_from: User | None = None) -> Payload:
        """Return the message as the gateway tells of it: with the guild and the member."""
        seen = self.payload(veiled_from=veiled_from)
        if self.channel.guild_id is None:
            return seen
        return seen | {"guild_id": self.channel.guild_id, "member": self.author.member()}

    def _links(self) -> Payload:
        """Return the keys that Discord leaves out where there is nothing to say."""
        seen: Payload = {}
        if self.nonce is not None:
            seen["nonce"] = self.nonce
        if self.thread:
            seen["thread"] = self.thread.payload()
        if self.interaction:
            seen["application_id"] = seen["webhook_id"] = self.interaction.application_id
            seen["interaction_metadata"] = self.interaction.metadata()
        return seen

    def _origin(self, *, veiled: bool, veiled_from: User | None) -> Payload:
        """Return what the message answers, or forwards."""
        if self.reply_to:
            found = None if self.reply_to.deleted else self.reply_to
            seen = found.payload(veiled_from=veiled_from) if found else None
            return {"message_reference": _reference(self.reply_to), "referenced_message": seen}
        if self.forwarded and self.snapshot:
            hidden: Payload = {"content": "", "components": [], "embeds": [], "attachments": []}
            fresh: Payload = {"attachments": [*map(self.cdn.signed, self.forwarded.attachments)]}
            snapshot = self.snapshot | (hidden if veiled else fresh)
            reference = _reference(self.forwarded) | {"type": _FORWARD}
            return {"message_reference": reference, "message_snapshots": [{"message": snapshot}]}
        return {}


def _reference(message: Message) -> Payload:
    seen: Payload = {"type": 0, "message_id": message.id, "channel_id": message.channel.id}
    if message.channel.guild_id:
        seen["guild_id"] = message.channel.guild_id
    return seen
