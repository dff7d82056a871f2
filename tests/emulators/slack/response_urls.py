"""Where an app answers a command or a button: addresses that take a few answers for a while."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace

from tests.emulators.clock import Clock
from tests.emulators.slack.arguments import SlackError, flag, text
from tests.emulators.slack.chat import Chat
from tests.emulators.slack.message import Ephemeral
from tests.emulators.slack.payload import Payload
from tests.emulators.slack.workspace import Channel, Workspace

# docs: Handling user interaction, "Message responses": five times within 30 minutes.
RESPONSES, RESPONSE_SECONDS = 5, 1800.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a person did something; `whispered` is the message that nobody else saw, if one is."""

    workspace: Workspace
    channel: Channel
    user_id: str
    whispered: Ephemeral | None = None


@dataclass(slots=True)
class _Address:
    place: Place
    expires: float  # the clock's seconds
    uses: int = 0


class ResponseUrls:
    """Hands out addresses under `base`, and shows what is posted to them."""

    def __init__(self, chat: Chat, clock: Clock) -> None:
        self.base = ""
        self._chat = chat
        self._clock = clock
        self._addresses: dict[str, _Address] = {}

    def open(self, place: Place) -> str:
        """Return a new address."""
        key = secrets.token_hex(8)
        self._addresses[key] = _Address(place, self._clock.now() + RESPONSE_SECONDS)
        return f"{self.base}actions/{place.workspace.team_id}/{key}"

    def use(self, key: str, body: Payload) -> None:
        """Take what was posted to an address; SlackError when it takes no more."""
        address = self._addresses.get(key)
        if address is None:
            raise SlackError("no_such_hook")
        if address.expires < self._clock.now():
            raise SlackError("expired_url")
        if address.uses >= RESPONSES:
            raise SlackError("used_url")
        address.uses += 1
        place = address.place
        if place.whispered and flag(body, "replace_original"):
            shown = self._chat.whisper_instead(place.whispered, body)
            address.place = replace(place, whispered=shown)
        else:
            self.answer(place, body)

    def answer(self, place: Place, body: Payload) -> None:
        """Show an answer to the person alone.

        It needs no membership (docs: Handling user interaction, "Publishing ephemeral responses").
        """
        if text(body, "response_type") not in ("", "ephemeral"):
            raise NotImplementedError("answers for all are not emulated")
        self._chat.whisper(place.workspace, place.channel, place.user_id, body)
