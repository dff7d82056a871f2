"""What a person does with the bot's commands and buttons, as Discord writes it in JSON."""

from __future__ import annotations

from dataclasses import dataclass

from tests.emulators.discord.message import Message
from tests.emulators.discord.objects import (
    PERMISSIONS,
    READ_MESSAGE_HISTORY,
    Channel,
    Payload,
    User,
)


@dataclass(slots=True, eq=False)
class Interaction:
    """A command that a person used (type 2), a button that one pressed (type 3), or another.

    `created_at` is in seconds of the emulator's clock. `original` is the message that answers it,
    `choices` are what an autocompletion (type 4) offers, and `modal` is the form that it has
    opened. `target` is the message in whose menu a command was chosen, `opened_by` what has opened
    the form that was sent (type 5).
    """

    id: str
    application_id: str
    token: str
    kind: int
    user: User
    channel: Channel
    data: Payload
    created_at: float
    message: Message | None = None
    answered: bool = False
    original: Message | None = None
    choices: list[object] | None = None
    modal: Payload | None = None
    target: Message | None = None
    opened_by: Interaction | None = None
    follow_ups: int = 0
    guild_locale: str = "en-US"

    def metadata(self) -> Payload:
        """Return what a message says about the interaction that it answers."""
        seen: Payload = {
            "id": self.id,
            "type": self.kind,
            "user": self.user.payload(),
            "authorizing_integration_owners": self._owners(),
        }
        if self.opened_by:
            return seen | {"triggering_interaction_metadata": self.opened_by.metadata()}
        if self.target:
            seen["target_message_id"] = self.target.id
        return seen | ({"interacted_message_id": self.message.id} if self.message else {})

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
            "locale": self.user.locale,
            "entitlements": [],
            "authorizing_integration_owners": self._owners(),
            "context": self.channel.context,
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
        permissions = int(self.user.permissions)
        if self.channel.hides_history:
            permissions &= ~READ_MESSAGE_HISTORY
        return {
            "guild_id": guild_id,
            "guild": {"id": guild_id, "locale": self.guild_locale, "features": []},
            "guild_locale": self.guild_locale,
            "member": self.user.member() | {"user": user, "permissions": str(permissions)},
        }

    def _owners(self) -> Payload:
        if self.channel.foreign:
            return {"1": self.user.id}
        return {"0": self.channel.guild_id or "0"}
